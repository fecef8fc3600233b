from __future__ import annotations

from functools import partial

import pytest
import torch
import torchvision

from ocrnet_pl.inference import fusion, ownership
from ocrnet_pl.inference.decode import Decode, Detections
from ocrnet_pl.inference.fusion import FusionPostProcess
from ocrnet_pl.inference.geometry import boxes_to_original, maps_to_original
from ocrnet_pl.inference.pixels import SemanticMap, box_pixels, strongest, tight_bounds
from ocrnet_pl.inference.settings import FusionSettings
from ocrnet_pl.structures import DetectionOutput, Placement, Taxonomy
from tests.helpers.builders import TAXONOMY, make_batch, tiny_network

NUCLEI = Taxonomy.build(things=["nucleus"], stuff=["background"])


def candidates(boxes: torch.Tensor, scores: torch.Tensor) -> DetectionOutput:
    count = boxes.shape[1]
    return DetectionOutput(boxes, scores[..., 0], scores, scores, torch.zeros(count, 2), torch.ones(count), ())


def random_boxes(count: int, size: tuple[int, int]) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    height, width = size
    low = torch.rand(count, 2, generator=generator) * torch.tensor([width * 0.7, height * 0.7])
    high = low + 3 + torch.rand(count, 2, generator=generator) * 15
    return torch.cat((low, high.minimum(torch.tensor([float(width), float(height)]))), 1)


def test_suppression_equals_torchvisions_per_image_and_class() -> None:
    generator = torch.Generator().manual_seed(0)
    low = torch.rand(2, 300, 2, generator=generator) * 80
    boxes = torch.cat((low, low + 5 + torch.rand(2, 300, 2, generator=generator) * 40), -1).clamp(max=100)
    scores = torch.rand(2, 300, 3, generator=generator)
    decode = Decode(score_threshold=0.2, iou_threshold=0.5, max_detections=60, box_voting=None)
    got = decode(candidates(boxes, scores), [Placement.identity((100, 100))] * 2)
    for image in range(2):
        want = []
        for label in range(3):
            kept = torchvision.ops.nms(boxes[image], scores[image, :, label], 0.5)
            want += [(scores[image, i, label].item(), label, *boxes[image, i].tolist()) for i in kept]
        want = sorted((w for w in want if w[0] > 0.2), reverse=True)[:60]
        mine = zip(got[image].scores.tolist(), got[image].labels.tolist(), got[image].boxes.tolist(), strict=True)
        assert [(s, label, *b) for s, label, b in mine] == want


@pytest.mark.parametrize("overlap", [None, 0.6])
def test_boxes_in_the_padding_alone_leave_their_places_to_others(overlap: float | None) -> None:
    place = Placement((50, 120), (64, 64), (26 / 50, 64 / 120))
    # Side by side in a row across the padding, one over the image's border, and two that are lines.
    boxes = torch.tensor([[8.0 * i, 26, 8 * i + 7, 40] for i in range(7)])
    boxes = torch.cat((boxes, torch.tensor([[0.0, 20, 8, 30], [9, 10, 9, 20], [9, 10, 20, 10], [30, 2, 40, 12]])))
    scores = torch.linspace(0.9, 0.5, len(boxes))[None, :, None]
    decode = Decode(iou_threshold=overlap, max_detections=5)
    (found,) = decode(candidates(boxes[None], scores), [place])
    assert found.boxes.tolist() == [[0, 20, 8, 30], [30, 2, 40, 12]]


def test_every_predicted_box_has_an_area() -> None:
    network = tiny_network().eval()
    network.postprocess.decode = Decode(score_threshold=0.0, iou_threshold=0.1)
    for height, width in ((20, 90), (90, 20), (64, 33)):
        (found,) = network.predict(torch.zeros(3, height, width, dtype=torch.uint8))
        assert len(found.boxes) > 10
        assert (found.boxes[:, 2:] > found.boxes[:, :2]).all()


def test_no_candidate_above_the_threshold_gives_no_boxes() -> None:
    got = Decode()(candidates(torch.zeros(1, 4, 4), torch.zeros(1, 4, 3)), [Placement.identity((10, 10))])[0]
    assert got.boxes.shape == (0, 4)
    assert got.labels.dtype == torch.int64


@pytest.mark.parametrize("original", [(97, 301), (301, 97), (64, 64), (33, 17), (1, 500)])
def test_boxes_return_to_under_a_pixel(original: tuple[int, int]) -> None:
    from ocrnet_pl.data.transforms import letterbox_image

    height, width = original
    _, placement = letterbox_image(torch.zeros(3, height, width, dtype=torch.uint8), (128, 160))
    factor = min(128 / height, 160 / width)
    box = torch.tensor([[0.2 * width, 0.3 * height, 0.9 * width, height]])
    # The letterbox by its textbook formula; the project's exact scale may differ from it by rounding alone.
    back = boxes_to_original(box * factor, placement)
    assert (back - box).abs().max() < 1.0
    (scale_y, scale_x) = placement.scale
    exact = boxes_to_original(box * torch.tensor([scale_x, scale_y, scale_x, scale_y]), placement)
    torch.testing.assert_close(exact, box, atol=1e-3, rtol=1e-5)


@pytest.mark.parametrize("original", [(97, 301), (301, 97), (128, 160), (61, 47)])
def test_boxes_and_pixels_return_to_the_same_place(original: tuple[int, int]) -> None:
    from ocrnet_pl.data.transforms import letterbox_image

    height, width = original
    image = torch.zeros(3, height, width, dtype=torch.uint8)
    top, left, bottom, right = height // 4, width // 3, height - height // 5, width - width // 7
    image[:, top:bottom, left:right] = 255
    boxed, placement = letterbox_image(image, (128, 160))
    # A perfect network: logits are the input's own brightness at stride 1, padded to a whole number of cells.
    restored = maps_to_original(boxed[:1].float() / 255, 1, placement)[0] > 0.5
    ys, xs = restored.nonzero(as_tuple=True)
    bounds = torch.tensor([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1])
    assert restored.shape == original
    assert (bounds - torch.tensor([left, top, right, bottom])).abs().max() <= 1


def test_pixels_of_boxes_by_a_naive_loop() -> None:
    boxes = torch.tensor([[0.0, 0.0, 3.0, 2.0], [1.4, 0.6, 4.6, 3.5], [2.0, 2.0, 2.0, 2.0], [3.2, 1.0, 6.0, 4.0]])
    (got,) = box_pixels(boxes, (4, 6))
    want = {
        (n, y * 6 + x)
        for n, (x1, y1, x2, y2) in enumerate(boxes.tolist())
        for y in range(4)
        for x in range(6)
        if x1 <= x + 0.5 < x2 and y1 <= y + 0.5 < y2
    }
    assert set(zip(got.row_box[got.row].tolist(), got.pixel.tolist(), strict=True)) == want
    assert len(got.pixel) == len(want)
    assert torch.equal(got.row_box[got.row], got.column_box[got.column])
    for n, p, dx, dy in zip(
        got.row_box[got.row].tolist(),
        got.pixel.tolist(),
        got.column_offset[got.column].tolist(),
        got.row_offset[got.row].tolist(),
        strict=True,
    ):
        x1, y1, x2, y2 = boxes[n].tolist()
        assert dx == pytest.approx((p % 6 + 0.5 - (x1 + x2) / 2) / ((x2 - x1) / 2), abs=1e-5)
        assert dy == pytest.approx((p // 6 + 0.5 - (y1 + y2) / 2) / ((y2 - y1) / 2), abs=1e-5)


def test_owners_and_bounds_by_a_naive_loop() -> None:
    generator = torch.Generator().manual_seed(0)
    low = torch.rand(12, 2, generator=generator) * 20
    boxes = torch.cat((low, low + 3 + torch.rand(12, 2, generator=generator) * 12), 1).clamp(max=30)
    (pixels,) = box_pixels(boxes, (30, 30))
    box = pixels.row_box[pixels.row]
    evidence = torch.rand(len(box), generator=generator)
    claims = (torch.rand(len(box), generator=generator) > 0.3).nonzero()[:, 0]
    want = torch.zeros(900, dtype=torch.int64)
    best = torch.zeros(900)
    for c in claims.tolist():
        p = pixels.pixel[c]
        if evidence[c] > best[p]:
            best[p], want[p] = evidence[c], box[c] + 1
    won = claims[strongest(pixels.pixel[claims], evidence[claims], (30, 30))]
    owner = torch.zeros(900, dtype=torch.int64)
    owner[pixels.pixel[won]] = box[won] + 1
    assert torch.equal(owner, want)
    assert len(won) == len(set(pixels.pixel[won].tolist()))
    owner = owner.view(30, 30)
    bounds = tight_bounds(pixels.pixel[won], pixels.row[won], pixels.row_box, boxes, 30)
    for n in range(12):
        ys, xs = (owner == n + 1).nonzero(as_tuple=True)
        expected = [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1] if len(xs) else boxes[n].tolist()
        assert bounds[n].tolist() == [float(v) for v in expected]


@pytest.mark.parametrize("block", [1, 7, 100, 400])
def test_blocks_of_pixels_are_the_whole_list_in_parts(block: int) -> None:
    boxes = random_boxes(12, (30, 40))
    boxes[4] = 5.0
    (whole,) = box_pixels(boxes, (30, 40))
    parts = list(box_pixels(boxes, (30, 40), block))
    assert len(parts) > 1
    for part in parts:
        assert len(part.pixel) < block + 40
        assert all(torch.equal(own, want) for own, want in zip(part[3:], whole[3:], strict=True))
    for place in range(3):
        assert torch.equal(torch.cat([part[place] for part in parts]), whole[place])


@pytest.mark.parametrize("block", [1, 50, 1000])
@pytest.mark.parametrize("settings", [FusionSettings(), FusionSettings(claim=1.0, raw_pixels=("star", "sky"))])
def test_fusion_block_by_block_is_that_of_one_pass(
    block: int, settings: FusionSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = torch.Generator().manual_seed(1)
    semantic = SemanticMap.of((torch.randn(5, 30, 40, generator=generator) * 2).softmax(0))
    # Boxes that stand twice claim their pixels with the same evidence.
    boxes = random_boxes(12, (30, 40)).repeat(2, 1)
    scores = torch.rand(12, generator=generator).repeat(2)
    detections = Detections(boxes, scores, (torch.arange(12) % 3).repeat(2))
    post = FusionPostProcess()
    post.settings = settings
    monkeypatch.setattr(fusion, "find_owners", ownership.owners_by_list)
    want = post.correct(detections, semantic, TAXONOMY)
    monkeypatch.setattr(ownership, "box_pixels", partial(box_pixels, block=block))
    got = post.correct(detections, semantic, TAXONOMY)
    assert got.prediction.instances.unique().numel() > 5
    for name in ("boxes", "scores", "labels", "semantic", "instances"):
        assert torch.equal(getattr(got.prediction, name), getattr(want.prediction, name)), name
    assert torch.equal(got.confidence, want.confidence) and torch.equal(got.fill, want.fill)


def two_touching_discs() -> tuple[Detections, torch.Tensor]:
    y, x = torch.meshgrid(torch.arange(40) + 0.5, torch.arange(60) + 0.5, indexing="ij")
    left, right = (x - 20).square() + (y - 20).square() < 100, (x - 39).square() + (y - 20).square() < 100
    foreground = (left | right).float() * 0.9 + 0.05
    boxes = torch.tensor([[10.0, 10.0, 31.0, 30.0], [28.0, 10.0, 49.0, 30.0], [50.0, 2.0, 58.0, 9.0]])
    detections = Detections(boxes, torch.tensor([0.9, 0.8, 0.7]), torch.zeros(3, dtype=torch.long))
    return detections, torch.stack((1 - foreground, foreground))


def test_fusion_parts_touching_objects_and_doubts_a_box_without_pixels() -> None:
    detections, probability = two_touching_discs()
    fused = FusionPostProcess(spread=0.7).fuse(detections, SemanticMap.of(probability), NUCLEI)
    masks = fused.masks
    assert masks is not None
    # The shared band x 28..31 is split near its middle instead of going whole to the better score.
    assert masks[0, 20, 28]
    assert masks[1, 20, 30]
    assert fused.scores[2] < 0.3 < fused.scores[1] < fused.scores[0]
    assert fused.panoptic is not None
    assert [s.category for s in fused.segments] == [1, 1, 0]
    for segment in fused.segments:
        assert int((fused.panoptic == segment.id).sum()) == segment.area


def test_plain_merge_gives_the_overlap_to_the_better_score() -> None:
    detections, probability = two_touching_discs()
    raw = FusionPostProcess().merge(detections, SemanticMap.of(probability), NUCLEI)
    assert raw.instances is not None
    assert raw.instances[20, 28:31].tolist() == [1, 1, 1]
    assert torch.equal(raw.boxes, detections.boxes)


def test_a_confident_box_wins_back_narrowly_lost_pixels() -> None:
    detections, probability = two_touching_discs()
    probability[:, 18:22, 18:22] = torch.tensor([0.52, 0.48])[:, None, None]
    post = FusionPostProcess()
    assert post.merge(detections, SemanticMap.of(probability), NUCLEI).semantic[20, 20] == 0
    assert post.fuse(detections, SemanticMap.of(probability), NUCLEI).semantic[20, 20] == 1


def test_classes_without_pixels_or_without_boxes_fuse() -> None:
    taxonomy = Taxonomy.build(things=["sign", "car"], stuff=["road"], segmented=["road", "car"])
    detections = Detections(torch.tensor([[2.0, 2.0, 8.0, 8.0]]), torch.tensor([0.9]), torch.tensor([0]))
    probability = torch.tensor([0.7, 0.3])[:, None, None].expand(2, 10, 10)
    fused = FusionPostProcess(min_stuff_area=1).fuse(detections, SemanticMap.of(probability), taxonomy)
    assert fused.scores.tolist() == pytest.approx([0.9])
    assert fused.masks is not None
    assert not fused.masks.any()


def test_no_boxes_fuse() -> None:
    empty = Detections(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.long))
    probability = torch.stack((torch.full((8, 9), 0.8), torch.full((8, 9), 0.2)))
    fused = FusionPostProcess(min_stuff_area=1).fuse(empty, SemanticMap.of(probability), NUCLEI)
    assert fused.panoptic is not None
    assert fused.panoptic.unique().tolist() == [1]


@pytest.mark.parametrize(("detection", "segmentation"), [(True, True), (True, False), (False, True)])
def test_predictions_of_each_kind_of_network(detection: bool, segmentation: bool) -> None:
    batch = make_batch([[[4, 4, 30, 28]], [[8, 8, 40, 40]]], [[0], [1]], size=(50, 70))
    network = tiny_network(detection=detection, segmentation=segmentation).eval()
    with torch.no_grad():
        predictions = network.postprocessed(network(batch.images), batch.placements)
    assert len(predictions.raw) == 2
    assert (predictions.fused is not None) == (detection and segmentation)
    for prediction in predictions.best:
        assert (prediction.semantic is not None) == segmentation
        if segmentation:
            assert prediction.semantic.shape == (50, 70)
            assert prediction.semantic.max() < TAXONOMY.num_semantic
        if detection:
            assert (prediction.boxes[:, 2] <= 70).all()
            assert (prediction.scores.diff() <= 0).all()


def test_predict_takes_a_path_a_tensor_or_a_list(tmp_path) -> None:
    image = torch.randint(0, 256, (3, 37, 91), dtype=torch.uint8)
    torchvision.io.write_png(image, str(tmp_path / "a.png"))
    network = tiny_network()
    single = network.predict(str(tmp_path / "a.png"))
    several = network.predict([image, tmp_path / "a.png"])
    assert [len(single), len(several)] == [1, 2]
    assert single[0].semantic.shape == (37, 91)
    assert torch.equal(several[0].semantic, several[1].semantic)
    assert [prediction.image_id for prediction in (*single, *several)] == ["a.png", 0, "a.png"]
    assert several[1].path == str(tmp_path / "a.png")
    assert network.training
