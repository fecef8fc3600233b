"""Images per second, and the time that is left."""

from __future__ import annotations

import math
import time

from lightning.pytorch import Callback, LightningModule, Trainer

from ocrnet_pl.structures import Batch


class Throughput(Callback):
    """Logs ``train/images_per_s`` over all processes, including the time that it waits for data, without validation.

    What is logged is the mean since it was logged before, so that the curve shows where a run becomes slow.

    Attributes:
        images_per_s: Mean over the run so far; 0 before the second step.
    """

    def __init__(self) -> None:
        self.images_per_s = 0.0
        self._images = 0
        self._seconds = 0.0
        self._last: float | None = None
        # Step, images and seconds when it was logged last.
        self._logged = (0, 0, 0.0)
        self._start, self._first_step = 0.0, 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock of the whole run."""
        self._start, self._first_step = time.monotonic(), trainer.global_step

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock after whatever happened between the epochs."""
        self._last = None

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop the clock."""
        self._last = None

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: Batch, batch_idx: int
    ) -> None:
        """Count the batch; the first one after a pause only starts the clock."""
        now = time.perf_counter()
        if self._last is not None:
            self._images += len(batch) * trainer.world_size
            self._seconds += now - self._last
            self.images_per_s = self._images / self._seconds
            step, images, seconds = self._logged
            # Batches that are accumulated for the next step have the same number.
            # 0: nothing is logged in between.
            every = int(getattr(trainer, "log_every_n_steps", 1))
            if every and trainer.global_step > step and trainer.global_step % every == 0:
                speed = (self._images - images) / (self._seconds - seconds)
                pl_module.log("train/images_per_s", speed, batch_size=1)
                self._logged = (trainer.global_step, self._images, self._seconds)
        self._last = now

    def seconds_left(self, trainer: Trainer) -> float | None:
        """Return the seconds that a training will still take, with its validations; None if they are unknown."""
        done, total = trainer.global_step - self._first_step, trainer.estimated_stepping_batches
        if done < 1 or not math.isfinite(total):
            return None
        return max(0.0, (total - trainer.global_step) * (time.monotonic() - self._start) / done)
