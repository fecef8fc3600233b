"""Early stopping that follows the settings of the run, also of one that continues."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import callbacks


class EarlyStopping(callbacks.EarlyStopping):
    """Lightning's early stopping; a run that continues keeps the count, but uses its own patience."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the best figure and the count, but not the patience."""
        super().load_state_dict(state_dict | {"patience": self.patience})
