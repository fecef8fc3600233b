"""Encoders: any timm model that returns feature maps."""

from __future__ import annotations

import difflib
import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from ocrnet_pl.models.base import Encoder
from ocrnet_pl.models.encoder_hub import hub_weights
from ocrnet_pl.models.encoder_weights import (
    HUB,
    fitting_weights,
    is_checkpoint,
    read_weights,
    take_from_checkpoint,
)


@contextmanager
def _quiet(logger: str) -> Iterator[None]:
    """Suppress a logger's warnings: timm lists the tensors of the head, which a feature extractor does not use."""
    target = logging.getLogger(logger)
    level = target.level
    target.setLevel(logging.ERROR)
    try:
        yield
    finally:
        target.setLevel(level)


class TimmEncoder(Encoder):
    """A timm model with ``features_only`` as the encoder.

    Args:
        name: Name of a timm model.
        weights: ``hub`` for timm's own pretrained weights, which are downloaded once, the path of a local file or of a
            checkpoint of this project, whose encoder is taken, ``package:<package>/<file>`` for a file inside an
            installed package, or null for random weights.
        weights_by_order: Whether the file's tensors are matched by order instead of by name: for files whose tensors
            have the model's order and shapes, but other names.
        in_channels: Number of channels of the images; pretrained input weights are adapted to it.
        frozen_stages: Number of the model's first stages (the stem is the first) whose weights and normalisation
            statistics are not trained; 0 trains all.
        drop_path: Stochastic depth rate, from 0 to below 1, for models that support it; null for the model's default.
        output_stride: Stride of the coarsest maps, 8 or 16: later stages are dilated instead of strided, for models
            that support it; null for the model's own stride.
        checkpointing: Whether activations are computed again in the backward pass instead of kept, which saves memory
            and costs time.

    Raises:
        WeightsError: The weights are absent or do not fit.
        ValueError: timm does not know the model, the model returns no feature maps, or it cannot be dilated or
            checkpointed.
    """

    def __init__(
        self,
        name: str = "resnet18",
        weights: str | None = None,
        weights_by_order: bool = False,
        in_channels: int = 3,
        frozen_stages: int = 0,
        drop_path: float | None = None,
        output_stride: Literal[8, 16] | None = None,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        import timm  # takes seconds; only runs that build an encoder pay for it

        if not timm.is_model(name):
            close = difflib.get_close_matches(name, timm.list_models(), n=5, cutoff=0.5)
            raise ValueError(f"encoder: timm has no model {name!r}; similar: {', '.join(close) or 'none'}")
        options: dict[str, Any] = {"features_only": True, "in_chans": in_channels}
        if drop_path is not None:
            if not 0 <= drop_path < 1:
                raise ValueError(f"model.encoder.drop_path: expected 0 to below 1, got {drop_path}")
            options["drop_path_rate"] = drop_path
        if output_stride is not None:
            options["output_stride"] = output_stride
        content = {} if weights is None or weights == HUB else read_weights(weights)
        checkpoint = is_checkpoint(content)
        if weights == HUB:
            options |= {"pretrained": True, "pretrained_cfg_overlay": hub_weights(name)}
        elif weights is not None and not checkpoint:
            state = fitting_weights(name, weights, content, weights_by_order)
            options |= {"pretrained": True, "pretrained_cfg_overlay": {"state_dict": state}}
        try:
            self.model: nn.Module = self._create(name, options)
            self.name = name
        except Exception as error:  # models check their options in many ways
            if output_stride is not None and isinstance(error, TypeError | NotImplementedError | AssertionError):
                raise ValueError(f"encoder: {name!r} cannot be dilated to output_stride={output_stride}") from error
            reason = " ".join(str(error).split()) or type(error).__name__
            raise ValueError(f"model.encoder: timm cannot build {name!r} with these options: {reason}") from error
        if checkpointing:
            try:
                self.model.set_grad_checkpointing(True)  # type: ignore[operator]
            except (AttributeError, AssertionError, NotImplementedError):
                raise ValueError(f"encoder: timm cannot checkpoint {name!r}; set checkpointing to false") from None
        info: Any = self.model.feature_info
        self.channels = list(info.channels())
        self.strides = list(info.reduction())
        config: Any = self.model.pretrained_cfg
        self.mean = self._per_channel(config["mean"], in_channels)
        self.std = self._per_channel(config["std"], in_channels)
        self.pretrained = weights is not None
        self._channels_first = str(getattr(self.model, "output_fmt", "NCHW")).rpartition(".")[2] != "NHWC"
        self._frozen = self._freeze(frozen_stages)
        if weights is not None and checkpoint:
            take_from_checkpoint(self, name, weights, content, weights_by_order)
        if checkpointing:
            self._count_repetitions(in_channels)

    def _count_repetitions(self, channels: int) -> None:
        """Make the two updates that a norm gets in a step, because its input is recomputed, add up to one.

        Both updates use the same batch, so two of the momentum ``1 - sqrt(1 - m)`` equal one of ``m``. Which parts a
        model recomputes shows only when it runs.
        """
        norms = [m for m in self.model.modules() if isinstance(m, _NormBase) and m.track_running_stats]
        if not norms:
            return
        kept = [{name: buffer.clone() for name, buffer in norm.named_buffers()} for norm in norms]
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            maps = self.train()(torch.zeros(2, channels, 64, 64))
            torch.stack([each.sum() for each in maps]).sum().backward()
        self.zero_grad(set_to_none=True)
        for norm, buffers in zip(norms, kept, strict=True):
            assert norm.num_batches_tracked is not None
            if int(norm.num_batches_tracked - buffers["num_batches_tracked"]) == 2 and norm.momentum is not None:
                norm.momentum = 1 - math.sqrt(1 - norm.momentum)
            for name, buffer in norm.named_buffers():
                buffer.copy_(buffers[name])

    @staticmethod
    def _create(name: str, options: dict[str, Any]) -> nn.Module:
        import timm

        with _quiet("timm.models._builder"):
            try:
                # Window transformers accept any input size only with this option; other models reject it.
                model: nn.Module = timm.create_model(name, **options, strict_img_size=False)
            except TypeError:
                model = timm.create_model(name, **options)
        return model

    @staticmethod
    def _per_channel(values: tuple[float, ...], channels: int) -> tuple[float, ...]:
        """Repeat the constants over extra input channels, as timm repeats the input weights."""
        return tuple(values[i % len(values)] for i in range(channels))

    def _freeze(self, stages: int) -> list[nn.Module]:
        if stages == 0:
            return []
        if not 0 < stages <= len(self.strides):
            raise ValueError(f"encoder: frozen_stages is {stages}, the model {len(self.strides)} stages deep")
        boundary = self.model.feature_info[stages - 1]["module"].split(".")  # type: ignore[index, operator]
        frozen: list[nn.Module] = []
        parent: nn.Module = self.model
        # Everything that runs before the boundary: earlier siblings at every depth of its path, then itself.
        for depth, part in enumerate(boundary):
            children = dict(parent.named_children())
            name = part if part in children else "_".join(boundary[depth:])
            for sibling, module in children.items():
                if sibling == name:
                    break
                frozen.append(module)
            parent = children[name]
            if name != part:
                break
        frozen.append(parent)
        for module in frozen:
            module.requires_grad_(False)
        return frozen

    def train(self, mode: bool = True) -> TimmEncoder:
        """Set the mode; frozen stages stay in evaluation mode, so that their statistics do not change."""
        super().train(mode)
        for module in self._frozen:
            module.eval()
        return self

    def forward(self, images: Tensor) -> list[Tensor]:
        """Map normalised images [B, C, H, W] to the model's feature maps, finest first."""
        features: list[Tensor] = self.model(images)
        return features if self._channels_first else [feature.permute(0, 3, 1, 2) for feature in features]
