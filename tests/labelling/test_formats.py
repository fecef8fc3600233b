"""Annotations for labelling tools, read back by plain loops, and by the tools' own libraries where installed."""

from __future__ import annotations

import base64
import csv
import io
import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
import yaml
from numpy.typing import NDArray
from PIL import Image
from pycocotools.coco import COCO

from ocrnet_pl.callbacks.annotations import AnnotationWriter
from ocrnet_pl.inference.uncertainty import uncertainty
from ocrnet_pl.labelling.base import AnnotationFormat
from ocrnet_pl.labelling.coco import Coco
from ocrnet_pl.labelling.cvat import Cvat
from ocrnet_pl.labelling.label_studio import LabelStudio
from ocrnet_pl.labelling.labelme import Labelme
from ocrnet_pl.labelling.runs import brush_runs, run_lengths
from ocrnet_pl.labelling.shapes import LabelledImage, joined, outlines, shapes_of
from ocrnet_pl.labelling.table import BoxTable
from ocrnet_pl.labelling.yolo import Yolo
from ocrnet_pl.structures import Prediction, Taxonomy

TAXONOMY = Taxonomy.build(things=["car", "<ring>"], stuff=["background", "sky & sea"])
SIZE = (40, 60)


def _disc(y: float, x: float, radius: float) -> NDArray[np.bool_]:
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    return np.asarray((rows + 0.5 - y) ** 2 + (columns + 0.5 - x) ** 2 <= radius**2)


@pytest.fixture(scope="module")
def prediction() -> Prediction:
    """A disc, a ring, a box without pixels, one below the least score, and stuff with a hole."""
    instances = np.zeros(SIZE, dtype=np.int32)
    instances[_disc(12, 12, 9)] = 1
    instances[_disc(22, 40, 12) & ~_disc(22, 40, 5)] = 2
    instances[0:2, 58:60] = 4
    semantic = np.zeros(SIZE, dtype=np.uint8)
    semantic[30:] = 1
    semantic[32:34, 5:8] = 0
    semantic[instances == 1], semantic[instances == 2] = 2, 3
    return Prediction(
        boxes=torch.tensor([[3.0, 3, 21, 21], [28, 10, 52, 34], [1, 25, 9.5, 29], [58, 0, 60, 2]]),
        scores=torch.tensor([0.9, 0.8, 0.5, 0.1]),
        labels=torch.tensor([0, 1, 0, 0]),
        semantic=torch.from_numpy(semantic),
        instances=torch.from_numpy(instances),
        image_id="a b/ä.png",
    )


@pytest.fixture(scope="module")
def image(prediction: Prediction, tmp_path_factory: pytest.TempPathFactory) -> LabelledImage:
    path = tmp_path_factory.mktemp("images") / "a b" / "ä.png"
    path.parent.mkdir()
    Image.new("RGB", SIZE[::-1]).save(path)
    shapes = shapes_of(prediction, TAXONOMY, 0.3)
    return LabelledImage(str(prediction.image_id), str(path), SIZE, shapes, 0.25, 7.5, ("one",))


def _written(form: AnnotationFormat, image: LabelledImage, folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    form.finish(json.loads(json.dumps([form.write(image, TAXONOMY, folder)])), TAXONOMY, folder)
    return folder


def _masks(image: LabelledImage) -> list[NDArray[np.bool_]]:
    """The masks of stuff, disc and ring."""
    return [shape.whole_mask(SIZE) for shape in image.shapes if shape.mask is not None]


def test_shapes_are_stuff_and_the_objects_above_the_score(image: LabelledImage, prediction: Prediction) -> None:
    assert [shape.label for shape in image.shapes] == ["sky & sea", "car", "<ring>", "car"]
    stuff, disc, ring = _masks(image)
    assert prediction.semantic is not None and prediction.instances is not None
    np.testing.assert_array_equal(stuff, prediction.semantic.numpy() == 1)
    np.testing.assert_array_equal(disc, prediction.instances.numpy() == 1)
    np.testing.assert_array_equal(ring, prediction.instances.numpy() == 2)
    assert image.shapes[3].mask is None and image.shapes[3].box == (1, 25, 9.5, 29)
    # A network of pixels alone: things are regions as well.
    alone = Prediction(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64), prediction.semantic)
    assert [shape.label for shape in shapes_of(alone, TAXONOMY, 0.3)] == ["sky & sea", "car", "<ring>"]


@pytest.mark.parametrize("seed", range(6))
def test_outlines_follow_the_pixels_exactly(seed: int) -> None:
    random = np.random.default_rng(seed)
    mask = random.random((13, 17)) < [0.2, 0.5, 0.8, 0.95, 0.6, 1.0][seed]
    # The area of all outlines less their holes by the shoelace formula, and each pixel by the rule of crossings.
    inside = np.zeros(mask.shape, dtype=np.int64)
    for part in outlines(mask):
        for points, sign in [(part.points, 1), *((hole, -1) for hole in part.holes)]:
            inside += sign * _inside(points, mask.shape)
    np.testing.assert_array_equal(inside, mask)


def _inside(points: NDArray[np.float64], shape: tuple[int, ...]) -> NDArray[np.int64]:
    """Return for each pixel's centre whether an outline goes around it, by counting crossings to its right."""
    crossings = np.zeros(shape, dtype=np.int64)
    for (x1, y1), (x2, y2) in zip(points, np.roll(points, -1, 0), strict=True):
        for y in range(shape[0]):
            if (y1 <= y + 0.5) != (y2 <= y + 0.5):
                at = x1 + (y + 0.5 - y1) / (y2 - y1) * (x2 - x1)
                crossings[y, : max(0, int(np.ceil(at - 0.5)))] += 1
    return crossings % 2


def test_simplified_outlines_stay_near_and_joined_ones_leave_the_holes_out() -> None:
    mask = _disc(20, 30, 15)
    (exact,), (simple,) = outlines(mask), outlines(mask, tolerance=1.0)
    drawn = _inside(simple.points, SIZE).astype(bool)
    assert len(simple.points) < len(exact.points) / 2
    assert (drawn & mask).sum() / (drawn | mask).sum() > 0.93
    ring = _disc(20, 30, 15) & ~_disc(20, 26, 3) & ~_disc(20, 36, 3)
    (part,) = outlines(ring)
    assert len(part.holes) == 2
    np.testing.assert_array_equal(_inside(joined(part), SIZE), ring)


def _brush(data: list[int]) -> NDArray[np.uint8]:
    """Read Label Studio's encoding bit by bit, as its own page does."""
    bits = "".join(f"{byte:08b}" for byte in data)
    position = 0

    def read(count: int) -> int:
        nonlocal position
        position += count
        return int(bits[position - count : position], 2)

    length, word = read(32), read(5) + 1
    sizes = [read(4) + 1 for _ in range(4)]
    out: list[int] = []
    while len(out) < length:
        repeated = read(1)
        count = 1 + read(sizes[read(2)])
        out += [read(word)] * count if repeated else [read(word) for _ in range(count)]
    return np.array(out, dtype=np.uint8)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 1.0])
def test_brushes_and_runs_are_read_back(share: float) -> None:
    mask = np.random.default_rng(1).random((23, 31)) < share
    mask[5:, :9] = False
    large = np.zeros((300, 400), dtype=np.bool_)
    large[3:280, :] = True  # longer than any run may be
    for each in (mask, large):
        decoded = _brush(brush_runs(each)).reshape(*each.shape, 4)
        np.testing.assert_array_equal(decoded, np.where(each, 255, 0)[..., None].repeat(4, -1))
    values = np.concatenate([np.full(n, i % 2) for i, n in enumerate(run_lengths(mask).tolist())])
    np.testing.assert_array_equal(values.reshape(mask.shape), mask)


def test_the_brush_is_that_of_label_studio(image: LabelledImage) -> None:
    brush = pytest.importorskip("label_studio_sdk.converter.brush")
    for mask in _masks(image):
        decoded = brush.decode_rle(brush_runs(mask)).reshape(*SIZE, 4)
        np.testing.assert_array_equal(decoded[..., 3] > 0, mask)


def test_label_studio(image: LabelledImage, tmp_path: Path) -> None:
    folder = _written(LabelStudio(tolerance=0), image, tmp_path / "out")
    (task,) = json.loads((folder / "tasks.json").read_text())
    assert task["data"]["image"] == "/data/local-files/?d=a%20b/%C3%A4.png"
    assert task["data"]["disagreement"] == 7.5 and task["data"]["remarks"] == "one"
    results = task["predictions"][0]["result"]
    assert [each["type"] for each in results] == ["brushlabels", "polygonlabels", "brushlabels", "rectanglelabels"]
    assert len({each["id"] for each in results}) == 4
    stuff, disc, ring = _masks(image)
    for each, mask in ((results[0], stuff), (results[2], ring)):
        np.testing.assert_array_equal(_brush(each["value"]["rle"]).reshape(*SIZE, 4)[..., 3] > 0, mask)
    points = np.array(results[1]["value"]["points"]) * [SIZE[1] / 100, SIZE[0] / 100]
    np.testing.assert_array_equal(_inside(points, SIZE), disc)
    box = results[3]["value"]
    found = [box["x"] * 0.6, box["y"] * 0.4, (box["x"] + box["width"]) * 0.6, (box["y"] + box["height"]) * 0.4]
    assert found == pytest.approx([1, 25, 9.5, 29]) and box["rectanglelabels"] == ["car"]
    # Each region's control is in the interface, with its label.
    interface = ElementTree.parse(folder / "interface.xml").getroot()
    for each in results:
        (control,) = [tag for tag in interface if tag.get("name") == each["from_name"]]
        assert control.tag.lower() == each["type"] and control.get("toName") == each["to_name"]
        (label,) = each["value"][each["type"]]
        assert label in [tag.get("value") for tag in control]


def test_cvat(image: LabelledImage, tmp_path: Path) -> None:
    root = ElementTree.parse(_written(Cvat(tolerance=0), image, tmp_path / "out") / "annotations.xml").getroot()
    assert root.findtext("version") == "1.1"
    assert [tag.text for tag in root.findall("meta/task/labels/label/name")] == ["sky & sea", "car", "<ring>"]
    (element,) = root.findall("image")
    assert element.attrib == {"id": "0", "name": "a b/ä.png", "width": "60", "height": "40"}
    stuff, disc, ring = _masks(image)
    for tag, expected in zip(element, (stuff, disc, ring), strict=False):
        if tag.tag == "polygon":
            points = np.array([[float(v) for v in pair.split(",")] for pair in tag.attrib["points"].split(";")])
            drawn = _inside(points, SIZE)
        else:
            drawn = _cvat_mask(tag.attrib)
        np.testing.assert_array_equal(drawn, expected)
    box = element[3].attrib
    assert element[3].tag == "box" and [float(box[k]) for k in ("xtl", "ytl", "xbr", "ybr")] == [1, 25, 9.5, 29]
    assert [tag.attrib["label"] for tag in element] == ["sky & sea", "car", "<ring>", "car"]
    assert [tag.attrib["z_order"] for tag in element] == ["0", "1", "2", "3"]


def test_the_importer_of_datumaro_reads_cvat(image: LabelledImage, tmp_path: Path) -> None:
    datumaro = pytest.importorskip("datumaro")
    folder = _written(Cvat(tolerance=0), image, tmp_path / "out")
    (folder / "images" / "a b").mkdir(parents=True)
    Image.new("RGB", SIZE[::-1]).save(folder / "images" / "a b" / "ä.png")
    (item,) = datumaro.Dataset.import_from(str(folder), "cvat")
    assert [annotation.label for annotation in item.annotations] == [0, 1, 2, 1]
    for number, expected in ((0, _masks(image)[0]), (2, _masks(image)[2])):
        np.testing.assert_array_equal(item.annotations[number].image, expected)
    assert item.annotations[3].points == [1, 25, 9.5, 29]


def _cvat_mask(attributes: dict[str, str]) -> NDArray[np.bool_]:
    """Draw run by run, within the bounds, beginning with what is outside."""
    left, top, width, height = (int(attributes[k]) for k in ("left", "top", "width", "height"))
    values: list[bool] = []
    for number, run in enumerate(attributes["rle"].split(",")):
        values += [number % 2 == 1] * int(run)
    whole = np.zeros(SIZE, dtype=np.bool_)
    whole[top : top + height, left : left + width] = np.array(values).reshape(height, width)
    return whole


def test_labelme(image: LabelledImage, tmp_path: Path) -> None:
    folder = _written(Labelme(tolerance=0), image, tmp_path / "out")
    file = folder / "a b" / "ä.json"
    content = json.loads(file.read_text())
    assert (file.parent / content["imagePath"]).resolve() == Path(image.path).resolve()
    assert (content["imageHeight"], content["imageWidth"], content["imageData"]) == (*SIZE, None)
    kinds = [shape["shape_type"] for shape in content["shapes"]]
    assert kinds == ["mask", "polygon", "mask", "rectangle"]
    stuff, disc, ring = _masks(image)
    for shape, expected in zip(content["shapes"], (stuff, disc, ring), strict=False):
        if shape["mask"] is None:
            drawn = _inside(np.array(shape["points"]), SIZE).astype(bool)
        else:
            (x1, y1), (x2, y2) = shape["points"]
            drawn = np.zeros(SIZE, dtype=np.bool_)
            png = Image.open(io.BytesIO(base64.b64decode(shape["mask"])))
            drawn[y1 : y2 + 1, x1 : x2 + 1] = np.asarray(png).astype(bool)
        np.testing.assert_array_equal(drawn, expected)
    assert content["shapes"][3]["points"] == [[1, 25], [9.5, 29]]
    assert (folder / "labels.txt").read_text().splitlines()[2:] == ["sky & sea", "car", "<ring>"]


def test_labelme_reads_its_own(image: LabelledImage, tmp_path: Path) -> None:
    library = pytest.importorskip("labelme._label_file")
    folder = _written(Labelme(), image, tmp_path / "out")
    found = library.read_label_file(str(folder / "a b" / "ä.json"))
    assert [shape["label"] for shape in found.shapes] == ["sky & sea", "car", "<ring>", "car"]
    stuff = image.shapes[0].mask
    np.testing.assert_array_equal(found.shapes[0]["mask"], stuff)


def test_coco(image: LabelledImage, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = _written(Coco(tolerance=0), image, tmp_path / "out")
    coco = COCO(str(folder / "instances.json"))
    assert [c["name"] for c in coco.loadCats(coco.getCatIds())] == ["sky & sea", "car", "<ring>"]
    assert coco.loadImgs([1])[0]["file_name"] == "a b/ä.png"
    for number, expected in zip((1, 2, 3), _masks(image), strict=True):
        np.testing.assert_array_equal(coco.annToMask(coco.anns[number]), expected)
    loaded = coco.loadRes(str(folder / "results.json"))
    assert [each["score"] for each in loaded.anns.values()] == pytest.approx([0.9, 0.8, 0.5])
    assert loaded.anns[3]["bbox"] == [1, 25, 8.5, 4]


def test_yolo_and_csv(image: LabelledImage, tmp_path: Path) -> None:
    folder = _written(Yolo(tolerance=0), image, tmp_path / "yolo")
    rows = [line.split() for line in (folder / "labels" / "a b" / "ä.txt").read_text().splitlines()]
    assert [row[0] for row in rows] == ["0", "1", "0"]
    _, disc, ring = _masks(image)
    for row, expected in zip(rows, (disc, ring), strict=False):
        points = np.array(row[1:], dtype=np.float64).reshape(-1, 2) * [SIZE[1], SIZE[0]]
        np.testing.assert_array_equal(_inside(points.round(3), SIZE), expected)
    assert [float(v) for v in rows[2][1:]] == pytest.approx([5.25 / 60, 27 / 40, 8.5 / 60, 4 / 40], abs=1e-6)
    assert yaml.safe_load((folder / "data.yaml").read_text())["names"] == {0: "car", 1: "<ring>"}
    folder = _written(BoxTable(), image, tmp_path / "csv")
    with (folder / "boxes.csv").open(encoding="utf-8", newline="") as file:
        boxes = list(csv.reader(file))
    assert boxes[0] == ["image", "x1", "y1", "x2", "y2", "label", "score"]
    assert boxes[3] == ["a b/ä.png", "1.0", "25.0", "9.5", "29.0", "car", "0.5"] and len(boxes) == 4


def test_wrong_options_are_named() -> None:
    with pytest.raises(ValueError, match="Cvat: tolerance"):
        Cvat(tolerance=-1)
    with pytest.raises(ValueError, match="min_score"):
        AnnotationWriter(min_score=2)
    with pytest.raises(ValueError, match="cvat is given twice"):
        AnnotationWriter([Cvat(), Cvat(tolerance=0)])


def test_uncertainty_is_zero_for_the_certain_and_grows() -> None:
    def predicted(scores: list[float], certainty: float | None) -> Prediction:
        return Prediction(
            torch.zeros(len(scores), 4),
            torch.tensor(scores),
            torch.zeros(len(scores), dtype=torch.int64),
            certainty=None if certainty is None else torch.full((4, 4), certainty),
        )

    assert uncertainty(predicted([], 1.0)) == uncertainty(predicted([1.0], 1.0)) == 0
    assert uncertainty(predicted([0.5], None)) == 1.0
    rising = [uncertainty(predicted(s, c)) for s, c in (([0.95], 0.99), ([0.95], 0.7), ([0.6], 0.7), ([0.6], 0.5))]
    assert rising == sorted(rising) and rising[-1] < 1
    # Many candidates that are certainly nothing do not count.
    assert uncertainty(predicted([0.95, *[0.01] * 50], None)) < 0.35
