"""Encoders: any timm model that returns feature maps."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from ocrnet_pl.errors import one_line
from ocrnet_pl.models.base import Encoder
from ocrnet_pl.models.encoder_hub import hub_weights
from ocrnet_pl.models.encoder_weights import (
    HUB,
    fitting_weights,
    is_checkpoint,
    read_weights,
    take_from_checkpoint,
)
from ocrnet_pl.models.freezing import FrozenStages
from ocrnet_pl.models.layer_depths import layer_depths
from ocrnet_pl.models.plain_transformer import PlainPyramid, on_grid
from ocrnet_pl.models.sized_model import channels_first, sized_model

_COARSEST = 8
"""The largest stride that the finest maps may have without further ones before them."""


class TimmEncoder(Encoder):
    """A timm model with ``features_only`` as the encoder.

    A plain transformer, whose maps all have one stride, gets a pyramid with strides 4, 8, 16 and 32
    (:class:`~ocrnet_pl.models.plain_transformer.PlainPyramid`), and a network whose maps begin at stride 16 gets those
    of strides 4 and 8. Images are scaled so that patches of 14 pixels cover 16
    pixels of them.

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
        unfreeze_at: Time from which the frozen stages train, ``{epoch: 3}`` or ``{step: 500}``, counted from 0; null
            for never.
        drop_path: Stochastic depth rate, from 0 to below 1, for models that support it; null for the model's default.
        output_stride: Stride of the coarsest maps, 8 or 16: later stages are dilated instead of strided, for models
            that support it; null for the model's own stride.
        checkpointing: Whether activations are computed again in the backward pass instead of kept, which saves memory
            and costs time.
        input_size: Size of the images in pixels, (height, width) or one side for both, for which models that cannot
            take any size are built; null for the size that they come with. The command line passes the data's.

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
        unfreeze_at: dict[str, int] | None = None,
        drop_path: float | None = None,
        output_stride: Literal[8, 16] | None = None,
        checkpointing: bool = False,
        input_size: int | tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        import timm  # takes seconds; only runs that build an encoder pay for it

        if not timm.is_model(name):
            close = difflib.get_close_matches(name, timm.list_models(), n=5, cutoff=0.5)
            raise ValueError(f"encoder: timm has no model {name!r}; similar: {', '.join(close) or 'none'}")
        options: dict[str, Any] = {"in_chans": in_channels}
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
        size = (input_size, input_size) if isinstance(input_size, int) else input_size
        try:
            sized = sized_model(name, options, size)
        except Exception as error:  # models check their options in many ways
            if output_stride is not None and isinstance(error, TypeError | NotImplementedError | AssertionError):
                raise ValueError(f"encoder: {name!r} cannot be dilated to output_stride={output_stride}") from error
            reason = one_line(error)
            raise ValueError(f"model.encoder: timm cannot build {name!r} with these options: {reason}") from error
        self.name = name
        self.model: nn.Module = sized.model
        if checkpointing:
            try:
                # What wraps a transformer hands nothing on.
                inner: Any = getattr(self.model, "model", self.model)
                inner.set_grad_checkpointing(True)
            except (AttributeError, AssertionError, NotImplementedError):
                raise ValueError(f"encoder: timm cannot checkpoint {name!r}; set checkpointing to false") from None
        self.channels, self.strides = sized.channels, sized.strides
        self._scale, self._seen, self.fixed_size = sized.scale, sized.size, sized.padded
        self.pyramid: PlainPyramid | None = None
        self._map_strides = [] if sized.plain else self.strides
        if sized.plain or min(self.strides) > _COARSEST:
            self.pyramid = PlainPyramid(self.channels, self.strides, in_channels, begun=not sized.plain)
            self.channels, self.strides = self.pyramid.channels, self.pyramid.strides
        config: Any = self.model.pretrained_cfg
        self.mean = self._per_channel(config["mean"], in_channels)
        self.std = self._per_channel(config["std"], in_channels)
        self.pretrained = weights is not None
        self.frozen = FrozenStages(self.model, frozen_stages, unfreeze_at)
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
            maps = self.train()(torch.zeros(2, channels, *(self.fixed_size or (64, 64))))
            torch.stack([each.sum() for each in maps]).sum().backward()
        self.zero_grad(set_to_none=True)
        for norm, buffers in zip(norms, kept, strict=True):
            assert norm.num_batches_tracked is not None
            if int(norm.num_batches_tracked - buffers["num_batches_tracked"]) == 2 and norm.momentum is not None:
                norm.momentum = 1 - math.sqrt(1 - norm.momentum)
            for name, buffer in norm.named_buffers():
                buffer.copy_(buffers[name])

    @staticmethod
    def _per_channel(values: tuple[float, ...], channels: int) -> tuple[float, ...]:
        """Repeat the constants over extra input channels, as timm repeats the input weights."""
        return tuple(values[i % len(values)] for i in range(channels))

    def train(self, mode: bool = True) -> TimmEncoder:
        """Set the mode; frozen stages stay in evaluation mode, so that their statistics do not change."""
        super().train(mode)
        for module in self.frozen.modules:
            module.eval()
        return self

    def new_parameters(self) -> Iterator[nn.Parameter]:
        """Yield the parameters of the pyramid of a model that has none."""
        return iter(()) if self.pyramid is None else self.pyramid.parameters()

    def begin_step(self, epoch: int, step: int) -> bool:
        """Let frozen stages train if it is time; return whether they begin now."""
        if not self.frozen.begin_step(epoch, step):
            return False
        self.train(self.training)
        return True

    def hold_still(self) -> None:
        """Remove the gradients of stages that are frozen for now."""
        self.frozen.hold_still()

    def layer_depths(self) -> dict[str, int]:
        """Return how far each parameter is from the end in timm's own grouping into layers."""
        return layer_depths(self.name, [name for name, _ in self.named_parameters()])

    def forward(self, images: Tensor) -> list[Tensor]:
        """Map normalised images [B, C, H, W] to the feature maps, finest first; H and W are multiples of the strides.

        Models of one size take only images of :attr:`fixed_size`.
        """
        height, width = images.shape[-2:]
        up, down = self._scale
        seen = self._seen or (height * up // down, width * up // down)
        maps = channels_first(self.model, self.model(on_grid(images, seen)))
        if self._map_strides:
            maps = [
                on_grid(feature, (height // stride, width // stride))
                for feature, stride in zip(maps, self._map_strides, strict=True)
            ]
        return maps if self.pyramid is None else self.pyramid(images, maps)
