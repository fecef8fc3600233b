"""Lightning's display of a run in a terminal, without what is of no use."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable
from typing import Any, TextIO

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelSummary, ProgressBar, RichModelSummary, RichProgressBar

from ocrnet_pl.drawing.progress import is_terminal


class RunBar(RichProgressBar):
    """Lightning's bar, without the number of the run's folder, and of epochs only where there is one."""

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """Return the figures next to the bar."""
        figures: dict[str, Any] = super().get_metrics(trainer, pl_module)
        figures.pop("v_num", None)
        return figures

    def _get_train_description(self, current_epoch: int) -> str:
        # Of a run without a number of epochs, which counts in steps, Lightning makes "Epoch 0/-2".
        return super()._get_train_description(current_epoch).replace("/-2", "   ")


class NetworkSummary(RichModelSummary):
    """Lightning's table of the network's parts, without the operations, which are not counted."""

    @staticmethod
    def summarize(  # type: ignore[override]
        summary_data: list[tuple[str, list[str]]],
        total_parameters: int,
        trainable_parameters: int,
        model_size: float,
        total_training_modes: dict[str, int],
        **_: Any,
    ) -> None:
        """Print the table."""
        from rich import get_console
        from rich.table import Table

        columns = {name: values for name, values in summary_data if name not in (" ", "FLOPs")}
        table = Table(header_style="bold magenta")
        for name in columns:
            table.add_column(name, justify="right" if name == "Params" else "left")
        for row in zip(*columns.values(), strict=True):
            table.add_row(*row)
        console = get_console()
        console.print(table)
        console.print(
            f"{total_parameters:,} parameters, {trainable_parameters:,} of them trainable; {model_size:.1f} MB",
            highlight=False,
        )


def use_own_display(trainer: Trainer, given: Iterable[Any]) -> None:
    """Replace Lightning's bar and table of parts by the project's, unless a config names others.

    Args:
        trainer: The trainer, just built.
        given: The callbacks of the config.
    """
    given = list(given)
    replaced: list[Callback] = []
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if callback in given:
            pass
        elif isinstance(callback, ProgressBar):
            callback = RunBar()
            if not is_terminal():
                callback.disable()
        elif isinstance(callback, ModelSummary):
            callback = NetworkSummary()
        replaced.append(callback)
    trainer.callbacks = replaced  # type: ignore[attr-defined]


def shows_bar(trainer: Trainer) -> bool:
    """Return whether a bar shows the progress of the run."""
    bar = trainer.progress_bar_callback
    return bar is not None and not getattr(bar, "is_disabled", False) and is_terminal()


def stop_bar(trainer: Trainer) -> None:
    """Remove a bar from the terminal before anything is printed there, since it would draw itself once more over it."""
    bar = trainer.progress_bar_callback
    if isinstance(bar, RichProgressBar):
        bar._stop_progress()


class _PresentStderr(logging.StreamHandler[TextIO]):
    """Writes to the error stream at the time of writing: a bar that is shown must know of it."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:  # type: ignore[override]
        """The error stream."""
        return sys.stderr


def log_through_the_bar() -> None:
    """Let Lightning's log go to the current error stream instead of that of its import."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        log = logging.getLogger(name)
        if any(type(handler) is logging.StreamHandler for handler in log.handlers):
            log.handlers = [handler for handler in log.handlers if type(handler) is not logging.StreamHandler]
            log.addHandler(_PresentStderr())
