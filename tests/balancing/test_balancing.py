"""The split of the tasks and the methods of balancing, each against its paper's formulas."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from ocrnet_pl.balancing.methods import (
    Balancing,
    DynamicWeightAverage,
    FixedWeights,
    GradNorm,
    PCGrad,
    Uncertainty,
    projected_factors,
)
from ocrnet_pl.balancing.task_split import TaskSplit
from ocrnet_pl.callbacks.gradients import shares_and_cosine
from ocrnet_pl.losses.detection import QualityDetectionLoss
from ocrnet_pl.losses.segmentation import SegmentationLoss
from ocrnet_pl.models.base import Features, SegmentationDecoder, Shapes
from ocrnet_pl.models.detection import AnchorFreeDecoder
from ocrnet_pl.models.ocrnet import OCRNet
from ocrnet_pl.structures import Batch, Taxonomy
from ocrnet_pl.training.optimizers import EncoderRates, adjust_groups, parameter_groups
from tests.helpers.builders import TAXONOMY, TinyEncoder, make_batch, tiny_network

BOXES = [[[8.0, 8, 30, 34]], [[20.0, 12, 50, 40], [2, 2, 12, 12]]]


class EncoderReader(SegmentationDecoder):
    """Reads the encoder's finest map alone."""

    reads_neck = False

    def __init__(self, shapes: Shapes, taxonomy: Taxonomy) -> None:
        super().__init__()
        self.stride = shapes.encoder_strides[0]
        self.classify = nn.Conv2d(shapes.encoder_channels[0], taxonomy.num_semantic, 1)

    def forward(self, features: Features) -> tuple[Tensor, ...]:
        return (self.classify(features.encoder_maps[0]),)


def network_at(place: str) -> OCRNet:
    """Return a network in float64 whose tasks part at the neck's or at the encoder's maps."""
    if place == "neck":
        return tiny_network().double()
    from ocrnet_pl.inference.fusion import FusionPostProcess
    from ocrnet_pl.models.necks import PathAggregationNeck

    torch.manual_seed(0)
    neck = lambda c, s: PathAggregationNeck(c, s, width=8)  # noqa: E731
    return OCRNet(TAXONOMY, TinyEncoder(), neck, AnchorFreeDecoder, EncoderReader, FusionPostProcess()).double()


def two_losses(network: OCRNet, batch: Batch) -> tuple[Tensor, Tensor]:
    output = network(batch.images)
    detection = torch.stack(list(QualityDetectionLoss()(output, batch).values())).sum()
    segmentation = torch.stack(list(SegmentationLoss()(output, batch).values())).sum()
    return detection, segmentation


def gradients_apart(network: OCRNet, batch: Batch, place: str) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Return the trunk's maps and, by a backward pass for each task, what it sends to them (zeros for None).

    The tasks read leaves cut off from the trunk, whose finer maps lead on to the coarser ones inside it.
    """
    kept: list[Tensor] = []
    leaves: list[Tensor] = []

    def cut(module: nn.Module, args: object, maps: list[Tensor]) -> list[Tensor]:
        kept.extend(maps)
        leaves.extend(m.detach().requires_grad_() for m in maps)
        return list(leaves)

    # The first pass finds out which weights nothing reads, which must not be those that the cut hides.
    network(batch.images)
    part = network.neck if place == "neck" else network.encoder
    assert part is not None
    hook = part.register_forward_hook(cut)
    detection, segmentation = two_losses(network, batch)
    hook.remove()
    found = []
    for loss in (detection, segmentation):
        gradients = torch.autograd.grad(loss, leaves, allow_unused=True)
        found.append([torch.zeros_like(m) if g is None else g for m, g in zip(leaves, gradients, strict=True)])
    return kept, found[0], found[1]


def flat(gradients: list[Tensor]) -> Tensor:
    return torch.cat([gradient.flatten() for gradient in gradients])


def opposed(network: OCRNet) -> None:
    """Make the segmentation want what the detection does not: the two must conflict for the projection to show."""
    torch.manual_seed(3)
    for parameter in network.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)


@pytest.mark.parametrize("place", ["neck", "encoder"])
def test_norms_and_cosine_equal_those_of_separate_backward_passes(place: str) -> None:
    network, batch = network_at(place), make_batch(BOXES, [[0], [1, 2]])
    _, first, second = gradients_apart(network, batch, place)
    network.split.measuring = True
    sum(two_losses(network, batch)).backward()
    assert network.split.products is not None
    one, two = flat(first), flat(second)
    want = torch.stack((one @ one, two @ two, one @ two))
    torch.testing.assert_close(network.split.products, want, rtol=1e-9, atol=0)
    share, other, cosine = shares_and_cosine(network.split.products)
    torch.testing.assert_close(share, one.norm() / (one.norm() + two.norm()))
    torch.testing.assert_close(share + other, torch.ones_like(share))
    torch.testing.assert_close(cosine, nn.functional.cosine_similarity(one, two, dim=0))


@pytest.mark.parametrize("place", ["neck", "encoder"])
def test_measuring_changes_no_gradient(place: str) -> None:
    plain, batch = network_at(place), make_batch(BOXES, [[0], [1, 2]])
    measured = copy.deepcopy(plain)
    measured.split.measuring = True
    for network in (plain, measured):
        sum(two_losses(network, batch)).backward()
    assert plain.split.products is None and measured.split.products is not None
    for (name, a), b in zip(plain.named_parameters(), measured.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-10, atol=1e-13, msg=name)


@pytest.mark.parametrize("place", ["neck", "encoder"])
def test_pcgrad_is_the_papers_projection(place: str) -> None:
    """Against the projection of two gradients from separate backward passes, carried on through the trunk."""
    network, batch = network_at(place), make_batch(BOXES, [[0], [1, 2]])
    opposed(network)
    reference = copy.deepcopy(network)
    maps, first, second = gradients_apart(reference, batch, place)
    # The segmentation's loss is turned about if it must be, so that there is a conflict.
    sign = -1.0 if flat(first) @ flat(second) > 0 else 1.0
    one, two = flat(first), sign * flat(second)
    dot = one @ two
    assert dot < 0
    projected = (one - dot / (two @ two) * two) + (two - dot / (one @ one) * one)
    pieces = [p.view_as(m) for p, m in zip(projected.split([m.numel() for m in maps]), maps, strict=True)]
    trunk = [
        p
        for n, p in reference.named_parameters()
        if n.startswith("encoder" if place == "encoder" else ("encoder", "neck"))
    ]
    want = torch.autograd.grad(maps, trunk, pieces)

    network.split.rule = PCGrad().rule
    detection, segmentation = two_losses(network, batch)
    (detection + sign * segmentation).backward()
    got = [
        p
        for n, p in network.named_parameters()
        if n.startswith("encoder" if place == "encoder" else ("encoder", "neck"))
    ]
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a.grad, b, rtol=1e-8, atol=1e-12)
    # It is not the plain sum, and the decoders are not touched.
    plain = copy.deepcopy(reference)
    plain.zero_grad()
    detection, segmentation = two_losses(plain, batch)
    (detection + sign * segmentation).backward()
    assert any(
        not torch.allclose(a.grad, p.grad)
        for a, p in zip(network.encoder.parameters(), plain.encoder.parameters(), strict=True)
    )
    for a, b in zip(network.segmentation.parameters(), plain.segmentation.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)


def test_pcgrad_leaves_gradients_that_agree() -> None:
    assert [float(f) for f in projected_factors(torch.tensor([4.0, 9.0, 2.0]))] == [1, 1]
    assert [float(f) for f in projected_factors(torch.tensor([4.0, 8.0, -2.0]))] == [1.5, 1.25]
    assert [float(f) for f in projected_factors(torch.tensor([0.0, 8.0, 0.0]))] == [1, 1]


def test_pcgrad_does_not_depend_on_the_losss_scale() -> None:
    network, batch = network_at("neck"), make_batch(BOXES, [[0], [1, 2]])
    opposed(network)
    network.split.rule = PCGrad().rule
    scaled = copy.deepcopy(network)
    for net, scale in ((network, 1.0), (scaled, 1024.0)):
        detection, segmentation = two_losses(net, batch)
        ((detection - segmentation) * scale).backward()
    for a, b in zip(network.encoder.parameters(), scaled.encoder.parameters(), strict=True):
        torch.testing.assert_close(a.grad * 1024, b.grad)


def test_the_split_is_the_identity_where_nobody_wants_it() -> None:
    split, maps = TaskSplit(), [torch.rand(2, 3, requires_grad=True)]
    assert all(a is b for side in split(maps) for a, b in zip(side, maps, strict=True))
    split.measuring = True
    with torch.no_grad():
        assert split(maps)[0][0] is maps[0]
    assert split(maps)[0][0] is not maps[0]
    split.eval()
    assert split(maps)[0][0] is maps[0] and split(maps)[1][0] is maps[0]
    assert not split.state_dict() and not list(split.parameters())


def test_the_split_takes_half_precision_and_missing_gradients() -> None:
    split = TaskSplit()
    split.measuring = True
    maps = [torch.ones(4, dtype=torch.bfloat16, requires_grad=True), torch.ones(4, requires_grad=True)]
    first, second = split(maps)
    ((first[0] * 3).float().sum() + second[0].float().sum()).backward()
    assert maps[1].grad is None and maps[0].grad is not None
    assert maps[0].grad.dtype == torch.bfloat16 and maps[0].grad.tolist() == [4, 4, 4, 4]
    assert split.products is not None and split.products.tolist() == [36, 4, 12]
    assert split.products.dtype == torch.float32
    # A further batch adds up until the next step.
    first, second = split([maps[1]])
    (first[0] * 2).sum().backward()
    assert split.products.tolist() == [52, 4, 12]
    split.reset()
    assert split.products is None


@pytest.mark.parametrize("method", [FixedWeights, Uncertainty, DynamicWeightAverage, GradNorm, PCGrad])
@pytest.mark.parametrize("missing", ["detection", "segmentation", "both"])
def test_an_unlabelled_task_gives_no_gradient_and_moves_no_weight(method: type[Balancing], missing: str) -> None:
    network, balancing = tiny_network(), method()
    network.split.rule, network.split.measuring = balancing.rule, True
    batch = make_batch(BOXES, [[0], [1, 2]])
    if missing != "segmentation":
        batch.detection_classes[:] = False
        batch.valid[:] = False
    if missing != "detection":
        batch.semantic_classes[:] = False
        batch.semantic[:] = 255
    before = balancing.weights()
    for _ in range(3):
        network.zero_grad()
        network.split.reset()
        total = balancing(*two_losses(network, batch))
        total.backward()
        balancing.update(network.split.products)
    assert torch.isfinite(total)
    for part, decoder in (("detection", network.detection), ("segmentation", network.segmentation)):
        if missing in (part, "both"):
            assert all(p.grad is not None and not p.grad.any() for p in decoder.parameters())
    assert all(torch.isfinite(p.grad).all() for p in network.parameters())
    assert any(p.grad.any() for p in network.encoder.parameters()) == (missing != "both")
    after = balancing.weights()
    if before is not None and after is not None:
        assert torch.equal(before, after)
    if isinstance(balancing, Uncertainty):
        gone = {"detection": [0], "segmentation": [1], "both": [0, 1]}[missing]
        assert not balancing.log_variance.grad[gone].any()
    if missing != "both":
        share = float(shares_and_cosine(network.split.products)[0])
        assert share == (0.0 if missing == "detection" else 1.0)


def test_fixed_weights_are_the_weighted_sum() -> None:
    detection, segmentation = torch.tensor(0.3), torch.tensor(0.7)
    assert FixedWeights(2.0, 0.5)(detection, segmentation) == 2.0 * detection + 0.5 * segmentation
    assert FixedWeights(2.0, 0.5)(0, segmentation) == 0.5 * segmentation
    assert Uncertainty().single()(detection, 0) == detection
    assert PCGrad(3.0).single()(detection, 0) == 3.0 * detection
    assert PCGrad(3.0).single().rule is None
    with pytest.raises(ValueError, match=r"balancing\.segmentation: expected a weight of 0 or more, got -1"):
        FixedWeights(segmentation=-1)


def test_the_uncertaintys_gradient_by_hand() -> None:
    balancing = Uncertainty()
    losses = torch.tensor([1.5, 0.2], requires_grad=True)
    assert balancing(losses[0], losses[1]) == losses.sum()
    balancing.log_variance.data = torch.tensor([0.4, -0.3])
    balancing(losses[0], losses[1]).backward()
    weights = torch.exp(torch.tensor([-0.4, 0.3]))
    torch.testing.assert_close(losses.grad, weights)
    torch.testing.assert_close(balancing.log_variance.grad, 0.5 - weights * torch.tensor([1.5, 0.2]))
    torch.testing.assert_close(balancing.weights(), weights)


def test_the_uncertainty_reaches_the_optimiser_without_weight_decay() -> None:
    balancing = Uncertainty()
    network = tiny_network()
    groups = parameter_groups(network, balancing, EncoderRates(network.encoder, 0.5))
    optimizer = torch.optim.AdamW(groups, lr=1.0, weight_decay=0.1)
    adjust_groups(optimizer)
    (group,) = (group for group in optimizer.param_groups if group["name"].startswith("balancing"))
    assert [id(p) for p in group["params"]] == [id(balancing.log_variance)]
    assert group["weight_decay"] == 0 and group["lr"] == 1.0


def step(balancing: Balancing, detection: float, segmentation: float, products: Tensor | None = None) -> None:
    balancing(torch.tensor(detection), torch.tensor(segmentation))
    balancing.update(products)


def test_the_dynamic_weights_by_hand() -> None:
    balancing = DynamicWeightAverage(temperature=2.0, window=2)
    step(balancing, 4.0, 1.0)
    step(balancing, 2.0, 1.0)
    step(balancing, 2.0, 1.0)
    assert balancing.weights().tolist() == [1, 1]
    step(balancing, 1.0, 0.8)
    # Means (3, 1), then (1.5, 0.9).
    raw = torch.exp(torch.tensor([1.5 / 3 / 2, 0.9 / 1 / 2]))
    torch.testing.assert_close(balancing.weights(), 2 * raw / raw.sum())
    torch.testing.assert_close(
        balancing(torch.tensor(1.0), torch.tensor(3.0)), (2 * raw / raw.sum()) @ torch.tensor([1.0, 3])
    )
    # Unlabelled batches do not count; a task without any keeps its last mean.
    balancing.update(None)
    step(balancing, 0.0, 0.9)
    torch.testing.assert_close(balancing.means, torch.tensor([[1.5, 0.9], [1.0, 1.95]]))
    step(balancing, 0.0, 0.4)
    step(balancing, 0.0, 0.6)
    torch.testing.assert_close(balancing.means, torch.tensor([[1.0, 1.95], [1.0, 0.5]]))


def test_accumulated_batches_make_one_step() -> None:
    balancing = DynamicWeightAverage(window=1)
    balancing(torch.tensor(1.0), torch.tensor(2.0))
    balancing(torch.tensor(3.0), torch.tensor(0.0))
    balancing.update(None)
    assert balancing.means[1].tolist() == [2, 2]
    balancing.eval()
    balancing(torch.tensor(9.0), torch.tensor(9.0))
    balancing.update(None)
    assert balancing.means.tolist() == [[0, 0], [2, 2]]


def test_gradnorm_equals_the_autograd_of_its_loss() -> None:
    """On a toy trunk, several steps: the paper's loss is built with second derivatives and stepped by plain descent."""
    torch.manual_seed(0)
    trunk = nn.Linear(6, 5).double()
    heads = [nn.Linear(5, 2).double(), nn.Linear(5, 3).double()]
    inputs, alpha, lr = torch.randn(7, 6).double(), 0.7, 0.05
    targets = [torch.randn(7, 2).double(), 5 * torch.randn(7, 3).double()]
    balancing = GradNorm(lr, alpha).double()
    split = TaskSplit()
    split.measuring = True
    weights = torch.ones(2).double()
    initial: Tensor | None = None
    for _ in range(5):
        maps = trunk(inputs)
        losses = torch.stack([(head(maps) - t).square().mean() for head, t in zip(heads, targets, strict=True)])
        initial = losses.detach() if initial is None else initial
        leaf = weights.log().requires_grad_()
        norms = [torch.autograd.grad(leaf[i].exp() * losses[i], maps, create_graph=True)[0].norm() for i in range(2)]
        mean = torch.stack(norms).mean().detach()
        ratio = losses.detach() / initial
        ratio = ratio / ratio.mean()
        objective = sum(abs(norms[i] - mean * ratio[i] ** alpha) for i in range(2)) / mean
        (slope,) = torch.autograd.grad(objective, leaf)
        weights = (leaf - lr * slope).exp().detach()
        weights = 2 * weights / weights.sum()

        first, second = split([trunk(inputs)])
        own = [(heads[0](first[0]) - targets[0]).square().mean(), (heads[1](second[0]) - targets[1]).square().mean()]
        split.reset()
        (1024 * balancing(*own)).backward()  # as a loss scaler does
        balancing.update(split.products)
        torch.testing.assert_close(balancing.weights(), weights, rtol=1e-9, atol=0)
        with torch.no_grad():
            for parameter in trunk.parameters():
                parameter -= 1e-4 * parameter.grad
                parameter.grad = None
    assert not torch.allclose(weights, torch.ones_like(weights), atol=1e-3)
    assert weights[0] > 1


def test_gradnorm_settles_where_the_norms_are_alike() -> None:
    """Plain norms of 30 and 1 want weights of 2 / 31 and 60 / 31."""
    balancing = GradNorm(alpha=0.0)
    for _ in range(400):
        norms = balancing.weights() * torch.tensor([30.0, 1.0])
        step(balancing, 1.0, 1.0, torch.cat((norms.square(), torch.zeros(1))))
    torch.testing.assert_close(balancing.weights(), torch.tensor([2 / 31, 60 / 31]), rtol=0.06, atol=0)


def test_gradnorm_stands_an_overflow() -> None:
    balancing = GradNorm()
    step(balancing, 1.0, 2.0, torch.tensor([4.0, 1.0, 0.0]))
    before = balancing.weights()
    assert before[0] < 1 < before[1]
    for products in (torch.tensor([float("inf"), 1.0, 0.0]), torch.tensor([float("nan"), 1.0, 0.0]), None):
        step(balancing, 1.0, 2.0, products)
    step(balancing, float("nan"), 2.0, torch.tensor([4.0, 1.0, 0.0]))
    assert torch.equal(balancing.weights(), before)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: DynamicWeightAverage(temperature=0), "balancing.temperature"),
        (lambda: DynamicWeightAverage(window=0), "balancing.window"),
        (lambda: GradNorm(lr=0), "balancing.lr"),
        (lambda: GradNorm(alpha=-1), "balancing.alpha"),
    ],
)
def test_options_out_of_range_are_refused(make: object, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()  # type: ignore[operator]
