"""What a request asks for, from its query and its headers."""

from __future__ import annotations

import pytest

from ocrnet_pl.errors import UsageError
from ocrnet_pl.serving.inquiry import Inquiry, NotAcceptable

NAMES = ("sky", "disc")


@pytest.mark.parametrize(
    ("query", "accept", "expected"),
    [
        ({}, "", Inquiry("json", 0.3)),
        ({}, "*/*", Inquiry("json", 0.3)),
        ({}, "image/png", Inquiry("png", 0.3)),
        ({}, "text/html, image/*;q=0.5, application/json;q=0.4", Inquiry("png", 0.3)),
        ({}, "image/png;q=0.4, application/json", Inquiry("json", 0.3)),
        ({}, "image/png, application/json", Inquiry("png", 0.3)),
        # What is named more closely counts.
        ({}, "application/json;q=0, */*", Inquiry("png", 0.3)),
        ({}, "*/*, image/png;q=0", Inquiry("json", 0.3)),
        ({"score": "1e-3"}, "", Inquiry("json", 0.001)),
        ({"format": "json"}, "image/png", Inquiry("json", 0.3)),
        ({"format": "png"}, "text/html", Inquiry("png", 0.3)),
        ({"score": "0", "classes": "disc, sky,", "masks": "true"}, "", Inquiry("json", 0.0, ("disc", "sky"), True)),
    ],
)
def test_the_query_comes_before_the_header(query: dict[str, str], accept: str, expected: Inquiry) -> None:
    assert Inquiry.parse(query.items(), accept, NAMES, 0.3) == expected


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ({"scores": "0.5"}, r"^'scores': there is no such parameter; there are format, score, classes, masks$"),
        ({"score": "high"}, r"^score: expected a number from 0 to 1, got 'high'$"),
        ({"score": "nan"}, r"^score: expected a number from 0 to 1, got 'nan'$"),
        *(({"score": text}, r"^score: expected") for text in ("1.5", "0_1", "\u0660", " 1", "", "-0.1", "1e999", "+1")),
        ({"classes": "dog"}, r"^classes: there is no class 'dog'; the network knows sky, disc$"),
        ({"classes": ""}, r"^classes: expected names separated by commas, got ''; leave it out for all classes$"),
        ({"masks": "maybe"}, r"^masks: expected true or false, got 'maybe'$"),
        ({"format": "xml"}, r"^format: expected json or png, got 'xml'$"),
        ({"x" * 5000: "1"}, r"^'x{100}': there is no such parameter"),
    ],
)
def test_a_wrong_parameter_is_named(query: dict[str, str], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        Inquiry.parse(query.items(), "", NAMES, 0.3)


def test_a_parameter_that_is_given_twice_is_named() -> None:
    with pytest.raises(UsageError, match=r"^score: it is given twice; leave one out$"):
        Inquiry.parse([("score", "0.5"), ("masks", "true"), ("score", "0.1")], "", NAMES, 0.3)


@pytest.mark.parametrize("accept", ["text/html", "image/png;q=0", "image/png;q=much"])
def test_a_client_that_takes_neither_kind_is_told(accept: str) -> None:
    with pytest.raises(NotAcceptable, match=r"^Accept: there are answers in application/json and image/png only$"):
        Inquiry.parse([], accept, NAMES, 0.3)
