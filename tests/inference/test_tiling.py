"""Prediction by tiles, against the same network on the whole image."""

from __future__ import annotations

import resource
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ocrnet_pl import OCRNet, Tiling
from ocrnet_pl.errors import DataError
from ocrnet_pl.inference.decode import Decode, Detections
from ocrnet_pl.inference.fusion import FusionPostProcess, SemanticMap
from ocrnet_pl.inference.tile_merging import join_tiles
from ocrnet_pl.inference.tiled_inference import _Axis
from ocrnet_pl.models.base import PostProcess
from ocrnet_pl.structures import DetectionOutput, Output, Placement, Prediction, Predictions, Taxonomy
from tests.helpers.builders import tiny_network
from tests.helpers.processes import in_a_process

INSIDE = 7
"""The third channel of pixels that lie in the image; padding has another value."""


class Oracle(torch.nn.Module):
    """Reads the truth from the image's channels: class of the pixel, number of the object; no context, no mistakes."""

    def __init__(self, network: OCRNet) -> None:
        super().__init__()
        self.network = network
        self.passes: list[int] = []

    def forward(self, images: Tensor) -> Output:
        self.passes.append(len(images))
        classes = self.network.taxonomy.num_semantic
        known = images[:, 2] == INSIDE
        semantic = torch.nn.functional.one_hot(torch.where(known, images[:, 0], 0).long(), classes)
        logits = (semantic * 8.0).permute(0, 3, 1, 2).contiguous()
        found = [self._objects(image) for image in images]
        rows = max(1, *(len(boxes) for boxes, _ in found))
        boxes = torch.zeros(len(images), rows, 4)
        scores = torch.zeros(len(images), rows, self.network.taxonomy.num_detection)
        for i, (own, labels) in enumerate(found):
            for j, (box, label) in enumerate(zip(own, labels, strict=True)):
                boxes[i, j] = torch.tensor(box, dtype=torch.float32)
                scores[i, j, label] = 0.9
        empty = torch.zeros(len(images), rows)
        detection = DetectionOutput(boxes, empty, scores, scores, torch.zeros(rows, 2), torch.ones(rows), ())
        return Output(detection, logits, 1)

    @staticmethod
    def _objects(image: Tensor) -> tuple[list[list[int]], list[int]]:
        boxes, labels = [], []
        inside = image[2] == INSIDE
        for number in image[1][inside].unique().tolist():
            if number:
                ys, xs = ((image[1] == number) & inside).nonzero(as_tuple=True)
                boxes.append([int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1])
                labels.append(int(image[0, ys[0], xs[0]]) - 2)
        return boxes, labels


def oracle(monkeypatch: pytest.MonkeyPatch, side: int, postprocess: PostProcess | None = None) -> tuple[OCRNet, Oracle]:
    network = tiny_network()
    network.input_size = (side, side)
    network.postprocess = postprocess or FusionPostProcess(Decode(max_detections=500))
    stub = Oracle(network)
    monkeypatch.setattr(network, "forward", stub.forward)
    return network, stub


def scene(size: tuple[int, int], boxes: list[tuple[int, int, int, int]], seed: int = 0) -> Tensor:
    """Two kinds of ground, and full rectangles on it, as the oracle reads them."""
    image = torch.zeros(3, *size, dtype=torch.uint8)
    image[2] = INSIDE
    image[0, size[0] // 2 :] = 1
    for number, (x0, y0, x1, y1) in enumerate(boxes, 1):
        image[0, y0:y1, x0:x1] = 2 + (number + seed) % 3
        image[1, y0:y1, x0:x1] = number
    return image


def scattered(size: tuple[int, int], largest: int, count: int, seed: int) -> list[tuple[int, int, int, int]]:
    """Rectangles that neither touch nor overlap."""
    rng = np.random.default_rng(seed)
    taken = np.zeros(size, dtype=bool)
    boxes: list[tuple[int, int, int, int]] = []
    while len(boxes) < count:
        height, width = rng.integers(4, largest + 1, 2).tolist()
        top, left = int(rng.integers(size[0] - height + 1)), int(rng.integers(size[1] - width + 1))
        if not taken[max(0, top - 2) : top + height + 2, max(0, left - 2) : left + width + 2].any():
            taken[top : top + height, left : left + width] = True
            boxes.append((left, top, left + width, top + height))
    return boxes


def whole(network: OCRNet, image: Tensor) -> Prediction:
    """The prediction in one pass at the image's own size."""
    side = network.input_size
    network.input_size = (image.shape[1], image.shape[2])
    prediction = network.predict(image)[0]
    network.input_size = side
    return prediction


def rows(prediction: Prediction) -> list[tuple[float, ...]]:
    found = torch.cat((prediction.boxes, prediction.labels[:, None], prediction.scores[:, None]), 1)
    return sorted(tuple(round(v, 3) for v in row) for row in found.tolist())


@pytest.mark.parametrize("size", [(200, 330), (70, 500), (65, 64), (400, 40)])
@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2))])
def test_tiles_give_what_one_pass_over_the_whole_image_gives(
    monkeypatch: pytest.MonkeyPatch, size: tuple[int, int], seed: int
) -> None:
    network, stub = oracle(monkeypatch, 64)
    image = scene(size, scattered(size, 20, size[0] * size[1] // 2500, seed), seed)
    expected = whole(network, image)
    assert len(expected.scores) == size[0] * size[1] // 2500
    stub.passes.clear()
    # Objects of up to 20 pixels; two pixels at each border count as touching it.
    found = network.predict(image, tile=Tiling(overlap=0.4, batch_size=3))[0]
    assert rows(found) == rows(expected)
    assert found.semantic is not None and expected.semantic is not None
    assert torch.equal(found.semantic, expected.semantic)
    # The order of equal scores may differ; the masks behind the boxes may not.
    assert found.instances is not None and expected.instances is not None
    order = {tuple(box): row for row, box in enumerate(expected.boxes.round().tolist())}
    lookup = torch.tensor([0, *(order[tuple(box)] + 1 for box in found.boxes.round().tolist())])
    assert torch.equal(lookup[found.instances.long()], expected.instances.long())
    assert sorted(s.area for s in found.segments) == sorted(s.area for s in expected.segments)
    counts = [len(_Axis.over(length, 64, 0.4).starts) for length in size]
    assert sum(stub.passes) == counts[0] * counts[1]
    assert max(stub.passes) <= 3


@pytest.mark.parametrize("overlap", [0.0, 0.2, 0.5])
def test_objects_larger_than_the_overlap_and_than_a_tile_come_out_whole(
    monkeypatch: pytest.MonkeyPatch, overlap: float
) -> None:
    network, _ = oracle(monkeypatch, 64)
    large = [(10, 20, 210, 60), (230, 5, 260, 190), (20, 80, 140, 190), (150, 100, 215, 165), (270, 30, 300, 60)]
    image = scene((200, 310), large)
    found = network.predict(image, tile=Tiling(overlap=overlap))[0]
    assert rows(found) == rows(whole(network, image))
    assert sorted(tuple(int(v) for v in box) for box in found.boxes.tolist()) == sorted(large)


def test_no_object_stands_twice_at_any_place_along_the_seams(monkeypatch: pytest.MonkeyPatch) -> None:
    network, _ = oracle(monkeypatch, 64)
    for left in range(20, 80, 7):
        for top in (5, 33, 40, 51):
            image = scene((130, 150), [(left, top, left + 18, top + 14)])
            found = network.predict(image, tile=Tiling(overlap=0.4))[0]
            assert found.boxes.tolist() == [[left, top, left + 18, top + 14]]


@pytest.mark.parametrize("size", [(64, 64), (64, 30), (17, 50), (1, 1)])
def test_an_image_that_one_tile_covers_is_predicted_as_without_tiles(size: tuple[int, int]) -> None:
    network = tiny_network()
    image = torch.randint(0, 256, (3, *size), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    network.postprocess.decode.score_threshold = 1e-4
    plain, tiled = network.predict(image)[0], network.predict(image, tile=Tiling())[0]
    assert len(plain.scores)
    for name in ("boxes", "scores", "labels", "semantic", "instances", "panoptic"):
        assert torch.equal(getattr(plain, name), getattr(tiled, name))
    assert plain.segments == tiled.segments


def test_blending_weighs_the_tiles_logits_as_written_by_hand() -> None:
    """Of a real network: the tiles' own logits, accumulated pixel by pixel in float64."""
    network = tiny_network().eval()
    image = torch.randint(0, 256, (3, 100, 150), generator=torch.Generator().manual_seed(2), dtype=torch.uint8)
    total, weights = np.zeros((5, 100, 150)), np.zeros((100, 150))

    def ramp(first: bool, last: bool) -> np.ndarray:
        weight = np.ones(64)
        for i in range(16):
            if not first:
                weight[i] = 0.5 - 0.5 * np.cos(np.pi * (i + 0.5) / 16)
            if not last:
                weight[63 - i] = 0.5 - 0.5 * np.cos(np.pi * (i + 0.5) / 16)
        return weight

    for top in (0, 36):
        for left in (0, 48, 86):
            with torch.inference_mode():
                output = network(image[None, :, top : top + 64, left : left + 64])
            assert output.semantic is not None
            logits = torch.nn.functional.interpolate(
                output.semantic, scale_factor=float(output.stride), mode="bilinear", align_corners=False
            )[0]
            weight = ramp(top == 0, top == 36)[:, None] * ramp(left == 0, left == 86)
            total[:, top : top + 64, left : left + 64] += weight * logits.numpy()
            weights[top : top + 64, left : left + 64] += weight
    expected = torch.from_numpy(total / weights).softmax(0)
    seen: list[Tensor] = []

    class Spy(FusionPostProcess):
        def join(self, detections: Detections | None, semantic: SemanticMap | None, taxonomy: Taxonomy) -> Predictions:
            assert semantic is not None
            seen.append(semantic.probability.clone())
            return super().join(detections, semantic, taxonomy)

    network.postprocess = Spy()
    network.predict(image, tile=Tiling(overlap=0.25))
    network.predict(image, tile=Tiling(overlap=0.25, half=True))
    assert (seen[0] - expected).abs().max() < 1e-5
    assert seen[1].dtype == torch.float16
    assert (seen[1] - expected).abs().max() < 5e-3


@pytest.mark.parametrize("size", [64, 65, 100, 640, 641])
@pytest.mark.parametrize("overlap", [0.0, 0.1, 0.5, 0.75])
def test_the_tiles_shares_of_every_pixel_sum_to_one_and_fall_towards_seams(size: int, overlap: float) -> None:
    axis = _Axis.over(size, 64, overlap)
    total = np.zeros(size)
    for number, start in enumerate(axis.starts):
        share = axis.shares[number].numpy()
        assert share.min() > 0
        total[start : start + 64] += share
        if number and overlap:
            assert share[0] < 0.1
    assert np.abs(total - 1).max() < 1e-6


def test_half_precision_and_a_file_change_nothing_visible(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    network, _ = oracle(monkeypatch, 64)
    image = scene((200, 330), scattered((200, 330), 20, 25, 4))
    expected = network.predict(image, tile=Tiling())[0]
    for options in (Tiling(half=True), Tiling(folder=str(tmp_path)), Tiling(half=True, folder=str(tmp_path))):
        found = network.predict(image, tile=options)[0]
        assert torch.equal(found.boxes.round(), expected.boxes.round())
        assert torch.equal(found.semantic, expected.semantic)  # type: ignore[arg-type]
        assert torch.equal(found.panoptic, expected.panoptic)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir()), "the file is gone"
    absent = tmp_path / "absent"
    with pytest.raises(DataError, match=rf"^{absent}: tile.folder: there is no such folder .*; make it, or set"):
        network.predict(image, tile=Tiling(folder=str(absent)))


def test_a_scale_shows_the_network_smaller_tiles_of_a_larger_image(monkeypatch: pytest.MonkeyPatch) -> None:
    network, stub = oracle(monkeypatch, 64)
    image = scene((300, 420), [])
    network.predict(image, tile=Tiling(overlap=0.25, scale=0.5))
    # Tiles of 128 pixels, 96 apart.
    assert sum(stub.passes) == 3 * 5
    stub.passes.clear()
    network.predict(scene((128, 100), []), tile=Tiling(scale=0.5))
    assert stub.passes == [1]


@pytest.mark.parametrize("parts", [{"detection": False}, {"segmentation": False}])
def test_networks_of_one_task_are_tiled_too(parts: dict[str, bool]) -> None:
    network = tiny_network(**parts)
    network.postprocess.decode.score_threshold = 1e-4
    found = network.predict(torch.zeros(3, 100, 130, dtype=torch.uint8), tile=Tiling())[0]
    assert (found.semantic is None) == ("segmentation" in parts)
    assert (len(found.scores) == 0) == ("detection" in parts)
    if found.semantic is not None:
        assert found.semantic.shape == (100, 130)
    else:
        assert found.boxes.min() >= 0
        assert found.boxes[:, 2].max() <= 130 and found.boxes[:, 3].max() <= 100
        assert found.boxes[:, 2].max() > 110, "boxes are shifted to their tile"


def test_a_foreign_postprocess_is_refused_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    class Own(PostProcess):
        def forward(self, output: Output, placements: list[Placement], taxonomy: Taxonomy) -> Predictions:  # type: ignore[override]
            raise NotImplementedError

    network, _ = oracle(monkeypatch, 64, Own())
    with pytest.raises(ValueError, match="Own cannot join tiles"):
        network.predict(scene((100, 100), []), tile=Tiling())


@pytest.mark.parametrize(
    "options",
    [{"overlap": 1.0}, {"overlap": -0.5}, {"batch_size": 0}, {"scale": 0.0}, {"scale": 1e9}, {"scale": float("nan")}],
)
def test_options_out_of_range_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=f"tile.{next(iter(options))}"):
        Tiling(**options)  # type: ignore[arg-type]


def joined(windows: list[list[int]], found: list[list[tuple[list[float], float, int]]]) -> list[tuple[list[int], int]]:
    tiles = [
        Detections(
            torch.tensor([box for box, _, _ in tile]).reshape(-1, 4).float(),
            torch.tensor([score for _, score, _ in tile]),
            torch.tensor([label for _, _, label in tile], dtype=torch.int64),
        )
        for tile in found
    ]
    result = join_tiles(tiles, torch.tensor(windows).float(), (100, 180), 2.0, 0.6)
    assert (result.scores[:-1] >= result.scores[1:]).all()
    pairs = zip(result.boxes.tolist(), result.labels.tolist(), strict=True)
    return [([round(v) for v in box], int(label)) for box, label in pairs]


TWO = [[0, 0, 100, 100], [80, 0, 180, 100]]


def test_the_tile_that_sees_an_object_whole_wins_over_a_better_score_and_another_class() -> None:
    whole_box: tuple[list[float], float, int] = ([85.0, 10.0, 120.0, 40.0], 0.6, 0)
    for label in (0, 1):
        assert joined(TWO, [[([85.0, 10.0, 100.0, 40.0], 0.9, label)], [whole_box]]) == [([85, 10, 120, 40], 0)]
    # Another object beside the whole one stays.
    other: tuple[list[float], float, int] = ([85.0, 50.0, 100.0, 90.0], 0.9, 0)
    assert joined(TWO, [[other], [whole_box]]) == [([85, 50, 100, 90], 0), ([85, 10, 120, 40], 0)]
    # Nor is a confident part given up for a box that the network itself does not believe.
    doubtful: tuple[list[float], float, int] = ([85.0, 10.0, 120.0, 40.0], 0.05, 1)
    assert ([60, 10, 100, 40], 0) in joined(TWO, [[([60.0, 10.0, 100.0, 40.0], 0.9, 0)], [doubtful]])


def test_parts_are_united_only_where_both_tiles_agree() -> None:
    left: tuple[list[float], float, int] = ([20.0, 10.0, 100.0, 60.0], 0.8, 0)
    agree: tuple[list[float], float, int] = ([80.0, 12.0, 150.0, 70.0], 0.7, 0)
    # The top and the bottom come from the better part, the left from the one tile, the right from the other.
    assert joined(TWO, [[left], [agree]]) == [([20, 10, 150, 60], 0)]
    elsewhere: tuple[list[float], float, int] = ([80.0, 65.0, 150.0, 95.0], 0.7, 0)
    assert len(joined(TWO, [[left], [elsewhere]])) == 2
    other_class: tuple[list[float], float, int] = ([80.0, 12.0, 150.0, 70.0], 0.7, 1)
    assert len(joined(TWO, [[left], [other_class]])) == 2
    # At the image's own border nothing is cut.
    assert joined(TWO, [[([0.0, 0.0, 50.0, 50.0], 0.5, 0)], []]) == [([0, 0, 50, 50], 0)]
    assert joined(TWO, [[], []]) == []


def test_many_boxes_are_joined_as_pair_by_pair() -> None:
    """More cut boxes than are compared at a time; each pair of halves far from the others."""
    windows = [[0, 0, 100, 40000], [80, 0, 180, 40000]]
    halves = [(float(y), float(y + 20)) for y in range(0, 39000, 60)]
    tiles = []
    for window_x in ((60.0, 100.0), (80.0, 130.0)):
        boxes = torch.tensor([[window_x[0], y0, window_x[1], y1] for y0, y1 in halves])
        tiles.append(Detections(boxes, torch.full((len(halves),), 0.5), torch.zeros(len(halves), dtype=torch.int64)))
    result = join_tiles(tiles, torch.tensor(windows).float(), (40000, 180), 2.0, 0.6)
    expected = torch.tensor([[60.0, y0, 130.0, y1] for y0, y1 in halves])
    assert len(result.boxes) == len(expected)
    assert torch.equal(result.boxes[result.boxes[:, 1].argsort()], expected)


def predict_within(megabytes: int, tile: Tiling, error: Path) -> None:
    """Predict an image of a megapixel with so much more private memory than the process has now."""
    network = tiny_network(Taxonomy.build(things=["thing"], stuff=[str(i) for i in range(89)]), detection=False)
    network.input_size = (128, 128)
    image = torch.zeros(3, 1000, 1000, dtype=torch.uint8)
    network.predict(image[:, :128, :200], tile=Tiling())
    status = Path("/proc/self/status").read_text()
    size = int(status.split("VmData:")[1].split()[0]) * 1024
    resource.setrlimit(resource.RLIMIT_DATA, (size + megabytes * 1_000_000, resource.RLIM_INFINITY))
    try:
        prediction = network.predict(image, tile=tile)[0]
    except (RuntimeError, MemoryError) as refused:
        error.write_text(str(refused))
    else:
        assert prediction.semantic is not None and prediction.semantic.shape == (1000, 1000)


@pytest.mark.parametrize(
    ("options", "megabytes", "fits"),
    [
        ({}, 330, False),
        pytest.param({"half": True}, 300, True, marks=pytest.mark.slow),
        ({"folder": ""}, 130, True),
    ],
)
def test_memory_is_bounded(tmp_path: Path, options: dict[str, Any], megabytes: int, fits: bool) -> None:
    """90 classes of a megapixel: 360 MB of logits, 180 MB in half precision; all else must fit into 120 MB."""
    if sys.platform != "linux" or not hasattr(resource, "RLIMIT_DATA"):
        pytest.skip("the limit on private memory is Linux's")
    tile = Tiling(**{name: tmp_path if name == "folder" else value for name, value in options.items()})
    error = tmp_path / "error"
    assert in_a_process(partial(predict_within, megabytes, tile, error)) == 0
    assert error.exists() == (not fits)
    if not fits:
        # Whichever asks first for what is no longer there: torch, or oneDNN, whose word for it is the second.
        assert any(words in error.read_text() for words in ("allocate", "could not create a primitive"))
