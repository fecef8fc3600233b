"""Losses of pixels against torch's, smp's, scipy's and loops of their own."""

from __future__ import annotations

import math

import numpy as np
import pytest
import segmentation_models_pytorch as smp
import torch
from segmentation_models_pytorch.losses._functional import softmax_focal_loss_with_logits
from torch import Tensor
from torch.nn import functional as F

from ocrnet_pl.losses.boundary import Boundary, bounded_distance
from ocrnet_pl.losses.pixels import UNLABELLED, CrossEntropy, Focal, OHEMCrossEntropy, PixelLoss, of_target
from ocrnet_pl.losses.regions import Dice, Lovasz, Tversky
from ocrnet_pl.losses.segmentation import SegmentationLoss
from ocrnet_pl.structures import Output
from tests.helpers.builders import TAXONOMY, make_batch
from tests.helpers.project import ROOT

WEIGHTS = [1.0, 0.5, 2.0, 3.0, 0.0]
LOSSES: list[PixelLoss] = [
    CrossEntropy(),
    CrossEntropy(label_smoothing=0.1, class_weights=WEIGHTS),
    CrossEntropy(rare=0.3),
    OHEMCrossEntropy(),
    OHEMCrossEntropy(threshold=0.0, share=0.3, class_weights=WEIGHTS),
    Focal(),
    Focal(gamma=0.5, class_weights=WEIGHTS),
    Dice(),
    Tversky(),
    Lovasz(),
    Boundary(radius=3),
]


def kind(loss: PixelLoss) -> str:
    return type(loss).__name__


def example(seed: int = 0, batch: int = 2, height: int = 9, width: int = 11) -> tuple[Tensor, Tensor]:
    """Logits over five classes, and labels of four of them in blobs with an ignored border."""
    torch.manual_seed(seed)
    logits = torch.randn(batch, 5, height, width)
    coarse = torch.randint(0, 4, (batch, 1, 3, 4)).float()
    target = F.interpolate(coarse, (height, width))[:, 0].long()
    target[:, :2] = 255
    return logits, target


def test_cross_entropy_equals_torchs() -> None:
    logits, target = example()
    for smoothing, weights in ((0.0, None), (0.2, None), (0.0, WEIGHTS)):
        want = F.cross_entropy(
            logits,
            target,
            None if weights is None else torch.tensor(weights),
            ignore_index=255,
            label_smoothing=smoothing,
        )
        got = CrossEntropy(label_smoothing=smoothing, class_weights=weights)(logits.log_softmax(1), target)
        torch.testing.assert_close(got, want)


def test_pixels_of_rare_classes_count_more_by_the_root_of_their_share() -> None:
    logits, target = example()
    pixels = target[target != 255].bincount(minlength=5).double()
    share = pixels / pixels.sum()
    assert 0 < (share < 0.26).sum() < 5 and share[4] == 0
    factor = torch.tensor([max(1.0, (0.26 / each) ** 0.5) if each > 0 else 1.0 for each in share.tolist()])
    for smoothing, weights in ((0.0, None), (0.2, None), (0.0, WEIGHTS)):
        own = factor if weights is None else factor * torch.tensor(weights)
        # torch weights each smoothed class by its own weight, we the pixel by its class's.
        per_pixel = F.cross_entropy(logits, target, ignore_index=255, label_smoothing=smoothing, reduction="none")
        weight = own[target.clamp(max=4)] * (target != 255)
        got = CrossEntropy(label_smoothing=smoothing, class_weights=weights, rare=0.26)(logits.log_softmax(1), target)
        torch.testing.assert_close(got, (per_pixel * weight).sum() / weight.sum())
    assert [getattr(term, "rare", None) for term in SegmentationLoss().terms] == [0.05, None]
    common = CrossEntropy(rare=float(share[share > 0].min()) / 2)(logits.log_softmax(1), target)
    torch.testing.assert_close(common, CrossEntropy()(logits.log_softmax(1), target))


def test_smoothing_spreads_over_the_labelled_classes_alone() -> None:
    logits, target = example()
    target = torch.where(target == 3, 255, target)
    got = CrossEntropy(label_smoothing=0.2)(logits.index_fill(1, torch.tensor([3]), UNLABELLED).log_softmax(1), target)
    want = CrossEntropy(label_smoothing=0.2)(logits[:, [0, 1, 2, 4]].log_softmax(1), target)
    torch.testing.assert_close(got, want)


@pytest.mark.parametrize(("threshold", "share"), [(0.7, 0.05), (0.1, 0.4), (0.0, 0.25), (0.02, 1.0), (1.0, 0.1)])
def test_hard_pixels_by_a_loop(threshold: float, share: float) -> None:
    logits, target = example(1)
    own = [
        (probability[label].item(), -math.log(probability[label]))
        for probability, label in zip(
            logits.softmax(1).permute(0, 2, 3, 1).reshape(-1, 5), target.flatten().tolist(), strict=True
        )
        if label != 255
    ]
    own.sort()
    least = math.ceil(share * len(own) - 1e-6)
    kept = [loss for rank, (probability, loss) in enumerate(own) if probability <= threshold or rank < least]
    got = OHEMCrossEntropy(threshold, share)(logits.log_softmax(1), target)
    assert got.item() == pytest.approx(sum(kept) / len(kept), rel=1e-5)


def test_focal_equals_smps() -> None:
    logits, target = example()
    counts = target != 255
    per_pixel = softmax_focal_loss_with_logits(logits, target.clamp(max=4), gamma=1.5, reduction="none")
    torch.testing.assert_close(Focal(1.5)(logits.log_softmax(1), target), per_pixel[counts].mean())
    weights = torch.tensor(WEIGHTS)[target.clamp(max=4)] * counts
    want = (per_pixel * weights).sum() / weights.sum()
    torch.testing.assert_close(Focal(1.5, class_weights=WEIGHTS)(logits.log_softmax(1), target), want)


def test_dice_and_tversky_equal_smps() -> None:
    logits, target = example(2, height=20, width=24)
    # smp smooths the Tversky form, in which Dice's numerator and denominator stand halved. It averages over all
    # classes and gives the absent fifth a zero; here only present ones count.
    reference = smp.losses.DiceLoss("multiclass", ignore_index=255, smooth=0.5)
    torch.testing.assert_close(Dice()(logits.log_softmax(1), target) * 4 / 5, reference(logits, target))
    reference = smp.losses.TverskyLoss("multiclass", ignore_index=255, smooth=1.0, alpha=0.2, beta=0.9)
    got = Tversky(0.2, 0.9)(logits.log_softmax(1), target)
    torch.testing.assert_close(got * 4 / 5, reference(logits, target))


@pytest.mark.parametrize("seed", range(3))
def test_lovasz_equals_smps_in_value_and_gradient(seed: int) -> None:
    logits, target = example(seed, height=20, width=24)
    mine, theirs = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    got = Lovasz()(mine.log_softmax(1), target)
    want = smp.losses.LovaszLoss("multiclass", ignore_index=255)(theirs, target)
    torch.testing.assert_close(got, want)
    got.backward()
    want.backward()
    torch.testing.assert_close(mine.grad, theirs.grad, atol=1e-6, rtol=1e-3)


def distance_by_a_loop(mask: np.ndarray, radius: float) -> np.ndarray:
    result = np.full(mask.shape, radius, dtype=np.float64)
    for y, x in np.ndindex(mask.shape):
        for v, u in zip(*mask.nonzero(), strict=True):
            result[y, x] = min(result[y, x], math.hypot(y - v, x - u))
    return result


@pytest.mark.parametrize("radius", [1, 4, 30])
def test_distances_by_a_loop(radius: int) -> None:
    rng = np.random.default_rng(radius)
    for density in (0.0, 0.02, 0.4):
        mask = rng.random((13, 9)) < density
        got = bounded_distance(torch.from_numpy(mask)[None], radius)[0]
        np.testing.assert_allclose(got.numpy(), distance_by_a_loop(mask, radius), rtol=1e-6)


def test_boundary_by_the_papers_code() -> None:
    logits, target = example()
    total = 0.0
    for probability, labels in zip(logits.softmax(1), target.numpy(), strict=True):
        for label in range(5):
            inside, outside = labels == label, (labels != label) & (labels != 255)
            if not inside.any() or not outside.any():
                continue
            to_inside, to_outside = distance_by_a_loop(inside, 3), distance_by_a_loop(outside, 3)
            price = (to_inside * ~inside - (to_outside - 1) * inside) / 3
            total += (price * (labels != 255) * probability[label].numpy()).sum()
    got = Boundary(radius=3)(logits.log_softmax(1), target)
    assert got.item() == pytest.approx(total / (target != 255).sum().item(), rel=1e-5)


def test_sums_over_regions_count_every_pixel() -> None:
    # More ones than a float32 can count one by one.
    log_probability = torch.zeros(1).expand(1, 2, 4096, 4100)
    target = torch.zeros(1, dtype=torch.int64).expand(1, 4096, 4100)
    pixels = 4096 * 4100
    sums = Dice().sums(Dice().measure(log_probability, target), target)
    hit, true, predicted = (found.tolist() for found in sums)
    assert pixels > 2**24 and hit == true == [pixels, 0] and predicted == [pixels, pixels]


@pytest.mark.parametrize("loss", LOSSES, ids=kind)
def test_gradients(loss: PixelLoss) -> None:
    logits, target = example(height=5, width=4)
    given = logits.double().requires_grad_()
    # OHEM and Lovasz are smooth where no two pixels are as bad, which random logits are not to the step's size.
    assert torch.autograd.gradcheck(lambda x: loss(x.log_softmax(1), target), (given,), eps=1e-7, atol=1e-5)


@pytest.mark.parametrize("loss", LOSSES, ids=kind)
def test_no_pixel_that_counts_gives_exactly_zero(loss: PixelLoss) -> None:
    logits = example()[0].requires_grad_()
    value = loss(logits.log_softmax(1), torch.full((2, 9, 11), 255))
    value.backward()
    assert value.item() == 0
    assert logits.grad is not None
    assert torch.count_nonzero(logits.grad) == 0


@pytest.mark.parametrize("loss", LOSSES, ids=kind)
@pytest.mark.parametrize("scale", [0.0, *(pytest.param(s, marks=pytest.mark.slow) for s in (1.0, 1e3)), 1e6])
def test_any_logits_give_finite_values_and_gradients(loss: PixelLoss, scale: float) -> None:
    logits, target = example()
    given = (logits * scale).requires_grad_()
    for labels in (target, torch.zeros_like(target), torch.full_like(target, 4)):
        value = loss(given.log_softmax(1), labels)
        (gradient,) = torch.autograd.grad(value, given)
        assert value.isfinite()
        assert gradient.isfinite().all()


@pytest.mark.parametrize("loss", LOSSES, ids=kind)
def test_right_beats_wrong(loss: PixelLoss) -> None:
    _, target = example()
    right = F.one_hot(target.clamp(max=4), 5).permute(0, 3, 1, 2) * 9.0
    assert loss(right.log_softmax(1), target) < loss(right.roll(1, 1).log_softmax(1), target) - 0.1


@pytest.mark.parametrize("loss", LOSSES, ids=kind)
def test_an_unlabelled_class_gives_exactly_zero_gradient(loss: PixelLoss) -> None:
    batch = make_batch([[[4, 4, 30, 28]], [[8, 8, 40, 40]]], [[0], [1]])
    batch.semantic_classes[0, 3] = False
    logits = torch.randn(2, TAXONOMY.num_semantic, 32, 32, requires_grad=True)
    terms = SegmentationLoss([loss])(Output(None, logits, 2), batch)
    assert list(terms) == [loss.name]
    sum(terms.values()).backward()
    assert torch.count_nonzero(logits.grad[0, 3]) == 0
    assert torch.count_nonzero(logits.grad[0, :3]) > 0
    assert torch.count_nonzero(logits.grad[1, 3]) > 0


@pytest.mark.parametrize("loss", LOSSES, ids=kind)
def test_traces_whole(loss: PixelLoss) -> None:
    logits, target = example()
    compiled = torch.compile(loss, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(logits.log_softmax(1), target), loss(logits.log_softmax(1), target))
    torch.compiler.reset()


def test_an_output_whose_sum_overflows_in_half_precision_gives_finite_terms() -> None:
    batch = make_batch([[[4, 4, 30, 28]]], [[0]])
    logits = torch.full((1, 5, 32, 32), 100.0).half().requires_grad_()
    extra = torch.full((1, 5, 16, 16), 100.0).half().requires_grad_()
    assert logits.sum().isinf() and extra.sum().isinf()
    terms = SegmentationLoss()(Output(None, logits, 2, (extra,)), batch)
    total = torch.stack(list(terms.values())).sum()
    total.backward()
    assert set(terms) == {"ce", "dice", "aux"} and total.isfinite()
    for leaf in (logits, extra):
        assert leaf.grad is not None and leaf.grad.isfinite().all() and leaf.grad.any()


def test_terms_are_weighted_and_auxiliary_maps_are_added_up() -> None:
    batch = make_batch([[[4, 4, 20, 20]]], [[0]])
    batch.semantic[:, :9] = 255
    logits, small = torch.randn(1, 5, 32, 32), torch.randn(1, 5, 16, 16)
    terms = SegmentationLoss([CrossEntropy(2.0), Lovasz(0.5)], 0.3)(Output(None, logits, 2, (logits, small)), batch)
    full = [F.interpolate(x, size=(64, 64), mode="bilinear", align_corners=False) for x in (logits, small)]
    entropy = [F.cross_entropy(x, batch.semantic, ignore_index=255) for x in full]
    torch.testing.assert_close(terms["ce"], 2 * entropy[0])
    torch.testing.assert_close(terms["aux"], 0.3 * (entropy[0] + entropy[1]))
    torch.testing.assert_close(terms["lovasz"], 0.5 * Lovasz()(full[0].log_softmax(1), batch.semantic))


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: SegmentationLoss([]), r"terms are \[\]"),
        (lambda: SegmentationLoss([CrossEntropy(), OHEMCrossEntropy()]), "each name once"),
        (lambda: CrossEntropy(-1.0), "CrossEntropy: weight is -1"),
        (lambda: CrossEntropy(label_smoothing=1.0), "label_smoothing is 1"),
        (lambda: Focal(class_weights=[1.0, -1.0]), "Focal: class_weights"),
        (lambda: CrossEntropy(rare=0.0), "CrossEntropy: rare is 0.0"),
        (lambda: Focal(gamma=-1), "gamma is -1"),
        (lambda: OHEMCrossEntropy(threshold=1.5), "threshold is 1.5"),
        (lambda: OHEMCrossEntropy(share=0.0), "share is 0"),
        (lambda: Dice(smooth=0.0), "Dice: smooth is 0"),
        (lambda: Tversky(-0.1), "false_positive is -0.1"),
        (lambda: Boundary(0), "radius is 0"),
    ],
)
def test_a_wrong_argument_is_named(build, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        build()


def test_the_documentations_own_loss_runs() -> None:
    page = (ROOT / "docs" / "losses.md").read_text()
    names = {"torch": torch, "PixelLoss": PixelLoss, "of_target": of_target}
    exec(page.split("```python\n")[1].split("```")[0], names)
    logits, target = example()
    own = logits.softmax(1).gather(1, target.clamp(max=4)[:, None])[:, 0][target != 255]
    loss = names["SquaredPixels"]()
    torch.testing.assert_close(loss(logits.log_softmax(1), target), ((1 - own) ** 2).mean())
    assert loss(logits.log_softmax(1), torch.full_like(target, 255)) == 0


def test_class_weights_for_another_count_of_classes_are_named() -> None:
    logits, target = example()
    with pytest.raises(ValueError, match="2 class_weights and 5 segmentation classes"):
        CrossEntropy(class_weights=[1.0, 2.0])(logits.log_softmax(1), target)
