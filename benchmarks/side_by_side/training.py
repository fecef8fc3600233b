"""One training loop for all peers: as many steps as fit the budget, and a schedule of that length."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel

from ocrnet_pl.data.datamodule import JointDataModule
from ocrnet_pl.data.loading.batch_loader import Delivery, deliver
from ocrnet_pl.data.loading.dataset import Prepared, Skipped
from ocrnet_pl.structures import Batch
from ocrnet_pl.training.schedules import warmup_cosine
from side_by_side.base import Peer

_PROBE_STEPS = 12
_PROBE_WARM_UP = 3
_WEIGHT_DECAY = 0.05


def keep_samples(items: Sequence[Prepared | Skipped]) -> Delivery:
    """Collate training samples and keep them in the batch: Mask R-CNN learns from their instance maps."""
    return deliver([item._replace(truth=item.sample) if isinstance(item, Prepared) else item for item in items])


def batches(data: JointDataModule, device: torch.device) -> Iterator[Batch]:
    """Yield training batches without end."""
    loader: Any = data.train_dataloader()
    loader.collate_fn = keep_samples
    epoch = 0
    while True:
        loader.sampler.set_epoch(epoch)
        for batch in loader:
            yield batch.to(device)
        epoch += 1


def _groups(peer: Peer, encoder_lr: float) -> list[dict[str, Any]]:
    """Return parameter groups as the joint network has them: a lower rate for the encoder, no decay for vectors."""
    encoder = {id(parameter) for parameter in peer.encoder.parameters()}
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for parameter in peer.parameters():
        if parameter.requires_grad:
            groups.setdefault((id(parameter) in encoder, parameter.ndim > 1), []).append(parameter)
    factor = encoder_lr if peer.encoder.pretrained else 1.0
    return [
        {
            "params": parameters,
            "lr": peer.learning_rate * (factor if is_encoder else 1.0),
            "weight_decay": _WEIGHT_DECAY if decays else 0.0,
        }
        for (is_encoder, decays), parameters in groups.items()
    ]


def _average(peer: Peer, decay: float) -> AveragedModel:
    """Return a moving average of the weights whose memory grows as that of the joint network's does."""
    updates = 0

    def update(averaged: Any, current: Any, count: Any) -> None:
        if averaged[0].is_floating_point():
            torch._foreach_lerp_(list(averaged), list(current), 1 - min(decay, (1 + updates) / (10 + updates)))
        else:
            torch._foreach_copy_(list(averaged), list(current))

    class Average(AveragedModel):
        def update_parameters(self, model: nn.Module) -> None:
            nonlocal updates
            super().update_parameters(model)
            updates += 1

    return Average(peer, multi_avg_fn=update, use_buffers=True)


class Trainer:
    """Trains a peer.

    Args:
        peer: The peer, on its device.
        data: The data module that provides the batches.
        device: Device of the peer.
        settings: The joint network's section ``model`` of the config: the rates' factors are shared.
        decay: Decay of the averaged weights.
        clip: Largest norm of the gradient.
    """

    def __init__(
        self,
        peer: Peer,
        data: JointDataModule,
        device: torch.device,
        settings: dict[str, Any],
        decay: float,
        clip: float,
    ) -> None:
        self.peer = peer
        self.data = data
        self.device = device
        self.encoder_lr = float(settings.get("encoder_lr", 0.3))
        self.warmup_steps = int(settings.get("scheduler", {}).get("init_args", {}).get("warmup_steps", 100))
        self.decay = decay
        self.clip = clip

    def seconds_a_step(self) -> float:
        """Measure some steps, and undo their training."""
        before = {name: value.clone() for name, value in self.peer.state_dict().items()}
        times: list[float] = []
        self._run(_PROBE_STEPS, times)
        self.peer.load_state_dict(before)
        return statistics.median(times[_PROBE_WARM_UP:])

    def train(self, steps: int) -> tuple[Peer, float, float]:
        """Return the averaged model, the seconds that training took, and images per second."""
        times: list[float] = []
        average, images = self._run(steps, times)
        return average.module, sum(times), images / sum(times)

    def _run(self, steps: int, times: list[float]) -> tuple[AveragedModel, int]:
        optimizer = AdamW(_groups(self.peer, self.encoder_lr))
        schedule = LambdaLR(optimizer, warmup_cosine(steps, self.warmup_steps, 0.01))
        average = _average(self.peer, self.decay)
        parameters = [parameter for parameter in self.peer.parameters() if parameter.requires_grad]
        self.peer.train()
        source = batches(self.data, self.device)
        # Workers and caches start here, not on the budget.
        batch, images = next(source), 0
        for step in range(steps):
            self._wait()
            start = time.perf_counter()
            loss = self.peer.loss(batch)
            if not torch.isfinite(loss):
                raise RuntimeError(f"the loss is {float(loss.detach())} at step {step}")
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, self.clip)
            optimizer.step()
            schedule.step()
            average.update_parameters(self.peer)
            images += len(batch)
            batch = next(source)
            self._wait()
            times.append(time.perf_counter() - start)
            if (step + 1) % 25 == 0 or step + 1 == steps:
                print(f"step {step + 1}/{steps}, loss {float(loss.detach()):.3f}, {sum(times):.0f} s", flush=True)
        source.close()  # type: ignore[attr-defined]
        return average, images

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()
