from __future__ import annotations

import pytest
import torch

from ocrnet_pl.inference.fusion import FusionPostProcess
from ocrnet_pl.models.base import Features, Shapes
from ocrnet_pl.models.detection import AnchorFreeDecoder, make_points
from ocrnet_pl.models.encoder import TimmEncoder
from ocrnet_pl.models.necks import PathAggregationNeck
from ocrnet_pl.models.ocrnet import OCRNet
from ocrnet_pl.models.segmentation import SubPixelDecoder, SubPixelHead
from ocrnet_pl.structures import Taxonomy
from tests.helpers.builders import TAXONOMY, TinyEncoder, tiny_network
from tests.models.test_encoder import NAMES


@pytest.mark.parametrize("name", NAMES)
def test_every_encoder_makes_a_network_for_any_size(name: str) -> None:
    network = OCRNet(
        TAXONOMY,
        TimmEncoder(name),
        lambda c, s: PathAggregationNeck(c, s, width=16),
        AnchorFreeDecoder,
        lambda s, t: SubPixelDecoder(s, t, width=16),
        FusionPostProcess(),
    ).eval()
    with torch.no_grad():
        output = network(torch.randint(0, 256, (1, 3, 75, 130), dtype=torch.uint8))
    assert output.detection is not None
    assert output.semantic is not None
    cells = sum((96 // s) * (160 // s) for s in (4, 8, 16, 32))
    assert output.detection.boxes.shape == (1, cells, 4)
    assert output.detection.scores.shape == (1, cells, TAXONOMY.num_detection)
    assert output.semantic.shape == (1, TAXONOMY.num_semantic, 96 // output.stride, 160 // output.stride)


def test_class_counts_come_from_the_taxonomy() -> None:
    taxonomy = Taxonomy.build(things=["a", "b"], stuff=["c"], segmented=["c"])
    output = tiny_network(taxonomy)(torch.zeros(1, 3, 64, 64))
    assert output.detection.classes.shape[-1] == 2
    assert output.semantic.shape[1] == 1


def test_candidates_stand_at_their_cells() -> None:
    points, strides = make_points([(2, 3, 8), (1, 2, 16)], torch.zeros(1))
    assert points.tolist() == [[4, 4], [12, 4], [20, 4], [4, 12], [12, 12], [20, 12], [8, 8], [24, 8]]
    assert strides.tolist() == [8] * 6 + [16] * 2


def test_boxes_surround_their_points() -> None:
    detection = tiny_network()(torch.rand(2, 3, 64, 64) * 255).detection
    assert (detection.boxes[..., :2] <= detection.points).all()
    assert (detection.boxes[..., 2:] >= detection.points).all()


def test_padding_is_what_the_encoder_sees_as_its_mean() -> None:
    network = tiny_network().eval()
    image = torch.randint(0, 256, (1, 3, 50, 41)).float()
    by_hand = network.mean.expand(1, 3, 64, 48).clone()
    by_hand[..., :50, :41] = image
    with torch.no_grad():
        padded, own = network(by_hand), network(image)
    torch.testing.assert_close(own.semantic, padded.semantic)
    torch.testing.assert_close(own.detection.boxes, padded.detection.boxes)


def test_shifting_the_image_by_a_cell_shifts_boxes_and_pixels_alike() -> None:
    network = tiny_network().eval()
    wide = torch.nn.functional.pad(torch.rand(1, 3, 64, 64) * 255, (160, 160, 160, 160), value=128)
    with torch.no_grad():
        here, there = network(wide), network(torch.roll(wide, 16, -1))
    grid = (384 // 4, 384 // 4)
    first = here.detection.boxes[0, : grid[0] * grid[1]].view(*grid, 4)
    second = there.detection.boxes[0, : grid[0] * grid[1]].view(*grid, 4)
    moved = torch.tensor([16.0, 0.0, 16.0, 0.0])
    torch.testing.assert_close(second[40:56, 44:60], first[40:56, 40:56] + moved, atol=1e-3, rtol=1e-4)
    step = 16 // here.stride
    size = 384 // here.stride
    inside = slice(size // 2 - 8, size // 2 + 8)
    shifted = slice(size // 2 - 8 + step, size // 2 + 8 + step)
    torch.testing.assert_close(there.semantic[..., inside, shifted], here.semantic[..., inside, inside])


def test_the_same_seed_gives_the_same_weights() -> None:
    first, second = tiny_network().state_dict(), tiny_network().state_dict()
    assert all(torch.equal(value, second[key]) for key, value in first.items())


def test_gradients_have_the_strides_of_their_weights() -> None:
    """DDP copies and warns where they differ; depthwise weights have a side of one, which may have any stride."""
    network = OCRNet(
        TAXONOMY, TimmEncoder("tf_efficientnet_lite0"), PathAggregationNeck, None, SubPixelDecoder, FusionPostProcess()
    ).train()
    network(torch.zeros(2, 3, 32, 32)).semantic.sum().backward()
    weights = [value for value in network.parameters() if value.grad is not None]
    assert any(value.ndim == 4 and value.shape[1] == 1 for value in weights)
    assert all(value.grad.stride() == value.stride() for value in weights)


def test_a_network_needs_a_decoder_and_a_decoder_needs_classes() -> None:
    with pytest.raises(ValueError, match="at least one decoder"):
        tiny_network(detection=False, segmentation=False)
    boxes_only = Taxonomy.build(things=["a"], segmented=[])
    with pytest.raises(ValueError, match="no segmentation class"):
        tiny_network(boxes_only)
    with pytest.raises(ValueError, match="no detection class"):
        AnchorFreeDecoder([8], [8], Taxonomy.build(stuff=["a"]))
    with pytest.raises(ValueError, match="none from 64"):
        AnchorFreeDecoder([8], [8], TAXONOMY, min_stride=64, max_stride=128)
    with pytest.raises(ValueError, match="finest=64"):
        PathAggregationNeck([8], [8], finest=64)


def test_a_separable_decoder_multiplies_less_and_gives_the_same_kind_of_map() -> None:
    shapes = Shapes([16, 16], [4, 8], [], [])
    plain, separable = (SubPixelDecoder(shapes, TAXONOMY, width=16, separable=choice) for choice in (False, True))
    features = Features([torch.randn(2, 16, 8, 6), torch.randn(2, 16, 4, 3)], [], None)
    assert separable(features)[0].shape == plain(features)[0].shape == (2, TAXONOMY.num_semantic, 16, 12)
    weights = [sum(value.numel() for value in each.pixels.fuse.parameters()) for each in (plain, separable)]
    # 3 x 3 for each channel, and one value for each pair of channels, in place of 3 x 3 for each pair.
    assert weights[0] - weights[1] == 16 * 16 * 9 - (16 * 9 + 16 * 16)


def test_a_decoder_with_a_skip_sees_what_only_the_encoder_s_finer_map_shows() -> None:
    shapes = Shapes([16, 16], [4, 8], [6, 8, 8], [2, 4, 8])
    decoder = SubPixelDecoder(shapes, TAXONOMY, width=16).eval()
    neck = [torch.randn(1, 16, 8, 6), torch.randn(1, 16, 4, 3)]
    finer, coarser = torch.randn(1, 6, 16, 12), [torch.randn(1, 8, 8, 6), torch.randn(1, 8, 4, 3)]
    changed = finer.clone()
    # A line of one cell, as of a pole.
    changed[:, :, :, 5] += 3

    def pair() -> tuple[torch.Tensor, torch.Tensor]:
        with torch.no_grad():
            (before,), (after,) = (decoder(Features(neck, [fine, *coarser], None)) for fine in (finer, changed))
        return before, after

    # What it sees there is nothing at first, and is learnt.
    assert torch.equal(*pair())
    torch.nn.init.ones_(decoder.head.correct[1].weight)
    before, after = pair()
    assert before.shape == (1, TAXONOMY.num_semantic, 16, 12) and decoder.stride == 2
    columns = (after - before).abs().amax((0, 1, 2)) > 1e-6
    # The last convolution, of 3 x 3, sees a cell to each side.
    assert columns.nonzero().flatten().tolist() == [4, 5, 6]
    # Dilated stages give two maps of one stride, of which the last one is read, as by the neck.
    dilated = SubPixelDecoder(Shapes([16], [4], [6, 8, 12], [2, 4, 4]), TAXONOMY, width=16, upscale=1, skip=True)
    assert dilated.head.skip.num_features == 12
    # Whoever asks for one gets it, or is told; by default there is one where there can be.
    coarse = Shapes([16], [4], [8, 8], [4, 8])
    assert isinstance(SubPixelDecoder(coarse, TAXONOMY).head, SubPixelHead)
    assert isinstance(SubPixelDecoder(shapes, TAXONOMY, skip=False).head, SubPixelHead)
    with pytest.raises(ValueError, match=r"skip reads the encoder's map at stride 2, and its maps have \[4, 8\]"):
        SubPixelDecoder(coarse, TAXONOMY, skip=True)


@pytest.mark.parametrize("skip", [False, True])
def test_the_network_exports_and_the_export_gives_the_same(skip: bool) -> None:
    network = OCRNet(
        TAXONOMY,
        TinyEncoder(),
        lambda c, s: PathAggregationNeck(c, s, width=8),
        AnchorFreeDecoder,
        # Its finest map has stride 4.
        lambda s, t: SubPixelDecoder(s, t, width=8, upscale=1 if skip else 2, skip=skip),
        FusionPostProcess(),
    ).eval()
    image = torch.rand(1, 3, 64, 96) * 255
    exported = torch.export.export(network, (image,)).module()
    with torch.no_grad():
        own, other = network(image), exported(image)
    torch.testing.assert_close(other.detection.boxes, own.detection.boxes)
    torch.testing.assert_close(other.semantic, own.semantic)
