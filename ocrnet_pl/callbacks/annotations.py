"""Predictions as annotations to correct in a labelling tool."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer

from ocrnet_pl.callbacks.chosen_boxes import least_score
from ocrnet_pl.callbacks.process_lines import LineWriter, refuse_equal_stems
from ocrnet_pl.callbacks.progress import stop_bar
from ocrnet_pl.callbacks.run_folder import run_folder
from ocrnet_pl.inference.disagreements import Disagreement, Finder
from ocrnet_pl.inference.uncertainty import uncertainty
from ocrnet_pl.labelling.base import AnnotationFormat
from ocrnet_pl.labelling.shapes import LabelledImage, shapes_of
from ocrnet_pl.storage.files import complete_file
from ocrnet_pl.structures import Batch, Prediction, Predictions, Sample, Taxonomy

_COLUMNS = ("image", "disagreement", "uncertainty", "remarks")


class AnnotationWriter(LineWriter):
    """Writes what ``predict`` finds in the formats of labelling tools, each in its folder below ``<run>/annotations``.

    The images that deserve a look come first: those in which boxes and pixels contradict each other, by the strongest
    contradiction, then the others, by how unsure the network is. ``ranking.csv`` lists all of them.

    Args:
        formats: The formats, such as ``LabelStudio``; null for none. ``predict --format`` sets them by short names.
        min_score: Score from which an object becomes a shape, 0 to 1; with an operating point, all become one.
        finder: Decides what counts as a contradiction of boxes and pixels.

    Raises:
        ValueError: The score is out of range, or a format is given twice.
    """

    def __init__(
        self, formats: list[AnnotationFormat] | None = None, min_score: float = 0.3, finder: Finder = Finder()
    ) -> None:
        if not 0 <= min_score <= 1:
            raise ValueError(f"annotations.min_score: expected 0 to 1, got {min_score}")
        self.formats = formats or []
        folders = [each.folder for each in self.formats]
        for name in folders:
            if folders.count(name) > 1:
                raise ValueError(f"annotations.formats: {name} is given twice; its files would overwrite each other")
        self.min_score = min_score
        self.finder = finder

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Find the run's folder."""
        folder = run_folder(trainer) if self.formats and stage == "predict" else None
        self._folder = None if folder is None else folder / "annotations"

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse images whose files would overwrite each other, and open the file for this process's lines.

        Raises:
            DataError: There are such images.
        """
        by_stem = [each.folder for each in self.formats if each.by_stem]
        if by_stem:
            refuse_equal_stems(trainer, f"files of {by_stem[0]}")
        super().on_predict_start(trainer, pl_module)

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Write one batch."""
        if self._folder is None or not isinstance(outputs, Predictions):
            return
        taxonomy = pl_module.taxonomy
        assert isinstance(taxonomy, Taxonomy)
        least = least_score(pl_module, self.min_score)
        lines = []
        for best, raw, truth in zip(outputs.best, outputs.raw, batch.truths, strict=True):
            image = self.labelled(best, raw, truth, taxonomy, least)
            bare = replace(image, shapes=[replace(s, mask=None) for s in image.shapes if s.is_thing])
            entries = [
                each.write(image if each.masks else bare, taxonomy, self._folder / each.folder) for each in self.formats
            ]
            row = [image.name, image.disagreement, image.uncertainty, "; ".join(image.remarks)]
            lines.append((image.name, {"order": image.order, "row": row, "entries": entries}))
        self._lines(trainer).add(lines)

    def labelled(
        self, best: Prediction, raw: Prediction, truth: Sample, taxonomy: Taxonomy, least: float | None = None
    ) -> LabelledImage:
        """Return an image's shapes, and how much it deserves a look.

        Args:
            best: The prediction to draw.
            raw: The prediction before fusion, whose decoders may contradict each other.
            truth: The image.
            taxonomy: Categories of the network.
            least: Score from which an object becomes a shape, instead of ``min_score``; None for that.
        """
        found = sorted(self.finder(raw, truth, taxonomy), key=lambda each: (-each.rank, each.box))
        return LabelledImage(
            name=str(best.image_id),
            path=truth.path,
            size=truth.size,
            shapes=shapes_of(best, taxonomy, self.min_score if least is None else least),
            uncertainty=uncertainty(raw),
            disagreement=found[0].rank if found else 0.0,
            remarks=tuple(_remark(each) for each in found[:10]),
        )

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Join the processes' images, those that deserve a look first."""
        trainer.strategy.barrier()
        if self._folder is None or not trainer.is_global_zero:
            return
        taxonomy = pl_module.taxonomy
        assert isinstance(taxonomy, Taxonomy)
        found = self._lines(trainer).joined()
        found.sort(key=lambda each: each["order"])
        for number, each in enumerate(self.formats):
            each.finish([entry["entries"][number] for entry in found], taxonomy, self._folder / each.folder)
        _write_rows(self._folder / "ranking.csv", [entry["row"] for entry in found])
        stop_bar(trainer)
        print(f"Annotations: {self._folder}")


def _remark(found: Disagreement) -> str:
    x1, y1, x2, y2 = (round(side) for side in found.box)
    return f"{found.kind}: {found.category} at {x1},{y1} to {x2},{y2}"


def _write_rows(path: Path, rows: Sequence[Sequence[Any]]) -> None:
    with complete_file(path) as unfinished, unfinished.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(_COLUMNS)
        writer.writerows([name, round(rank, 2), round(unsure, 4), remarks] for name, rank, unsure, remarks in rows)
