"""Images handed to ``OCRNet.predict``: what it takes, their ids, and what is refused."""

from __future__ import annotations

import re
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from ocrnet_pl.data.sources.folder import ImageFolder
from ocrnet_pl.errors import DataError
from ocrnet_pl.imaging import downloads
from ocrnet_pl.imaging.downloads import fetch_image
from ocrnet_pl.imaging.images import read_image
from ocrnet_pl.inference.multiscale import MultiScale
from ocrnet_pl.inference.tiled_inference import Tiling
from ocrnet_pl.models.ocrnet import OCRNet
from ocrnet_pl.structures import Prediction, Predictions
from tests.helpers.builders import tiny_network

ARRAY = np.random.default_rng(0).integers(0, 256, (37, 53, 3), np.uint8)


@pytest.fixture(scope="module")
def network() -> OCRNet:
    """Return a network that finds something, and not the same everywhere."""
    network = tiny_network()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(3)
    return network


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of three images, the first of them ``ARRAY``."""
    root = tmp_path_factory.mktemp("images")
    (root / "sub").mkdir()
    for number, name in enumerate(("a.png", "b.png", "sub/c.png")):
        Image.fromarray(np.roll(ARRAY, number * 11, 1)).save(root / name)
    return root


def same(one: Prediction, other: Prediction) -> bool:
    fields = ("boxes", "scores", "labels", "semantic", "instances")
    return all(torch.equal(getattr(one, name), getattr(other, name)) for name in fields)


def test_ids_are_the_paths_that_the_predict_command_writes(network: OCRNet, folder: Path) -> None:
    source = ImageFolder(folder)
    expected = {path: name for name, path in (source.identity(index) for index in range(3))}
    for images in (folder, str(folder), [Path(path) for path in expected], str(folder / "**" / "*.png")):
        assert {each.path: each.image_id for each in network.predict(images)} == expected
    last = folder / "sub" / "c.png"
    assert network.predict(last)[0].image_id == ImageFolder(last).identity(0)[0] == "c.png"
    # The end of an iterator is not known, and so neither is the folder that holds all its files.
    assert [each.image_id for each in network.predict(iter([last]))] == [last.as_posix()]


def test_every_kind_of_image_gives_the_same_prediction(network: OCRNet, folder: Path) -> None:
    (expected,) = network.predict(folder / "a.png")
    tensor = torch.from_numpy(ARRAY).permute(2, 0, 1)
    bgr = ARRAY[..., ::-1]
    images = [Image.open(folder / "a.png"), Image.fromarray(ARRAY), ARRAY, ARRAY[None], tensor, tensor[None]]
    found = network.predict(images)
    found += network.predict(bgr, color="bgr") + network.predict(tensor.flip(0), color="bgr")
    found += network.predict(ARRAY / 255, max_value=1.0) + network.predict(tensor.float(), max_value=255.0)
    assert len(found) == len(images) + 4
    assert all(same(each, expected) for each in found)
    assert [each.image_id for each in found[:6]] == list(range(6))
    assert not same(network.predict(bgr)[0], expected)
    assert network.training


def test_grey_and_turned_images_are_read_as_files_are(network: OCRNet, tmp_path: Path) -> None:
    grey = Image.fromarray(ARRAY[..., 0])
    grey.save(tmp_path / "grey.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(ARRAY).save(tmp_path / "turned.png", exif=exif)
    Image.fromarray(ARRAY.astype(np.uint16)[..., 0] * 257).save(tmp_path / "deep.png")
    for given, name in (
        (grey, "grey.png"),
        (ARRAY[..., 0], "grey.png"),
        (ARRAY[..., :1], "grey.png"),
        (Image.open(tmp_path / "turned.png"), "turned.png"),
        (Image.open(tmp_path / "deep.png"), "deep.png"),
    ):
        found, expected = network.predict([given, tmp_path / name])
        assert same(found, expected), name
    assert network.predict(tmp_path / "turned.png")[0].semantic.shape == (53, 37)


def test_several_images_per_pass_are_those_of_one(network: OCRNet, folder: Path) -> None:
    images = [folder / "a.png", ARRAY[:20], folder]
    single, several = network.predict(images), network.predict(images, batch_size=4)
    assert [each.image_id for each in several] == [each.image_id for each in single]
    for one, other in zip(single, several, strict=True):
        assert torch.allclose(one.boxes, other.boxes, atol=1e-3)
        assert (one.semantic == other.semantic).float().mean() > 0.999


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"batch_size": 0}, "batch_size: expected a whole number from 1, got 0"),
        ({"batch_size": -1}, "batch_size: expected a whole number from 1, got -1"),
        ({"batch_size": 1.5}, "batch_size: expected a whole number from 1, got 1.5"),
        ({"batch_size": True}, "batch_size: expected a whole number from 1, got True"),
        ({"batch_size": "2"}, "batch_size: expected a whole number from 1, got '2'"),
        ({"batch_size": 10**20}, "batch_size: expected a whole number from 1, got 1000"),
        ({"tile": 5}, "tile: expected a Tiling, or None, got 5"),
        ({"tile": False}, "tile: expected a Tiling, or None, got False"),
        ({"tile": Tiling}, "tile: expected a Tiling, or None, got <class"),
        ({"multiscale": [1.0]}, r"multiscale: expected a MultiScale, or None, got \[1.0\]"),
        ({"tile": Tiling(), "multiscale": MultiScale()}, "tile and multiscale are both given"),
        ({"operating_point": None}, "operating_point: expected text, such as 'best_f1', got None"),
        ({"classes": 5}, "classes: expected the name of a class, or several, got 5"),
        ({"classes": None}, "classes: expected the name of a class, or several, got None"),
        ({"classes": ["a", 5]}, r"classes: expected the name of a class, or several, got \['a', 5\]"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_wrong_options_are_refused_before_an_image_is_read(
    network: OCRNet, options: dict[str, Any], line: str, stream: bool
) -> None:
    with pytest.raises(ValueError, match=f"^{line}"):
        network.predict("nowhere.png", stream=stream, **options)


def test_any_whole_number_and_any_way_of_predicting_is_taken(network: OCRNet) -> None:
    def way(of: OCRNet, image: Tensor) -> Predictions:
        return Tiling()(of, image)

    (found,) = network.predict(ARRAY, way, batch_size=np.int64(1), classes=iter(["disc"]))  # type: ignore[arg-type]
    assert same(found, network.predict(ARRAY, Tiling(), classes=["disc"])[0])


def test_a_tiling_takes_whole_numbers_of_tiles() -> None:
    with pytest.raises(ValueError, match=r"^tile.batch_size: expected a whole number from 1, got 1.5$"):
        Tiling(batch_size=1.5)  # type: ignore[arg-type]


@pytest.mark.parametrize("score", ["0.5", None, float("nan"), -1])
def test_a_score_that_is_none_is_named(network: OCRNet, score: Any) -> None:
    (found,) = network.predict(ARRAY)
    for use in (found.filter, found.plot):
        with pytest.raises(ValueError, match=f"^score: expected 0 to 1, got {score!r}$"):
            use(score=score)


def test_a_margin_is_a_number_however_wide(network: OCRNet) -> None:
    (found,) = network.predict(ARRAY)
    assert (3, 37, 53) in {tuple(part.shape) for part in found.crop(margin=1e308)}
    with pytest.raises(ValueError, match=r"^margin: expected a share of the box's sides, at least 0, got '1'$"):
        found.crop(margin="1")  # type: ignore[arg-type]


def test_a_stream_reads_one_image_at_a_time(network: OCRNet, folder: Path) -> None:
    asked: list[int] = []

    def images() -> Iterator[object]:
        for number in range(6):
            asked.append(number)
            yield ARRAY if number % 2 else folder / "a.png"

    found = network.predict(images(), stream=True, batch_size=2)
    assert asked == []
    first = next(found)
    assert asked == [0, 1]
    # Training may go on between two predictions.
    assert network.training
    assert first.image_id == (folder / "a.png").as_posix() and next(found).image_id == 1
    assert len(list(found)) == 4
    # What is wrong with a list shows before the first prediction.
    with pytest.raises(DataError, match=r"^image 1: "):
        network.predict([ARRAY, 7], stream=True)


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (torch.rand(3, 20, 20), r"found float32; say which value is white, with max_value=1\.0 or max_value=255\.0"),
        (np.random.rand(20, 20, 3), "found float64; say which value is white"),
        (torch.ones(3, 20, 20, dtype=torch.int64), "found int64; scale its values to 0 to 255 and convert it to torch"),
        (np.ones((20, 20, 3), np.uint16), r"found uint16; scale .* and convert it to np\.uint8"),
        (torch.ones(3, 20, 20, dtype=torch.bool), "found bool"),
        (torch.ones(20, 20, dtype=torch.uint8), r"found the shape \[20, 20\]; add a dimension"),
        (torch.ones(20, 30, 3, dtype=torch.uint8), r"expected 3 channels, found the shape \[20, 30, 3\]; put the chan"),
        (
            np.ones((3, 20, 30), np.uint8),
            r"found the shape \[3, 20, 30\]; put the channels last with image\.t",
        ),
        (
            np.ones((20, 30, 4), np.uint8),
            r"\[20, 30, 4\]; leave out the transparency with image\[\.\.\., :3",
        ),
        (
            torch.ones(5, 20, 20, dtype=torch.uint8),
            r"the shape \[5, 20, 20\]; the network takes only that number",
        ),
        (torch.ones(3, 0, 20, dtype=torch.uint8), "has no pixels"),
        (np.ones(7, np.uint8), r"found the shape \[7\]"),
        (7, "expected a path, .* found int"),
        (None, "found NoneType"),
        ([ARRAY], "found list"),
    ],
)
def test_what_is_no_image_is_refused_with_the_way_to_convert_it(network: OCRNet, image: object, words: str) -> None:
    with pytest.raises(DataError, match=f"^image 1: .*{words}"):
        network.predict([ARRAY, image])
    if not isinstance(image, list):
        with pytest.raises(DataError, match=f"^the image: .*{words}"):
            network.predict(image)
    assert network.training


def test_values_out_of_range_are_refused(network: OCRNet) -> None:
    for image, words in (
        (ARRAY / 255 * 2, "found 0 to 2"),
        (ARRAY / 255 - 1, "found -1 to 0"),
    ):
        with pytest.raises(DataError, match=rf"^image 0: expected values from 0 to max_value, 1, .*{words}"):
            network.predict([image], max_value=1.0)
    with pytest.raises(DataError, match=r"^image 0\[1\]: expected values"):
        network.predict([np.stack((ARRAY, ARRAY)) / np.array([255, 1])[:, None, None, None]], max_value=1.0)
    with pytest.raises(ValueError, match=r"^color: expected 'rgb' or 'bgr', got 'grb'$"):
        network.predict(ARRAY, color="grb")  # type: ignore[call-overload]
    with pytest.raises(ValueError, match=r"^max_value: expected the value of white, above 0, got 0$"):
        network.predict(ARRAY, max_value=0)


def test_paths_that_lead_to_no_image_are_named(network: OCRNet, tmp_path: Path, folder: Path) -> None:
    text = tmp_path / "text.jpg"
    text.write_text("no image")
    cut = tmp_path / "cut.png"
    cut.write_bytes((folder / "a.png").read_bytes()[:400])
    for given, words in (
        (tmp_path / "gone.png", f"^{tmp_path}/gone.png: there is no such image"),
        (str(tmp_path / "*.bmp"), rf"^{re.escape(str(tmp_path))}/\*.bmp: no file matches this pattern"),
        (text, f"^{text}: this is not an image file"),
        (cut, f"^{cut}: the image cannot be read"),
        ("s3://bucket/a.png", "^s3://bucket/a.png: only addresses that begin with http:// and https:// are fetched"),
    ):
        with pytest.raises(DataError, match=words) as caught:
            network.predict([folder / "a.png", given])
        assert "\n" not in str(caught.value)
    (tmp_path / "photo.png").write_bytes((folder / "a.png").read_bytes())
    cut.unlink()
    with pytest.warns(UserWarning, match=r"1 file\(s\) that are not images are left out, such as .*text\.jpg"):
        assert [each.image_id for each in network.predict(tmp_path)] == ["photo.png"]
    damaged = Image.open(folder / "a.png")
    damaged.fp.seek(0)
    damaged.fp = open(text, "rb")  # noqa: SIM115
    with pytest.raises(DataError, match=r"^the image: the image cannot be read"):
        network.predict(damaged)


class Server(BaseHTTPRequestHandler):
    """Answers with an image, or with what a bad server sends."""

    image = b""

    def do_GET(self) -> None:
        if self.path == "/gone.png":
            self.send_error(404)
            return
        moved = {
            "/moved.png": "file:///etc/passwd",
            "/ftp.png": "ftp://127.0.0.1:9/a.png",
            "/away.png": "/locked.png",
            "/circle.png": "/circle.png",
        }
        if self.path in moved:
            self.send_response(302)
            self.send_header("Location", moved[self.path])
            self.end_headers()
            return
        if self.path == "/locked.png" and self.headers["Authorization"] != "Basic bWU6YSBi":
            self.send_error(401)
            return
        content = {"/text.png": b"no image", "/huge.png": bytes(5000)}.get(self.path.partition("?")[0], self.image)
        self.send_response(200)
        length = {"/cut.png": len(content) + 9, "/endless.png": None, "/huge.png": None}.get(self.path, len(content))
        if length is not None:
            self.send_header("Content-Length", str(length))
        self.end_headers()
        if self.path == "/endless.png":
            with suppress(BrokenPipeError):
                for _ in range(30):
                    self.wfile.write(b"x")
                    time.sleep(0.05)
        else:
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    Server.image = (folder / "a.png").read_bytes()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_images_at_an_address(network: OCRNet, folder: Path, address: str) -> None:
    fetched, expected = network.predict([f"{address}/a.png?token=secret1", folder / "a.png"])
    assert same(fetched, expected)
    assert fetched.image_id == fetched.path == f"{address}/a.png?token=<redacted>"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("gone.png", "the server answers 404 Not Found"),
        ("moved.png", "the server answers 302"),
        ("ftp.png", "the server redirects to ftp://127.0.0.1:9/a.png, which is not fetched"),
        ("circle.png", "the server answers 302 The HTTP server returned a redirect error"),
        ("locked.png", "the server answers 401 Unauthorized"),
        ("text.png", "this is not an image file of a format that is read"),
        ("cut.png", r"only \d+ of \d+ bytes were received"),
    ],
)
def test_what_is_wrong_at_an_address_is_said_in_one_line(network: OCRNet, address: str, name: str, words: str) -> None:
    with pytest.raises(DataError, match=f"^{address}/{name}: {words}") as caught:
        network.predict([ARRAY, f"{address}/{name}"])
    assert "\n" not in str(caught.value)


def test_a_password_goes_to_its_own_server_only(address: str) -> None:
    with_password = address.replace("http://", "http://me:a%20b@")
    assert isinstance(read_image(fetch_image(f"{with_password}/locked.png")), Tensor)
    with pytest.raises(DataError, match=r"http://me:<redacted>@.*/away.png: the server answers 401 Unauthorized"):
        fetch_image(f"{with_password}/away.png")


def test_a_public_address_does_not_lead_to_the_own_network(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(read_image(fetch_image(f"{address}/a.png")), Tensor)
    of_host = downloads._is_local
    assert (
        of_host(address) and of_host("http://10.1.2.3/a") and of_host("http://[::1]/") and of_host("http://localhost")
    )
    assert not of_host("http://93.184.216.34/a.png") and not of_host("http://")
    monkeypatch.setattr(downloads, "_is_local", lambda url: not url.endswith("away.png"))
    with pytest.raises(DataError, match=r"redirects to .*/locked.png, which is not fetched; give that address itself"):
        fetch_image(f"{address}/away.png")


def test_arrays_and_tensors_of_odd_kinds(network: OCRNet) -> None:
    (expected,) = network.predict(ARRAY)
    fixed = ARRAY.copy()
    fixed.setflags(write=False)
    floats = (ARRAY / 255).astype(">f4")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert all(same(network.predict(each)[0], expected) for each in (fixed, np.asfortranarray(ARRAY)))
        assert same(network.predict(floats, max_value=1.0)[0], expected)
    floats[0, 0, 0] = np.nan
    tensor = torch.zeros(3, 8, 8)
    for image, said in (
        (floats, "some of its values are not numbers"),
        (tensor.to_sparse(), "the tensor is sparse"),
        (tensor.to("meta"), "the tensor has no values"),
        (b"abc", "expected a path, .*, found bytes"),
        ("", "its path is empty"),
    ):
        with pytest.raises(DataError, match=f"^the image: {said}"):
            network.predict(image, max_value=1.0)


def test_an_address_may_take_neither_forever_nor_all_memory(address: str) -> None:
    began = time.monotonic()
    with pytest.raises(DataError, match=f"^{address}/endless.png: it was not received within 0.3 s"):
        fetch_image(f"{address}/endless.png", seconds=0.3)
    assert time.monotonic() - began < 1.2
    for name in ("huge.png", "a.png"):
        with pytest.raises(DataError, match=f"^{address}/{name}: the file is larger than 0.00095"):
            fetch_image(f"{address}/{name}", most=1000)
    with pytest.raises(DataError, match=r"^http://127\.0\.0\.1:9/a.png: it cannot be fetched \(.*refused"):
        fetch_image("http://127.0.0.1:9/a.png")
    with pytest.raises(DataError, match=r"^http:///a.png: it cannot be fetched"):
        fetch_image("http:///a.png")
    assert isinstance(read_image(fetch_image(f"{address}/a.png")), Tensor)


def _memory() -> float:
    """Return the MiB of memory that this process has in use."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 2**20


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from Linux's /proc")
def test_the_memory_of_a_stream_does_not_grow(network: OCRNet, folder: Path) -> None:
    paths = [folder / "a.png", folder / "b.png"] * 1000
    used = []
    for number, _ in enumerate(network.predict(paths, stream=True)):
        if number % 500 == 499:
            used.append(_memory())
    assert used[-1] - used[0] < 10, used
