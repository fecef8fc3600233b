"""What a prediction can be turned into, against cases computed by hand and against other tools."""

from __future__ import annotations

import contextlib
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from ocrnet_pl.structures import Prediction, Segment
from tests.helpers.builders import TAXONOMY, tiny_network

# The categories are sky, ground, disc, square, star: pixels 0 to 4, and boxes of the last three.
IMAGE = torch.arange(3 * 4 * 6, dtype=torch.uint8).reshape(3, 4, 6)


def prediction() -> Prediction:
    """Return a star of six pixels, a disc of two, and a second star without any, on sky and ground."""
    semantic = torch.tensor([[0, 0, 0, 4, 4, 0], [2, 2, 0, 4, 4, 0], [1, 1, 1, 4, 4, 1], [1, 1, 1, 1, 1, 1]])
    instances = torch.tensor([[0, 0, 0, 1, 1, 0], [2, 2, 0, 1, 1, 0], [0, 0, 0, 1, 1, 0], [0, 0, 0, 0, 0, 0]])
    panoptic = torch.tensor([[1, 1, 1, 3, 3, 1], [4, 4, 1, 3, 3, 1], [2, 2, 2, 3, 3, 2], [2, 2, 2, 2, 2, 2]])
    return Prediction(
        boxes=torch.tensor([[3.0, 0.0, 5.0, 3.0], [0.0, 1.0, 2.0, 2.0], [0.5, 2.5, 1.25, 3.25]]),
        scores=torch.tensor([0.75, 0.5, 0.25]),
        labels=torch.tensor([2, 0, 2]),
        semantic=semantic.to(torch.uint8),
        instances=instances.to(torch.int32),
        panoptic=panoptic.to(torch.int32),
        segments=[Segment(1, 0, 1.0, 6), Segment(2, 1, 1.0, 10), Segment(3, 4, 0.75, 6, 0), Segment(4, 2, 0.5, 2, 1)],
        image_id="a.png",
        tracks=torch.tensor([7, 0, 9]),
        size=(4, 6),
        taxonomy=TAXONOMY,
        image=IMAGE,
    )


def test_its_text_is_short() -> None:
    found = prediction()
    assert repr(found) == "Prediction('a.png', 6 x 4, 2 star, 1 disc, semantic, instances, panoptic)"
    bare = Prediction(torch.zeros(2, 4), torch.zeros(2), torch.zeros(2, dtype=torch.int64))
    assert repr(bare) == "Prediction(0, 2 boxes)"
    assert found.names == ["star", "disc", "star"]
    with pytest.raises(ValueError, match=r"^prediction: its taxonomy is not known"):
        bare.names  # noqa: B018


def test_objects_are_filtered_by_score() -> None:
    found = prediction().filter(score=0.5)
    assert found.names == ["star", "disc"] and found.tracks is not None and found.tracks.tolist() == [7, 0]
    assert found.instances is not None and torch.equal(found.instances, prediction().instances)
    found = prediction().filter(score=0.6)
    # Pixels keep their classes: only the object is gone.
    assert found.semantic is not None and torch.equal(found.semantic, prediction().semantic)
    assert found.instances.tolist() == [[0, 0, 0, 1, 1, 0]] * 3 + [[0] * 6]
    assert [segment.id for segment in found.segments] == [1, 2, 3]
    assert found.panoptic.tolist()[1] == [0, 0, 1, 3, 3, 1]


def test_objects_pixels_and_segments_are_filtered_by_class() -> None:
    found = prediction().filter(classes="disc")
    assert found.names == ["disc"] and found.scores.tolist() == [0.5]
    assert found.instances.tolist() == [[0] * 6, [1, 1, 0, 0, 0, 0], [0] * 6, [0] * 6]
    assert found.segments == [Segment(4, 2, 0.5, 2, 0)]
    assert found.panoptic.tolist() == [[0] * 6, [4, 4, 0, 0, 0, 0], [0] * 6, [0] * 6]
    assert (found.semantic != 255).nonzero().tolist() == [[1, 0], [1, 1]]
    both = prediction().filter(classes=["ground", "star"], score=0.5)
    assert both.names == ["star"] and [segment.id for segment in both.segments] == [2, 3]
    assert sorted(both.semantic.unique().tolist()) == [1, 4, 255]
    with pytest.raises(ValueError, match=r"^classes: there is no class 'dsic'; the network knows sky, ground, disc"):
        prediction().filter(classes=["disc", "dsic"])
    with pytest.raises(ValueError, match=r"^classes: expected names of classes, got 5$"):
        prediction().filter(classes=5)  # type: ignore[arg-type]
    for score in (50, -0.1, float("nan")):
        with pytest.raises(ValueError, match=r"^score: expected 0 to 1, got"):
            prediction().filter(score=score)
    # What it was made of is not changed.
    assert prediction().filter().to_dict() == prediction().to_dict()


def test_plain_values() -> None:
    found = json.loads(json.dumps(prediction().to_dict()))
    assert found == {
        "image_id": "a.png",
        "path": "",
        "size": [4, 6],
        "objects": [
            {"name": "star", "label": 2, "score": 0.75, "box": [3, 0, 5, 3], "track": 7},
            {"name": "disc", "label": 0, "score": 0.5, "box": [0, 1, 2, 2], "track": 0},
            {"name": "star", "label": 2, "score": 0.25, "box": [0.5, 2.5, 1.25, 3.25], "track": 9},
        ],
        "pixels": {"sky": 6, "ground": 10, "disc": 2, "star": 6},
        "segments": [
            {"id": 1, "name": "sky", "score": 1, "area": 6, "object": None},
            {"id": 2, "name": "ground", "score": 1, "area": 10, "object": None},
            {"id": 3, "name": "star", "score": 0.75, "area": 6, "object": 0},
            {"id": 4, "name": "disc", "score": 0.5, "area": 2, "object": 1},
        ],
    }


def test_results_are_read_by_pycocotools() -> None:
    coco = pytest.importorskip("pycocotools.coco")
    mask_api = pytest.importorskip("pycocotools.mask")
    truth = coco.COCO()
    truth.dataset = {
        "images": [{"id": 5, "height": 4, "width": 6}],
        "categories": [{"id": number} for number in (1, 2, 3)],
        "annotations": [],
    }
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        results = truth.loadRes(json.loads(json.dumps(prediction().to_coco(image_id=5))))
    rows = results.loadAnns(results.getAnnIds(imgIds=5))
    assert [(row["category_id"], row["bbox"], row["score"]) for row in rows] == [
        (3, [3, 0, 2, 3], 0.75),
        (1, [0, 1, 2, 1], 0.5),
        (3, [0.5, 2.5, 0.75, 0.75], 0.25),
    ]
    masks = np.stack([mask_api.decode(row["segmentation"]) for row in rows]).astype(bool)
    assert np.array_equal(masks, prediction().masks.numpy())
    plain = prediction().to_dict(masks=True)["objects"]
    assert [each["mask"] for each in plain] == [each["segmentation"] for each in prediction().to_coco()]
    assert prediction().to_coco()[0]["image_id"] == "a.png"
    assert "segmentation" not in replace(prediction(), instances=None).to_coco()[0]


def test_parts_of_the_image() -> None:
    star, disc, small = prediction().crop()
    assert torch.equal(star, IMAGE[:, 0:3, 3:5])
    assert torch.equal(disc, IMAGE[:, 1:2, 0:2])
    # Every pixel that a box touches is part of it.
    assert torch.equal(small, IMAGE[:, 2:4, 0:2])
    wide = prediction().crop(margin=0.5)
    assert torch.equal(wide[0], IMAGE[:, 0:4, 2:6]) and torch.equal(wide[1], IMAGE[:, 0:3, 0:3])
    flat = replace(prediction(), boxes=torch.tensor([[6.0, 4.0, 6.0, 4.0], [2.0, 1.0, 2.0, 1.0], [0.0, 0.0, 6.0, 4.0]]))
    assert [tuple(part.shape) for part in flat.crop()] == [(3, 1, 1), (3, 1, 1), (3, 4, 6)]
    with pytest.raises(ValueError, match=r"^margin: expected a share of the box's sides, at least 0, got -1$"):
        prediction().crop(margin=-1)
    with pytest.raises(ValueError, match=r"^image: it is 4 x 6, the prediction is of one of 6 x 4$"):
        prediction().crop(IMAGE.mT)
    wrong: list[Any] = [IMAGE / 255, IMAGE[0], IMAGE.numpy()]
    for image in wrong:
        with pytest.raises(ValueError, match=r"^image: expected a tensor uint8 \[C, H, W\], found"):
            prediction().plot(image)
    with pytest.raises(ValueError, match=r"^prediction: its image is not known"):
        replace(prediction(), image=None).crop()


def test_supervision_reads_it() -> None:
    supervision = pytest.importorskip("supervision")
    found = prediction().to_supervision()
    assert isinstance(found, supervision.Detections) and len(found) == 3
    assert found.xyxy.tolist() == prediction().boxes.tolist()
    assert found.class_id.tolist() == [2, 0, 2] and found.confidence.tolist() == [0.75, 0.5, 0.25]
    assert found.tracker_id.tolist() == [7, 0, 9] and found.data["class_name"].tolist() == ["star", "disc", "star"]
    assert np.array_equal(found.mask, prediction().masks.numpy())
    assert found[found.data["class_name"] == "star"].confidence.tolist() == [0.75, 0.25]
    bare = replace(prediction(), instances=None, tracks=None).to_supervision()
    assert bare.mask is None and bare.tracker_id is None


def test_pictures(tmp_path: Path) -> None:
    big = torch.full((3, 80, 120), 128, dtype=torch.uint8)
    boxes = torch.tensor([[60.0, 10.0, 110.0, 70.0]])
    found = Prediction(boxes, torch.tensor([0.9]), torch.tensor([1]), size=(80, 120), taxonomy=TAXONOMY, image=big)
    color = TAXONOMY.detection_categories[1].color
    drawn = np.asarray(found.plot())
    assert drawn.shape == (80, 120, 3)
    # The outline begins at the first pixel of the box and ends at its last; without a mask nothing inside is tinted.
    assert tuple(drawn[40, 60]) == tuple(drawn[69, 80]) == tuple(drawn[40, 109]) == color
    assert tuple(drawn[40, 59]) == tuple(drawn[70, 80]) == tuple(drawn[50, 85]) == (128, 128, 128)
    assert (np.asarray(found.plot(score=0.95)) == 128).all()
    # A threshold out of a tensor or an array is one, too.
    assert np.array_equal(np.asarray(found.plot(score=torch.tensor(0.5))), drawn)  # type: ignore[arg-type]
    assert found.plot(min_side=240).size == (240, 160)
    # The number of a followed object makes its label longer.
    numbered = np.asarray(replace(found, tracks=torch.tensor([12])).plot())
    assert ((numbered == color).all(2).sum()) > ((drawn == color).all(2).sum())
    found.save(tmp_path / "new" / "drawn.png")
    assert np.array_equal(np.asarray(Image.open(tmp_path / "new" / "drawn.png")), drawn)
    found.save(tmp_path / "drawn.jpg")
    assert Image.open(tmp_path / "drawn.jpg").format == "JPEG"
    with pytest.raises(ValueError, match=r"drawn\.pgn: no pictures are written with the ending '\.pgn'; use \.png or"):
        found.save(tmp_path / "drawn.pgn")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["drawn.jpg", "new"]


@pytest.mark.parametrize("name", ["drawn.bufr", "drawn.h5", "drawn.blp", "drawn.xbm", "drawn", ".png"])
def test_an_ending_that_holds_no_picture_is_refused_before_one_is_drawn(name: str, tmp_path: Path) -> None:
    unknown = replace(prediction(), image=None, taxonomy=None)
    with pytest.raises(ValueError, match=rf"{name}: no pictures are written with the ending .*; use \.png or \.jpg$"):
        unknown.save(tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_a_network_says_of_which_image_and_classes_its_predictions_are(tmp_path: Path) -> None:
    network = tiny_network()
    array = np.full((40, 50, 3), 90, np.uint8)
    Image.fromarray(array).save(tmp_path / "a.png")
    memory, file = network.predict([array, tmp_path / "a.png"])
    assert memory.size == file.size == (40, 50) and memory.taxonomy == file.taxonomy == TAXONOMY
    # A file is read again when it is needed, so that predictions take no more memory than they must.
    assert file.image is None and isinstance(memory.image, Tensor)
    assert np.array_equal(np.asarray(memory.plot()), np.asarray(file.plot()))
    file.path = str(tmp_path / "gone.png")
    with pytest.raises(ValueError, match=r"gone\.png: there is no such image"):
        file.plot()
