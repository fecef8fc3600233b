"""Writing checkpoints: complete or not at all, and on the disk before the previous one is given up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.pytorch.plugins.io import TorchCheckpointIO

from ocrnet_pl.distributed.first_process import tell
from ocrnet_pl.storage.checkpoints import check_entries, verify_checkpoint, write_checkpoint


def _as_it_is(storage: Any, location: Any) -> Any:
    return storage


class SafeCheckpointIO(TorchCheckpointIO):
    """Writes each file under another name, makes sure that it is on the disk, and only then renames it.

    Whatever happens while it writes, the earlier file of that name remains complete. If the disk refuses, the
    unfinished file is removed, one line says so each time, and training continues.

    Attributes:
        failure: Why the last file could not be written, None if it was; on the process that writes.
    """

    def __init__(self) -> None:
        self.failure: str | None = None

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write a checkpoint; see :attr:`failure` for whether it worked."""
        if "://" in str(path):
            # Object stores show a file only when it is complete.
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        self.failure = None
        try:
            write_checkpoint(checkpoint, path)
        except OSError as error:
            self.failure = f"{path}: {error.strerror or error}"
            tell(f"the checkpoint could not be written ({self.failure}); earlier checkpoints are kept")

    def load_checkpoint(
        self, path: str | Path, map_location: Any = _as_it_is, weights_only: Any = True
    ) -> dict[str, Any]:
        """Verify and load a checkpoint; whatever is requested, and wherever it comes from, nothing in it is executed.

        Raises:
            FileNotFoundError: There is no such file.
            CheckpointError: It is damaged.
        """
        if "://" not in str(path):
            verify_checkpoint(Path(path))
        content: dict[str, Any] = super().load_checkpoint(path, map_location, weights_only=True)
        check_entries(content, path)
        return content
