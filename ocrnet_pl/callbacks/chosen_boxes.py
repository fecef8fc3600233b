"""The choice of the boxes that ``predict`` gives out."""

from __future__ import annotations

from collections.abc import Sequence

from lightning.pytorch import Callback, LightningModule, Trainer

from ocrnet_pl.distributed.first_process import say
from ocrnet_pl.models.ocrnet import OCRNet


class ChosenBoxes(Callback):
    """Lets ``predict`` give out only the boxes that reach an operating point, of some of the classes.

    Args:
        operating_point: Which boxes of each class count, as in :meth:`OCRNet.predict`.
        classes: Names of the classes whose boxes are given out; empty for all.
    """

    def __init__(self, operating_point: str, classes: Sequence[str]) -> None:
        self.operating_point = operating_point
        self.classes = classes
        self._network: OCRNet | None = None

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Choose, now that the checkpoint is loaded, and say which classes cannot have what is wanted."""
        network = pl_module.network
        assert isinstance(network, OCRNet)
        self._network = network
        lines = list(network.choose(self.operating_point, self.classes))
        note = network.postprocess.passes_note(pl_module.tile or pl_module.multiscale)
        if note is not None:
            lines.append(note)
        for line in lines:
            say(line)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let the network give out all boxes again."""
        if self._network is not None:
            self._network.choose("none")


def least_score(module: LightningModule, given: float) -> float:
    """Return the score from which boxes are shown; those that an operating point leaves are all shown.

    Args:
        module: The module that predicts.
        given: The score that holds without an operating point.
    """
    network = module.network
    assert isinstance(network, OCRNet)
    return 0.0 if network.postprocess.chooses else given
