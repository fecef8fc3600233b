"""``memory``: measure the memory of training steps and find the largest batch size."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ocrnet_pl.cli.command import NetworkCommand, NetworkRun

if TYPE_CHECKING:
    from lightning.pytorch.cli import LightningArgumentParser


def add_arguments(parser: LightningArgumentParser) -> None:
    """Add the option for the limit."""
    from jsonargparse.typing import PositiveFloat

    parser.add_argument(
        "--limit_gb",
        type=PositiveFloat | None,
        default=None,
        help="Memory that a step may take, in GiB; null for 90 % of the available memory.",
    )


def measure_memory(run: NetworkRun) -> int:
    """Print the memory of a training step at each size, and the largest batch size that fits the largest of them.

    Raises:
        ValueError: Not even a step of one image fits, or of two where the network refuses one.
    """
    from rich.console import Console
    from rich.table import Table

    from ocrnet_pl.drawing.progress import Progress
    from ocrnet_pl.training.step_memory import StepMemory, advice, available_mb, by_size, largest_that_fits

    device, batch_size, limit_gb = run.trainer.strategy.root_device, run.data.batch_size, run.config["limit_gb"]
    limit = available_mb(device) if limit_gb is None else limit_gb * 1024
    memory = StepMemory(run.task, device, run.trainer.precision_plugin.forward_context)
    table = Table("size", f"MiB at batch_size {batch_size}", title=f"Training steps on {device}")
    table.columns[1].justify = "right"
    sizes = by_size(run.data.training_sizes)
    with Progress() as progress:
        work = progress.add(f"measuring steps of {len(sizes)} sizes", 1 + len(sizes))
        # The largest first: a batch size that fits there fits everywhere.
        largest = largest_that_fits(lambda count: memory.peak(sizes[0], count), limit)
        for size in sizes:
            work.advance()
            peak = memory.peak(size, batch_size) if batch_size <= largest else None
            table.add_row(f"{size[0]} x {size[1]}", "does not fit" if peak is None else f"{peak:.0f}")
    Console().print(table)
    if not largest:
        raise ValueError(advice(sizes[0], 1))
    print(f"The largest that fits {limit:.0f} MiB:")
    print(f"data.batch_size: {largest}")
    return 0


COMMAND = NetworkCommand(
    name="memory",
    help="measure the memory of training steps and find the largest batch size",
    run=measure_memory,
    arguments=add_arguments,
    options=(("--limit_gb N", "of memory: what a step may take; by default 90 % of the available memory"),),
)
