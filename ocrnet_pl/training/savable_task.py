"""Tasks that are kept in checkpoints: what these contain besides the weights, and how a task is built again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.trainer.states import TrainerFn

from ocrnet_pl.errors import CheckpointError
from ocrnet_pl.models.network_parts import PARTS
from ocrnet_pl.models.ocrnet import OCRNet
from ocrnet_pl.models.rebuilding import load_calibration, load_fusion_settings
from ocrnet_pl.storage.checkpoints import VERSIONS_KEY, misfit, read_checkpoint, versions
from ocrnet_pl.storage.saved_network import UNRECORDED_KEY, saved_network
from ocrnet_pl.storage.size_limit import bounded_by
from ocrnet_pl.storage.trusted_classes import build_parts, rebuilt, trusted_packages
from ocrnet_pl.structures import CALIBRATION_KEY, FUSION_KEY
from ocrnet_pl.training.continuing import Continuing
from ocrnet_pl.training.hyperparameters import argument_types, given_arguments
from ocrnet_pl.training.origin import KEPT_KEY, Origin
from ocrnet_pl.training.resume import PRETRAINED_KEY


class SavableTask(LightningModule):
    """The checkpoints of :class:`~ocrnet_pl.training.task.OCRNetTask`, which sets what is declared here."""

    network: OCRNet
    origin: Origin | None
    _continuing: Continuing
    _unrecorded: dict[str, str]

    @classmethod
    def load_from_checkpoint(  # type: ignore[override]
        cls,
        checkpoint_path: str | Path,
        map_location: str | torch.device = "cpu",
        trust: str | Sequence[str] = (),
        **changes: Any,
    ) -> Self:
        """Rebuild the task of a run from its checkpoint, with the averaged weights where training kept an average.

        Lightning's own way would build any class that the file names. Like :meth:`OCRNet.from_checkpoint`, this method
        builds only the package's own classes, torch's optimisers, and classes of trusted packages. To continue
        training, give the checkpoint to the trainer instead.

        Args:
            checkpoint_path: Path of a checkpoint that training wrote.
            map_location: Device for the weights.
            trust: Packages of your own whose classes the checkpoint may name.
            changes: Arguments of the task that replace what the checkpoint has.

        Raises:
            FileNotFoundError: There is no such file.
            CheckpointError: It is damaged, not a checkpoint of this project, or names a class that is not trusted.
            ValueError: ``trust`` names something that is not a package.
        """
        trusted_packages(trust)
        where = f"checkpoint {str(checkpoint_path)!r}"
        content = read_checkpoint(checkpoint_path, map_location)
        saved = saved_network(content, where)
        kinds = argument_types(cls)
        known = {*saved.parts, *saved.unrecorded, *PARTS} - {*changes}
        chosen = {name: kind for name, kind in kinds.items() if name in known}
        own: dict[str, Any] = {"taxonomy": saved.taxonomy, "input_size": saved.input_size}
        with bounded_by(saved.weights):
            parts = build_parts(saved.parts, chosen, trust, f"{where}: hyper_parameters", saved.unrecorded)
        with bounded_by(saved.weights), given_arguments({name: saved.parts[name] for name in parts}):
            task = rebuilt(lambda: cls(**own | parts | changes), where)
        task.on_load_checkpoint(content)
        task.load_state_dict(saved.weights)
        return task.to(map_location)

    @property
    def _keeps_classes(self) -> bool:
        """Whether the network has classes that the data is not labelled for."""
        return bool(getattr(getattr(self.trainer, "datamodule", None), "widened", False))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what prediction and a run that continues need besides the weights, and the versions of what wrote them.

        A run that continues may start without the encoder's weights file, but not lose the lower rate that goes with
        it.
        """
        if self._continuing.save(self.trainer, checkpoint):
            checkpoint[PRETRAINED_KEY] = self.network.encoder.pretrained
        checkpoint[VERSIONS_KEY] = versions()
        checkpoint["taxonomy"] = self.network.taxonomy.to_dict()
        checkpoint["input_size"] = list(self.network.input_size)
        if self._unrecorded:
            checkpoint[UNRECORDED_KEY] = dict(self._unrecorded)
        if self.origin is not None:
            self.origin.save(checkpoint)
        if self._keeps_classes:
            checkpoint[KEPT_KEY] = True

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Apply what calibration found, unless training continues, after which it is no longer valid.

        Raises:
            CheckpointError: The weights are not those of this network, or its rates cannot become the checkpoint's.
        """
        # A strategy that shards the weights has loaded and taken them out before.
        if "state_dict" in checkpoint:
            fits = {name: value.shape for name, value in self.state_dict().items()}
            given = {name: value.shape for name, value in checkpoint["state_dict"].items()}
            if fits != given:
                raise CheckpointError(misfit("the checkpoint", fits, given, checkpoint))
        if self._trainer and self._trainer.state.fn == TrainerFn.FITTING:
            self._continuing.restore(self._trainer, checkpoint)
            self.origin = Origin.restored(checkpoint, self.network)
            encoder = self.network.encoder
            pretrained = bool(checkpoint.get(PRETRAINED_KEY, encoder.pretrained))
            if self._trainer.strategy.restore_checkpoint_after_setup and pretrained != encoder.pretrained:
                raise CheckpointError(
                    f"the checkpoint: its encoder counts as {'pretrained' if pretrained else 'random'}, and the rates "
                    "of sharded weights are set before it is loaded; before fit, set task.network.encoder.pretrained "
                    f"to {pretrained}"
                )
            encoder.pretrained = pretrained
            return
        if FUSION_KEY in checkpoint:
            load_fusion_settings(self.network, checkpoint[FUSION_KEY], "the checkpoint")
        if CALIBRATION_KEY in checkpoint:
            load_calibration(self.network, checkpoint[CALIBRATION_KEY], "the checkpoint")
