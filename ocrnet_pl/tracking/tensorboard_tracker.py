"""TensorBoard, in the run's folder, with the pictures and tables of the run."""

from __future__ import annotations

import csv
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from PIL import Image

from ocrnet_pl.tracking.files import ShowsFiles

_SHOWN_ROWS = 50


class TensorBoardTracker(TensorBoardLogger, ShowsFiles):
    """Lightning's TensorBoard logger, which writes into ``tensorboard/`` of the run's folder.

    Besides all figures, it gets the configuration, the pictures of validations, the curves and the tables of the run.
    Look at them with ``tensorboard --logdir runs``.

    Raises:
        ValueError: TensorBoard is not installed.
    """

    def __init__(self) -> None:
        if find_spec("tensorboard") is None:
            raise ValueError("trainer.logger: TensorBoard is not installed; run `pip install tensorboard`")
        # The run's folder replaces it before the first use.
        super().__init__("runs", name="tensorboard", version="", default_hp_metric=False)

    def use_folder(self, folder: Path, name: str) -> None:
        """Write into the run's folder."""
        self._root_dir = str(folder)

    @rank_zero_only
    def log_config(self, config: dict[str, Any]) -> None:
        """Show the configuration as text."""
        import yaml

        text = yaml.safe_dump(config, sort_keys=False)
        self.experiment.add_text("config", "".join(f"    {line}\n" for line in text.splitlines()))

    @rank_zero_only
    def show_file(self, name: str, path: Path, step: int) -> None:
        """Show a picture, or the first rows of a table."""
        if path.suffix == ".csv":
            with path.open(newline="", encoding="utf-8") as file:
                rows = list(csv.reader(file))[: _SHOWN_ROWS + 1]
            if rows:
                lines = [" | ".join(cell.replace("|", "/") for cell in row) for row in rows]
                lines.insert(1, " | ".join("---" for _ in rows[0]))
                self.experiment.add_text(name, "\n".join(lines), step)
            return
        with Image.open(path) as picture:
            self.experiment.add_image(name, np.asarray(picture.convert("RGB")), step, dataformats="HWC")

    @rank_zero_only
    def save(self) -> None:
        """Write what was logged; the hyper-parameters are those of the run's ``config.yaml``."""
        self.experiment.flush()
