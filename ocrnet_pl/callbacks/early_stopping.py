"""Early stopping whose settings are those of the run, also of one that continues."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import callbacks


class EarlyStopping(callbacks.EarlyStopping):
    """Lightning's early stopping; a run that continues counts on, but has a patience of its own."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the best figure and how long it has been, and leave the patience as it was given."""
        super().load_state_dict(state_dict | {"patience": self.patience})
