"""Predictions without torch, against those with it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ocrnet_pl import structures
from ocrnet_pl.imaging.run_lengths import encode_instances
from ocrnet_pl.runtime import Prediction, Segment, painting
from ocrnet_pl.runtime.run_lengths import encoded_instances
from tests.helpers.builders import TAXONOMY


def drawn_lots(seed: int, count: int = 6, height: int = 70, width: int = 90) -> structures.Prediction:
    """Return a prediction with boxes, overlapping masks, a class of every pixel, and segments of both kinds."""
    generator = np.random.default_rng(seed)
    corners = np.sort(generator.random((count, 2, 2)), 1) * (width, height)
    boxes = torch.from_numpy(corners.reshape(count, 4).astype(np.float32))
    instances = np.zeros((height, width), np.int32)
    for row, (x1, y1, x2, y2) in enumerate(boxes.int().tolist()):
        instances[y1:y2, x1:x2] = row + 1
    scores = torch.from_numpy(np.sort(generator.random(count).astype(np.float32))[::-1].copy())
    labels = torch.from_numpy(generator.integers(0, TAXONOMY.num_detection, count))
    semantic = generator.integers(0, TAXONOMY.num_semantic + 1, (height, width)).astype(np.uint8)
    semantic[semantic == TAXONOMY.num_semantic] = 255
    positions = TAXONOMY.positions_of_detection
    segments = [
        structures.Segment(
            row + 1, positions[int(labels[row])], float(scores[row]), int((instances == row + 1).sum()), row
        )
        for row in range(count)
    ]
    segments.append(structures.Segment(count + 1, 0, 1.0, int((instances == 0).sum())))
    panoptic = np.where(instances > 0, instances, count + 1).astype(np.int32)
    maps = (torch.from_numpy(each) for each in (semantic, instances, panoptic))
    image = torch.from_numpy(generator.integers(0, 256, (3, height, width), dtype=np.uint8))
    return structures.Prediction(
        boxes, scores, labels, *maps, segments, size=(height, width), taxonomy=TAXONOMY, image=image
    )


def without_torch(found: structures.Prediction) -> Prediction:
    """Return the same prediction as numpy arrays."""
    assert found.semantic is not None and found.instances is not None and found.panoptic is not None
    assert found.image is not None
    arrays = (each.numpy() for each in (found.boxes, found.scores, found.labels))
    maps = (each.numpy() for each in (found.semantic, found.instances, found.panoptic))
    segments = [Segment(each.id, each.category, each.score, each.area, each.instance) for each in found.segments]
    image = found.image.permute(1, 2, 0).numpy()
    return Prediction(*arrays, *maps, segments, size=found.size, taxonomy=found.taxonomy, image=image)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    ("classes", "score"), [(None, 0.0), (None, 0.5), ("disc", 0.3), (("sky", "star"), 0.0), ((), 0.0), (None, math.inf)]
)
def test_filtered_values_and_pictures_are_those_with_torch(seed: int, classes: object, score: float) -> None:
    found = drawn_lots(seed)
    expected, got = found.filter(classes, score), without_torch(found).filter(classes, score)  # type: ignore[arg-type]
    assert got.to_dict(masks=True) == expected.to_dict(masks=True)
    for name in ("semantic", "instances", "panoptic"):
        kept, plane = getattr(expected, name), getattr(got, name)
        np.testing.assert_array_equal(plane, kept.numpy())
        assert plane.dtype == kept.numpy().dtype
    for how in ({"score": 0.2}, {"score": 0.2, "min_side": 250}):
        drawn = np.asarray(got.plot(**how))  # type: ignore[arg-type]
        np.testing.assert_array_equal(drawn, np.asarray(expected.plot(**how)))  # type: ignore[arg-type]
        assert drawn.shape == ((70, 90, 3) if "min_side" not in how else (210, 270, 3))


@pytest.mark.parametrize("seed", range(4))
def test_parts_files_and_other_forms_are_those_with_torch(seed: int, tmp_path: Path) -> None:
    expected, got = drawn_lots(seed), without_torch(drawn_lots(seed))
    assert got.to_coco() == expected.to_coco() and got.to_coco(image_id=5) == expected.to_coco(image_id=5)
    assert all("segmentation" in entry for entry in got.to_coco())
    for margin in (0.0, 0.3):
        for part, with_torch in zip(got.crop(margin=margin), expected.crop(margin=margin), strict=True):
            np.testing.assert_array_equal(part, with_torch.permute(1, 2, 0).numpy())
    for number, found in enumerate((got, expected)):
        found.save(tmp_path / "new" / f"{number}.png", score=0.2)  # type: ignore[attr-defined]
    files = [(tmp_path / "new" / f"{number}.png").read_bytes() for number in range(2)]
    assert files[0] == files[1] and len(list((tmp_path / "new").iterdir())) == 2


def test_what_cannot_be_cropped_or_written_is_refused(tmp_path: Path) -> None:
    found = without_torch(drawn_lots(0))
    for margin in (-0.1, math.nan, "1"):
        with pytest.raises(ValueError, match=r"^margin: expected a share of the box's sides, at least 0, got"):
            found.crop(margin=margin)  # type: ignore[arg-type]
    for name in ("a.docx", "a", "a.webm"):
        with pytest.raises(ValueError, match=r"no pictures are written with the ending '.*'; use \.png or \.jpg"):
            found.save(tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_detections_of_supervision_are_those_with_torch() -> None:
    pytest.importorskip("supervision", reason="supervision is not installed")
    expected, got = drawn_lots(0).to_supervision(), without_torch(drawn_lots(0)).to_supervision()
    assert got == expected and len(got) == 6


def test_predictions_are_told_apart_without_comparing_their_maps() -> None:
    for one, other in ((drawn_lots(0), drawn_lots(0)), (without_torch(drawn_lots(0)), without_torch(drawn_lots(0)))):
        assert one == one and one != other and other in [one, other]


@pytest.mark.parametrize("size", [(3, 40_000), (40_000, 3), (30, 8_000), (600, 800)])
def test_outlines_of_long_thin_images_stay_thin(size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Else their number of pixels times their length would be the time to draw one."""
    widths = []
    monkeypatch.setattr(painting, "_outline", lambda instances, width: widths.append(width) or instances > 0)
    instances = np.ones(size, np.int32)
    image = np.zeros((*size, 3), np.uint8)
    painting.tinted(painting.Layers(image, None, instances, np.zeros((1, 4), np.float32), [0], [""], [False]), TAXONOMY)
    assert widths == [2 if size == (600, 800) else 1]


@pytest.mark.parametrize("min_side", [-5, 10**9, "a", 2.5])
def test_an_image_is_not_enlarged_to_anything(min_side: Any) -> None:
    for found in (drawn_lots(0), without_torch(drawn_lots(0))):
        with pytest.raises(ValueError, match=r"^min_side: expected a number of pixels from 0 to 10000, got "):
            found.plot(min_side=min_side)


def test_nothing_becomes_nothing() -> None:
    empty = without_torch(drawn_lots(0)).filter(score=math.inf)
    assert empty.to_coco() == [] and empty.crop() == [] and empty.to_dict(masks=True)["objects"] == []


def test_its_text_is_that_with_torch() -> None:
    found = drawn_lots(0)
    assert repr(without_torch(found)) == repr(found)
    assert len(repr(found)) < 200 and "\n" not in repr(found)


def test_a_score_that_no_object_can_have_is_refused() -> None:
    found = without_torch(drawn_lots(0))
    for act in (found.filter, found.plot):
        with pytest.raises(ValueError, match=r"^score: expected 0 to 1, got 50$"):
            act(score=50)


def test_run_lengths_are_those_of_coco() -> None:
    generator = np.random.default_rng(0)
    for height, width, count in ((1, 1, 1), (40, 30, 5), (1, 200, 3), (300, 400, 4)):
        # Runs of one pixel to thousands.
        coarse = generator.integers(0, count + 1, (height // 50 + 1, width // 50 + 1))
        instances = coarse.repeat(50, 0).repeat(50, 1)[:height, :width].astype(np.int32)
        instances[generator.random((height, width)) < 0.01] = 0
        expected, _ = encode_instances(torch.from_numpy(instances), count)
        assert [each["counts"].encode() for each in encoded_instances(instances, count)] == expected


def test_an_image_is_read_again_or_given(tmp_path: Path) -> None:
    found = without_torch(drawn_lots(0))
    image, found.image = found.image, None
    assert image is not None
    with pytest.raises(ValueError, match="its image is not known"):
        found.plot()
    with pytest.raises(ValueError, match="image: it is 90 x 60, the prediction is of one of 90 x 70"):
        found.plot(image[:60])
    wrong: list[Any] = [image / 255, image[..., 0], Image.fromarray(image)]
    for other in wrong:
        with pytest.raises(ValueError, match=r"^image: expected an array uint8 \[H, W, C\], found"):
            found.plot(other)
    Image.fromarray(image).save(tmp_path / "a.png")
    found.path = str(tmp_path / "a.png")
    np.testing.assert_array_equal(np.asarray(found.plot()), np.asarray(found.plot(image)))
    with pytest.raises(ValueError, match=r"^classes: there is no class 'dog'; the network knows sky, ground, disc"):
        found.filter("dog")
