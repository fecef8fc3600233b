"""The steps of a request, without a server."""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ocrnet_pl.serving.inquiry import Inquiry
from ocrnet_pl.serving.served_network import LoadedNetwork, ServedNetwork
from tests.helpers.bad_files import huge_png
from tests.helpers.builders import tiny_network

pytest.importorskip("litserve", reason="litserve is not installed")
pytest.importorskip("prometheus_client", reason="prometheus-client is not installed")
pytest.importorskip("httpx", reason="httpx is not installed")

from ocrnet_pl.serving.api import PredictionAPI
from ocrnet_pl.serving.requests import Asked
from ocrnet_pl.serving.server import make_server
from ocrnet_pl.serving.serving import Serving


def image_file(height: int = 48, width: int = 80, kind: str = "PNG") -> bytes:
    """Return the content of an image file."""
    file = io.BytesIO()
    values = np.random.default_rng(height).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(values).save(file, kind)
    return file.getvalue()


@pytest.fixture(scope="module")
def loaded() -> LoadedNetwork:
    network = tiny_network()
    network.postprocess.decode.score_threshold = 1e-5
    return LoadedNetwork(ServedNetwork("none.ckpt"), network)


@pytest.fixture(scope="module")
def api(loaded: LoadedNetwork) -> PredictionAPI:
    """The API as it is in a process whose network is loaded."""
    made = PredictionAPI(loaded.how, 1_000_000, 4, 0.005)
    made.loaded = loaded
    return made


def answers(api: PredictionAPI, *asked: Asked) -> list[Any]:
    """Return the answers to a batch of requests."""
    decoded = [api.decode_request(each) for each in asked]
    found = api.predict(api.batch(decoded))
    assert isinstance(found, list)
    return [api.encode_response(each) for each in found]


def test_an_answer_is_the_prediction(api: PredictionAPI, loaded: LoadedNetwork, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(image_file())
    expected = loaded.network.predict(tmp_path / "a.png")[0]
    asked = Asked(image_file(), "a.png", Inquiry(masks=True))
    (found,) = answers(api, asked)
    content = json.loads(found.body)
    assert found.status_code == 200 and found.media_type == "application/json"
    assert len(content["objects"]) == len(expected.scores) > 0
    assert content == json.loads(json.dumps({**expected.to_dict(masks=True), "path": ""}))
    single = api.predict(api.decode_request(asked))
    assert not isinstance(single, list) and api.encode_response(single).body == found.body
    # Some of the objects only.
    score = float(expected.scores.median())
    (found,) = answers(api, Asked(image_file(), "a.png", Inquiry(score=score, classes=("disc",))))
    kept = [each for each in content["objects"] if each["score"] >= score and each["name"] == "disc"]
    assert [each["box"] for each in json.loads(found.body)["objects"]] == [each["box"] for each in kept]


def test_an_image_is_drawn(api: PredictionAPI) -> None:
    (found,) = answers(api, Asked(image_file(), "a.png", Inquiry("png", 0.3)))
    assert found.media_type == "image/png"
    with Image.open(io.BytesIO(found.body)) as drawn:
        assert drawn.format == "PNG" and drawn.size == (80, 48)


def test_what_is_not_an_image_does_not_disturb_the_others_of_its_batch(api: PredictionAPI, tmp_path: Path) -> None:
    huge_png(tmp_path / "huge.png")
    good = Asked(image_file(), "a.png", Inquiry())
    bad = [
        Asked(b"hello", "text.jpg", Inquiry()),
        Asked((tmp_path / "huge.png").read_bytes(), "huge.png", Inquiry("png")),
        Asked(image_file()[:200], "half.png", Inquiry()),
    ]
    (alone,) = answers(api, good)
    first, *refused, last = answers(api, good, *bad, good)
    assert first.body == last.body == alone.body
    assert [each.status_code for each in refused] == [400, 400, 400]
    text, huge, half = (json.loads(each.body)["detail"] for each in refused)
    assert text.startswith("text.jpg: this is not an image file")
    assert huge.startswith("huge.png: the image is 100000 x 100000, more than the limit of 1 megapixels")
    assert half.startswith("half.png: the image cannot be read (")
    assert not any("\n" in line for line in (text, huge, half))


@pytest.fixture(scope="module")
def client(loaded: LoadedNetwork) -> Iterator[Any]:
    """A client of the server's application, in which one process does all the steps of a request."""
    from starlette.testclient import TestClient

    serving = Serving(max_upload_mb=0.25, max_waiting=1)
    server = make_server(loaded, serving, "cpu", "auto")
    api = server.lit_api
    api.loaded = loaded

    async def handled(request: Asked) -> Any:
        return api.encode_response(api.predict(api.decode_request(request)))

    # In place of the queue to another process; the request is read by the server's own means.
    kept = [route for route in server.app.router.routes if getattr(route, "path", "") != "/predict"]
    server.app.router.routes[:] = kept
    handled.__annotations__["request"] = PredictionAPI.decode_request.__annotations__["request"]
    server.app.add_api_route("/predict", handled, methods=["POST"], response_model=None)
    server.app.router.lifespan_context = None
    yield TestClient(server.app)


def test_a_file_comes_as_the_body_or_in_a_form(client: Any) -> None:
    raw = client.post("/predict", content=image_file())
    form = client.post("/predict", files={"photo": ("a.png", image_file())})
    assert raw.status_code == form.status_code == 200
    assert raw.json() == {**form.json(), "image_id": "image"} and form.json()["image_id"] == "a.png"
    drawn = client.post("/predict?score=0.9", content=image_file(kind="JPEG"), headers={"accept": "image/png"})
    assert drawn.status_code == 200 and drawn.headers["content-type"] == "image/png"
    assert Image.open(io.BytesIO(drawn.content)).size == (80, 48)


@pytest.mark.parametrize("charset", ["unicode_escape", "utf-7"])
def test_a_name_that_no_answer_can_hold_disturbs_nothing(charset: str, client: Any) -> None:
    name = {"unicode_escape": b"\\ud800.png", "utf-7": b"+2AA-.png"}[charset]
    body = b'--xx\r\nContent-Disposition: form-data; name="a"; filename="' + name + b'"\r\n\r\n'
    headers = {"content-type": f"multipart/form-data; boundary=xx; charset={charset}"}
    found = client.post("/predict", content=body + image_file() + b"\r\n--xx--\r\n", headers=headers)
    assert found.status_code == 200 and found.json()["image_id"] == "?.png"


def test_whatever_is_wrong_with_a_request_is_said_in_one_line(client: Any) -> None:
    form = {"content-type": "multipart/form-data; boundary=abc"}
    for status, said, options in [
        (400, "there is no image", {"content": b""}),
        (400, "image: this is not an image", {"content": b"hello"}),
        (400, "expected one file in the form", {"files": {"image": (None, "text")}}),
        (400, "Too many files", {"files": [("a", ("a.png", b"1")), ("b", ("b.png", b"2"))]}),
        (400, "Missing boundary", {"content": image_file(), "headers": {"content-type": "multipart/form-data"}}),
        (400, "Invalid multipart", {"content": image_file(), "headers": form}),
        (400, "expected one file", {"content": b"--abc--\r\n", "headers": form}),
        (400, "score: expected", {"content": image_file(), "params": {"score": "2"}}),
        (406, "Accept: ", {"content": image_file(), "headers": {"accept": "text/html"}}),
        (413, "the request is larger than the limit of 0.25 MiB", {"content": bytes(300_000)}),
        (413, "Payload too large", {"content": iter([bytes(200_000)] * 2)}),
    ]:
        answer = client.post("/predict", **options)
        assert answer.status_code == status, options
        assert answer.json()["detail"].startswith(said) and "\n" not in answer.json()["detail"]
    assert client.get("/predict").status_code == 405


def test_the_server_counts_its_answers(client: Any) -> None:
    def count(status: str) -> float:
        lines = client.get("/metrics").text.splitlines()
        return sum(
            float(line.split()[1]) for line in lines if line.startswith(f'ocrnet_requests_total{{status="{status}"')
        )

    before = count("200"), count("400")
    client.post("/predict", content=image_file())
    client.post("/predict", content=b"hello")
    assert (count("200"), count("400")) == (before[0] + 1, before[1] + 1)
    assert "ocrnet_requests_waiting 0.0" in client.get("/metrics").text
    assert client.get("/info").json()["model"]["classes"] == ["sky", "ground", "disc", "square", "star"]


def test_a_client_that_sends_too_slowly_is_told() -> None:
    import asyncio
    from types import SimpleNamespace

    from starlette.exceptions import HTTPException
    from starlette.requests import Request

    from ocrnet_pl.serving.requests import Reception, read_request

    async def receive() -> Any:
        await asyncio.sleep(0.03)
        return {"type": "http.request", "body": b"", "more_body": True}

    app = SimpleNamespace(state=SimpleNamespace(reception=Reception(("disc",), 0.3, 10**6, 0.2)))
    for headers in ([], [(b"content-type", b"multipart/form-data; boundary=x")]):
        scope = {"type": "http", "method": "POST", "query_string": b"", "headers": headers, "app": app}
        with pytest.raises(HTTPException) as error:
            asyncio.run(read_request(Request(scope, receive)))
        assert (error.value.status_code, error.value.detail) == (408, "the image did not arrive within 0.2 s")


def test_more_requests_than_may_wait_are_refused() -> None:
    import asyncio

    from ocrnet_pl.serving.traffic import Counts, Traffic

    release = asyncio.Event()

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        await release.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def run() -> list[int]:
        statuses: list[int] = []

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                statuses.append(message["status"])

        traffic = Traffic(slow, "/predict", Counts(), 2)
        scope = {"type": "http", "path": "/predict", "method": "POST", "headers": []}
        first = [asyncio.create_task(traffic(scope, None, send)) for _ in range(2)]  # type: ignore[arg-type]
        await asyncio.sleep(0)
        await traffic(scope, None, send)  # type: ignore[arg-type]
        release.set()
        await asyncio.gather(*first)
        await traffic(scope, None, send)  # type: ignore[arg-type]
        return statuses

    assert asyncio.run(run()) == [503, 200, 200, 200]


def test_only_the_chosen_classes_are_given_out(loaded: LoadedNetwork) -> None:
    image = torch.zeros(3, 64, 64, dtype=torch.uint8)
    chosen = dataclasses.replace(loaded, how=dataclasses.replace(loaded.how, classes=("star",)))
    assert set(chosen.predict([image])[0].names) == {"star"} < set(loaded.predict([image])[0].names)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"port": 80}, r"^serving.port: expected 1024 to 65535, got 80$"),
        ({"score": 2.0}, r"^serving.score: expected 0 to 1"),
        ({"max_upload_mb": 0.0}, r"^serving.max_upload_mb: expected a number above 0"),
        ({"max_batch": 0}, r"^serving.max_batch: expected at least 1"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Serving(**options)
