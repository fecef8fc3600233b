"""Strategies of several processes: DDP with a static graph, and weights sharded over the processes (FSDP2)."""

from __future__ import annotations

import inspect
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from lightning.pytorch import Trainer
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy, ParallelStrategy
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import bf16_compress_hook
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from ocrnet_pl.models.ocrnet import OCRNet

_SILENT = "Application timeout caused pair closure"
_SIGNS = ("Connection reset by peer", "Connection closed by peer", "Timed out", "timeout", "Broken pipe")
"""Texts by which a lost connection is recognised."""
_BROADCAST = next(
    name
    for name in ("forward_sync_buffers", "broadcast_buffers")
    if name in inspect.signature(DistributedDataParallel).parameters
)
"""Name of the option in this version of torch."""


class StaticDDP(DDPStrategy):
    """DDP that plans the exchange of gradients once, since the weights that take part never change.

    Whatever is labelled, every weight is in the graph. Gradients are kept in the buffers that are sent, which saves a
    copy of them. Unlike ``DDPStrategy(static_graph=True)`` it can accumulate gradients: the plan is made in the first
    backward pass, which therefore exchanges them, whether or not an optimiser's step follows.

    Args:
        broadcast_buffers: Whether every forward pass begins with an exchange of the running statistics. Validation and
            checkpoints have those of the first process either way.
        bf16_gradients: Whether gradients are sent in bfloat16, half of the bytes.
        kwargs: Options of ``DDPStrategy``.
    """

    def __init__(self, broadcast_buffers: bool = False, bf16_gradients: bool = False, **kwargs: Any) -> None:
        super().__init__(static_graph=True, gradient_as_bucket_view=True, **kwargs)
        self._ddp_kwargs[_BROADCAST] = broadcast_buffers
        self._bf16_gradients = bf16_gradients
        self._planned = False

    def setup(self, trainer: Trainer) -> None:
        """Wrap the network, with the plan still to be made."""
        self._planned = False
        super().setup(trainer)
        if self._bf16_gradients and isinstance(self.model, DistributedDataParallel):
            self.model.register_comm_hook(None, bf16_compress_hook)

    @contextmanager
    def block_backward_sync(self) -> Generator[None, None, None]:
        """Hold the gradients back on this process, except those of the first pass."""
        if self._planned:
            with super().block_backward_sync():
                yield
        else:
            # Averaged once more together with those that follow, they do not change.
            yield

    def post_backward(self, closure_loss: Tensor) -> None:
        """Record that there is a plan."""
        super().post_backward(closure_loss)
        self._planned = True


class FullySharded(ModelParallelStrategy):
    """Each process holds a share of all weights, gradients and optimiser state, and gathers a block to use it.

    Lightning's strategy with all processes in one data-parallel group. A checkpoint is one file with all weights, which
    can be loaded on one process, under any strategy and by ``OCRNet.from_checkpoint``. Averaging of weights must be off
    (``ema.decay: 0``); mixed precision is ``bf16-mixed``.

    Args:
        block_parameters: Number of parameters from which a block of the encoder is gathered separately, at least 0; the
            rest of the network is gathered as one.
        bf16_weights: Whether blocks of the encoder without batch normalisation are gathered and computed in bfloat16,
            half of the bytes; each process keeps its share in float32, and gradients are added up in float32.
        timeout: How long to wait for a process that is silent.

    Raises:
        MisconfigurationException: ``block_parameters`` is negative.
    """

    def __init__(
        self,
        block_parameters: int = 100_000,
        bf16_weights: bool = False,
        timeout: timedelta = timedelta(minutes=30),
    ) -> None:
        if block_parameters < 0:
            raise MisconfigurationException(
                f"FullySharded: block_parameters is {block_parameters}, set it to 0 or more"
            )
        super().__init__(save_distributed_checkpoint=False, timeout=timeout)
        self.block_parameters = block_parameters
        self.bf16_weights = bf16_weights

    def setup_environment(self) -> None:
        """Put all processes into one data-parallel group."""
        self._data_parallel_size = self.num_nodes * self.num_processes
        self._tensor_parallel_size = 1
        super().setup_environment()


def blocks(module: nn.Module, least: int) -> Iterator[nn.Module]:
    """Yield the blocks of an encoder: the largest modules in its lists of modules that are not lists themselves.

    A list's modules are called one after the other, which is when their weights are gathered; other modules may be used
    piece by piece without being called.

    Args:
        module: Module to search.
        least: Number of weights below which a block is not worth gathering separately.
    """
    for child in module.children():
        is_list = isinstance(child, nn.Sequential | nn.ModuleList | nn.ModuleDict)
        in_list = isinstance(module, nn.Sequential | nn.ModuleList)
        if in_list and not is_list:
            if _weights(child) >= least:
                yield child
        else:
            yield from blocks(child, least)


def shard(network: OCRNet, trainer: Trainer, balancing: nn.Module) -> None:
    """Shard each of the encoder's blocks, and the rest of the network as one; nothing under other strategies.

    Args:
        network: Changed in place; its weights are the same on all processes.
        trainer: The trainer, whose strategy says whether to shard.
        balancing: Balancing of the tasks; one with its own weights raises an error.

    Raises:
        MisconfigurationException: The strategy or another setting is not possible with sharded weights.
    """
    strategy = trainer.strategy
    if not isinstance(strategy, ModelParallelStrategy):
        return
    if not isinstance(strategy, FullySharded):
        raise MisconfigurationException(
            f"trainer.strategy: {type(strategy).__name__} would leave the network whole; set "
            "ocrnet_pl.training.sharding.FullySharded"
        )
    if next(balancing.parameters(), None) is not None:
        raise MisconfigurationException(
            f"model.balancing: {type(balancing).__name__} learns weights outside the network, which sharding does not "
            "keep alike; set FixedWeights, or a strategy of DDP"
        )
    if trainer.validate_loop.inference_mode:
        raise MisconfigurationException(
            "trainer.inference_mode: weights that were gathered in it cannot be trained any more; set it to false, as "
            "configs/overlays/distributed/fsdp.yaml does"
        )
    if isinstance(network, FSDPModule):
        return
    if strategy._layer_sync is not None:
        nn.SyncBatchNorm.convert_sync_batchnorm(network)
    # Shards are cut from plain memory; the maps keep their own format.
    network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    mesh = strategy.device_mesh["data_parallel"]
    in_float32 = MixedPrecisionPolicy()
    in_bf16 = MixedPrecisionPolicy(torch.bfloat16, reduce_dtype=torch.float32, output_dtype=torch.float32)
    own = list(blocks(network.encoder, strategy.block_parameters))
    # Running statistics are float32, and torch normalises with weights of their type only.
    small = [block for block in own if not any(isinstance(part, _BatchNorm) for part in block.modules())]
    if strategy.bf16_weights and 2 * _weights(*small) < _weights(network.encoder):
        raise MisconfigurationException(
            "trainer.strategy: bf16_weights would have little effect, since most of this encoder's weights are in "
            "blocks with batch normalisation, or too small for block_parameters; set it to false"
        )
    for block in own:
        fully_shard(block, mesh=mesh, mp_policy=in_bf16 if strategy.bf16_weights and block in small else in_float32)
    fully_shard(network, mesh=mesh)


def _weights(*modules: nn.Module) -> int:
    return sum(parameter.numel() for module in modules for parameter in module.parameters())


def is_sharded(network: nn.Module) -> bool:
    """Return whether the processes share a network's weights among themselves."""
    return isinstance(network, FSDPModule)


def gather(network: nn.Module) -> None:
    """Hold all weights on every process from here on, so that each may evaluate as many batches as it has.

    Nothing happens to a network that is not sharded.
    """
    if not isinstance(network, FSDPModule):
        return
    network.set_reshard_after_forward(False)
    # The whole network comes first, and takes over its blocks.
    for module in network.modules():
        if isinstance(module, FSDPModule):
            module.unshard()


def scatter(network: nn.Module) -> None:
    """Release the other processes' shares again, after :func:`gather`."""
    if not isinstance(network, FSDPModule):
        return
    network.set_reshard_after_forward(True)
    for module in network.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def check_strategy(trainer: Trainer) -> None:
    """Raise an error for settings that would fail at the first step.

    Raises:
        MisconfigurationException: Normalisations are synchronised on the CPU, or gradients are accumulated in
            Lightning's own static graph.
    """
    strategy = trainer.strategy
    static = isinstance(strategy, DDPStrategy) and strategy._ddp_kwargs.get("static_graph")
    if static and not isinstance(strategy, StaticDDP) and trainer.accumulate_grad_batches > 1:
        raise MisconfigurationException(
            "trainer.strategy: DDPStrategy with static_graph fails if gradients are accumulated; set "
            "ocrnet_pl.training.sharding.StaticDDP"
        )
    if isinstance(strategy, ParallelStrategy) and strategy._layer_sync and strategy.root_device.type == "cpu":
        raise MisconfigurationException(
            "trainer.sync_batchnorm: torch synchronises batch normalisation on GPUs only; set it to false"
        )


def lost_peer(error: BaseException) -> str | None:
    """Return the message for an error that means that another process is gone, or None for any other error.

    The communication library reports it as a failure of whatever it was about to do.
    """
    text = str(error)
    network = isinstance(error, dist.DistError) or "gloo/transport" in text or _SILENT in text
    if not (network and dist.is_initialized()):
        return None
    reason = next((sign for sign in _SIGNS if sign.lower() in text.lower()), "the connection failed")
    return (
        f"process {dist.get_rank()} of {dist.get_world_size()} lost another one ({reason}): it ended, was killed, or "
        "its node is gone; its own last lines say why. Launch scripts continue from the last checkpoint by themselves; "
        "without them, give it with --ckpt_path"
    )
