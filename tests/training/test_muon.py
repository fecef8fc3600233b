"""The optimiser Muon against torch's own Muon and AdamW, and against the singular vectors."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from ocrnet_pl.training.muon import Muon, is_matrix, orthogonalised
from ocrnet_pl.training.optimizers import EncoderRates, parameter_groups
from tests.helpers.whole_step import network_on


def test_a_matrix_keeps_its_singular_vectors_and_gets_values_near_one() -> None:
    torch.manual_seed(0)
    for shape in ((24, 60), (60, 24)):
        matrix = torch.randn(shape)
        left, _, right = torch.linalg.svd(matrix, full_matrices=False)
        turned = left.T @ orthogonalised(matrix) @ right.T
        values = turned.diagonal()
        assert values.min() > 0.65
        assert values.max() < 1.25
        torch.testing.assert_close(turned, values.diag(), atol=1e-3, rtol=0)


def test_no_gradient_at_all_is_no_step_but_the_decay() -> None:
    assert torch.equal(orthogonalised(torch.zeros(20, 30)), torch.zeros(20, 30))


def _after(make: Any, start: torch.Tensor, gradients: list[torch.Tensor], name: str | None = None) -> torch.Tensor:
    weight = nn.Parameter(start.clone())
    optimizer = make([{"params": [weight]} | ({} if name is None else {"name": name})])
    for gradient in gradients:
        weight.grad = gradient.clone()
        optimizer.step()
    return weight.detach() - start


def test_convolutions_step_as_torchs_muon_steps_with_the_size_of_adam() -> None:
    if not hasattr(torch.optim, "Muon"):
        pytest.skip("this torch has no Muon to compare with")
    torch.manual_seed(0)
    start, gradients = torch.randn(32, 20, 3, 3), [torch.randn(32, 20, 3, 3) for _ in range(4)]
    theirs = partial(torch.optim.Muon, lr=0.01, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    want = _after(theirs, start.flatten(1), [gradient.flatten(1) for gradient in gradients]).view_as(start)
    got = _after(partial(Muon, lr=0.01, weight_decay=0.1), start, gradients, "decoders")
    # They iterate in bfloat16.
    torch.testing.assert_close(got, want, atol=0.02 * float(want.abs().max()), rtol=0)


@pytest.mark.parametrize(
    ("shape", "name"), [((32, 20, 3, 3), "encoder"), ((40,), "decoders"), ((32, 1, 5, 5), "decoders")]
)
def test_other_weights_step_as_adamw_steps(shape: tuple[int, ...], name: str) -> None:
    torch.manual_seed(0)
    start, gradients = torch.randn(shape), [torch.randn(shape) for _ in range(4)]
    options: dict[str, Any] = {"lr": 0.01, "weight_decay": 0.1}
    want = _after(partial(torch.optim.AdamW, **options), start, gradients)
    torch.testing.assert_close(_after(partial(Muon, **options), start, gradients, name), want)


def test_a_network_has_new_convolutions_orthogonalised_and_no_head_of_few_classes() -> None:
    network = network_on("test_efficientnet", (64, 64))
    names = {id(weight): name for name, weight in network.named_parameters()}
    groups = parameter_groups(network, nn.Module(), EncoderRates(network.encoder, 0.5))
    chosen = {names[id(w)] for group in groups for w in group["params"] if is_matrix(w, group)}
    assert any(name.startswith("neck.") for name in chosen)
    assert not any(name.startswith("encoder.") for name in chosen)
    assert not any(name.startswith("detection.class_head.") for name in chosen)


def test_a_run_that_continues_steps_as_one_that_was_not_interrupted() -> None:
    torch.manual_seed(0)
    weights = [nn.Parameter(torch.randn(32, 20)), nn.Parameter(torch.randn(20))]
    others = [nn.Parameter(weight.detach().clone()) for weight in weights]
    gradients = [[torch.randn_like(weight) for weight in weights] for _ in range(4)]

    def run(own: list[nn.Parameter], optimizer: Muon, steps: range) -> None:
        for step in steps:
            for weight, gradient in zip(own, gradients[step], strict=True):
                weight.grad = gradient.clone()
            optimizer.step()

    whole = Muon(weights)
    run(weights, whole, range(4))
    first = Muon(others)
    run(others, first, range(2))
    second = Muon(others)
    second.load_state_dict(first.state_dict())
    run(others, second, range(2, 4))
    assert all(torch.equal(a, b) for a, b in zip(weights, others, strict=True))


@pytest.mark.parametrize(
    "wrong", [{"lr": -1.0}, {"weight_decay": -0.1}, {"matrix_momentum": 1.0}, {"betas": (0.9, 1.0)}]
)
def test_a_number_out_of_range_is_named(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Muon([nn.Parameter(torch.zeros(2))], **wrong)
