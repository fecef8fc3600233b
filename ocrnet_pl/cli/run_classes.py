"""The classes of a run's network: those of its data, or of the checkpoint that it reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ocrnet_pl.callbacks.save_config import classes_to_keep
from ocrnet_pl.cli.initial_weights import StartingWeights
from ocrnet_pl.cli.preflight import check_classes
from ocrnet_pl.data.datamodule import JointDataModule
from ocrnet_pl.storage.saved_network import saved_taxonomy
from ocrnet_pl.structures import Taxonomy


@dataclass
class RunClasses:
    """Whose classes the network gets; those of the data, where nothing else is known.

    Attributes:
        starting: The weights that the run starts from.
        kept: Classes of a checkpoint that has more than its data; the data is not labelled for these.
        predicted: Classes of the checkpoint that predicts, without labelled data.
        evaluated: Classes of the checkpoint that is evaluated, which are to be those of the data.
    """

    starting: StartingWeights | None = None
    kept: Taxonomy | None = None
    predicted: Taxonomy | None = None
    evaluated: Taxonomy | None = None

    def read(self, content: Mapping[str, Any], where: str, subcommand: str) -> None:
        """Take the classes of a checkpoint that a subcommand other than ``fit`` reads.

        Args:
            content: Content of the checkpoint.
            where: Name of the file for error messages.
            subcommand: The subcommand.

        Raises:
            CheckpointError: Its categories are not what training writes.
        """
        if subcommand == "predict":
            self.predicted = saved_taxonomy(content, where)
            return
        self.kept = classes_to_keep(content, where)
        if "taxonomy" in content and subcommand in ("validate", "test"):
            self.evaluated = saved_taxonomy(content, where)

    def of(self, data: JointDataModule) -> Taxonomy:
        """Return the categories of the network.

        Raises:
            DataError: The data has other classes than the checkpoint that is evaluated on it.
        """
        if self.starting is not None:
            return self.starting.taxonomy(data)
        if self.kept is not None:
            data.widen(self.kept)
        if self.evaluated is not None:
            check_classes(data.taxonomy, self.evaluated)
        return self.predicted or data.taxonomy
