"""Draws the search for the learning rate into the folder of the run that it was for."""

from __future__ import annotations

from collections.abc import Sequence

from lightning.pytorch import Callback, LightningModule, Trainer

from ocrnet_pl.callbacks.run_folder import run_folder
from ocrnet_pl.drawing import plots
from ocrnet_pl.storage.files import records

CURVE = "learning_rate.png"


class RateSearch(Callback):
    """Writes ``learning_rate.png`` as the run begins.

    Args:
        rates: The learning rates that were tried.
        losses: The smoothed loss at each.
        chosen: The rate that was chosen.
    """

    def __init__(self, rates: Sequence[float], losses: Sequence[float], chosen: float) -> None:
        self.rates = list(rates)
        self.losses = list(losses)
        self.chosen = chosen

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw the curve, on the first process."""
        folder = run_folder(trainer)
        if folder is not None and trainer.is_global_zero:
            with records(CURVE):
                plots.plot_rate_search(self.rates, self.losses, self.chosen, folder / CURVE)
