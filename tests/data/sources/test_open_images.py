"""Open Images against boxes and supervision written by hand, and bad input."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ocrnet_pl.data.sources.open_images import OpenImages
from ocrnet_pl.errors import DataError
from tests.helpers.drawn_data import names, picture

HEADER = (
    "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf,IsDepiction,IsInside\n"
)
ROWS = "a,x,/m/1,1,0.1,0.35,0.25,0.75,0,0,0,0,0\na,x,/m/2,1,0.5,1,0,0.5,-1,0,1,0,0\nb,x,/m/3,1,0.5,1,0,0.5,0,0,0,0,0\n"
VERIFIED = "ImageID,Source,LabelName,Confidence\na,verification,/m/3,0\nb,verification,/m/1,0\nc,verification,/m/2,0\n"


def save(root: Path, rows: str = ROWS, header: str = HEADER) -> None:
    for stem in "abcd":
        picture(root / f"images/{stem}.png")
    (root / "boxes.csv").write_text(header + rows + "elsewhere,x,/m/9,1,0,1,0,1,0,0,0,0,0\n")
    (root / "names.csv").write_text("/m/2,Dog\n/m/1,Cat\n/m/3,Cow\n/m/9,Gnu\n")
    (root / "verified.csv").write_text(VERIFIED)


def test_boxes_and_what_was_verified(tmp_path: Path) -> None:
    save(tmp_path)
    classes = ["Cat", "Dog", "Cow"]
    source = OpenImages("images", "boxes.csv", "names.csv", "verified.csv", classes, root=tmp_path)
    assert names(source.taxonomy.detection_categories) == classes and source.taxonomy.num_semantic == 0
    samples = [source[index] for index in range(len(source))]
    assert [sample.image_id for sample in samples] == ["a", "b", "c"]
    assert np.allclose(samples[0].boxes, [[2, 3, 7, 9], [10, 0, 20, 6]], atol=1e-5)
    assert samples[0].crowd.tolist() == [False, True] and samples[0].labels.tolist() == [0, 1]
    known = [sample.supervision.detection.tolist() for sample in samples]
    assert known == [[True, True, True], [True, False, True], [False, True, False]]
    assert np.allclose(source.image_boxes(0), samples[0].boxes)
    raw = source.raw_boxes(0)
    assert np.allclose(raw.boxes, samples[0].boxes, atol=1e-5) and raw.field.format(raw.numbers[1]) == "line 3"
    # Every image is labelled for all classes, in the order of the names.
    plain = OpenImages("images", "boxes.csv", "names.csv", root=tmp_path)
    assert names(plain.taxonomy.detection_categories) == ["Dog", "Cat", "Cow", "Gnu"] and len(plain) == 2
    assert plain[1].supervision.detection.all()


@pytest.mark.parametrize(
    ("rows", "options", "words"),
    [
        ("a,x,/m/1,1,0.5,0.3,0,1,0,0,0,0,0\n", {}, "boxes.csv: line 2: expected XMin up to XMax"),
        ("a,x,/m/1,1,10,30,0,1,0,0,0,0,0\n", {}, "from 0 to 1"),
        ("a,x,/m/8,1,0,1,0,1,0,0,0,0,0\n", {"descriptions": "names.csv"}, "no name of the class '/m/8'"),
        ("a,x\n", {}, "line 2: 2 cells, but 13 columns"),
        ("", {"image_labels": "names.csv"}, "names.csv: line 1: there is no column 'ImageID', only /m/2, Dog"),
        ("", {"descriptions": "boxes.csv"}, "boxes.csv: line 1: expected a code and a name"),
        ("", {}, "boxes.csv: no image is labelled"),
    ],
)
def test_bad_files(tmp_path: Path, rows: str, options: dict[str, Any], words: str) -> None:
    save(tmp_path, rows)
    with pytest.raises(DataError) as caught:
        OpenImages("images", "boxes.csv", **options, root=tmp_path)
    assert words in str(caught.value)
