"""Predictions to files, batch by batch."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch import LightningModule, Trainer
from PIL import Image

from ocrnet_pl.callbacks.chosen_boxes import least_score
from ocrnet_pl.callbacks.process_lines import LineWriter
from ocrnet_pl.callbacks.progress import stop_bar
from ocrnet_pl.callbacks.run_folder import run_folder
from ocrnet_pl.drawing.overlays import draw_prediction, drawn_categories, with_legend, write_png
from ocrnet_pl.storage.files import complete_file, write_json
from ocrnet_pl.structures import Batch, Prediction, Predictions, Taxonomy


class PredictionWriter(LineWriter):
    """Writes the results of ``predict`` into ``<run>/predictions/``, at the images' original sizes.

    Per image, below the folders ``overlay``, ``semantic`` and ``panoptic`` and under the image's own path:

    - an overlay to look at, with the colours of its classes below;
    - the semantic map, a palette PNG of segmentation classes;
    - the panoptic map, a PNG in COCO's coding (``id = R + 256 G + 65536 B``, 0 = void).

    For all images together ``images.json``, COCO's list of the images, numbered from 1 in the order of their paths,
    ``predictions.json`` in COCO's results format (``image_id`` is that number, ``category_id`` counts the detection
    classes from 1), ``panoptic.json`` with the segments of each image, ``categories.json``, and, of a checkpoint whose
    scores are probabilities, ``counts.csv`` with the expected number of objects of each class in each image. Each
    process writes its own images; the first joins these files at the end. What each process found stays in
    the hidden folder ``.parts``, with which ``--resume`` goes on.

    Args:
        min_score: Score below which boxes are written to the JSON but not drawn, 0 to 1; with an operating point, all
            that are written are drawn.
        overlays: Whether overlays are drawn.

    Raises:
        ValueError: The score is out of range.
    """

    def __init__(self, min_score: float = 0.3, overlays: bool = True) -> None:
        if not 0 <= min_score <= 1:
            raise ValueError(f"prediction.min_score: expected 0 to 1, got {min_score}")
        self.min_score = min_score
        self.overlays = overlays

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Find the run's folder."""
        folder = run_folder(trainer)
        self._folder = None if folder is None else folder / "predictions"

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
        for prediction, truth in zip(outputs.best, batch.truths, strict=True):
            name = f"{prediction.image_id}.png"
            if self.overlays:
                picture = draw_prediction(truth.image, prediction, taxonomy, threshold=least, min_side=0)
                legend = drawn_categories(taxonomy, truth, [prediction], threshold=least)
                write_png(with_legend(picture, legend), self._folder / "overlay" / name)
            self._write_maps(prediction, taxonomy, name)
            height, width = truth.size
            entry = {
                "source": file_state(Path(truth.path)),
                "kinds": self._kinds(prediction),
                "image": {"file_name": str(prediction.image_id), "height": height, "width": width},
                "results": prediction.to_coco(),
                "counts": _counts(prediction, taxonomy),
                "panoptic": _segments(prediction, taxonomy, name),
            }
            lines.append((str(prediction.image_id), entry))
        self._lines(trainer).add(lines)

    def _kinds(self, prediction: Prediction) -> list[str]:
        """Return the folders that an image has a file in."""
        there = {
            "overlay": self.overlays,
            "semantic": prediction.semantic is not None,
            "panoptic": prediction.panoptic is not None,
        }
        return [kind for kind, is_there in there.items() if is_there]

    def _write_maps(self, prediction: Prediction, taxonomy: Taxonomy, name: str) -> None:
        assert self._folder is not None
        if prediction.semantic is not None:
            picture = Image.fromarray(prediction.semantic.cpu().numpy(), mode="P")
            picture.putpalette([value for c in taxonomy.semantic_categories for value in c.color])
            with complete_file(self._folder / "semantic" / name) as temporary:
                picture.save(temporary, format="PNG")
        if prediction.panoptic is not None:
            ids = prediction.panoptic.cpu().numpy().astype(np.int64)
            coded = np.stack((ids % 256, ids // 256 % 256, ids // 65536), -1).astype(np.uint8)
            with complete_file(self._folder / "panoptic" / name) as temporary:
                Image.fromarray(coded).save(temporary, format="PNG")

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Join the processes' lines."""
        trainer.strategy.barrier()
        if self._folder is None or not trainer.is_global_zero:
            return
        entries = self._lines(trainer).joined()
        # By path, so that the numbers do not depend on the number of processes.
        entries.sort(key=lambda entry: entry["image"]["file_name"])
        images = [{"id": number, **entry["image"]} for number, entry in enumerate(entries, 1)]
        results = [{**row, "image_id": number} for number, entry in enumerate(entries, 1) for row in entry["results"]]
        panoptic = [
            {**entry["panoptic"], "image_id": number}
            for number, entry in enumerate(entries, 1)
            if entry["panoptic"] is not None
        ]
        taxonomy = pl_module.taxonomy
        assert isinstance(taxonomy, Taxonomy)
        counts = [[entry["image"]["file_name"], *row] for entry in entries for row in entry["counts"]]
        if counts:
            _write_counts(self._folder / "counts.csv", counts)
        write_json(self._folder / "images.json", images)
        write_json(self._folder / "predictions.json", results)
        write_json(self._folder / "panoptic.json", panoptic)
        write_json(
            self._folder / "categories.json",
            {
                "detection": [{"id": i, "name": c.name} for i, c in enumerate(taxonomy.detection_categories, 1)],
                "semantic": [{"id": i, "name": c.name} for i, c in enumerate(taxonomy.semantic_categories)],
                "panoptic": [
                    {"id": i, "name": c.name, "isthing": int(c.is_thing), "color": list(c.color)}
                    for i, c in enumerate(taxonomy.categories, 1)
                ],
            },
        )
        stop_bar(trainer)
        print(f"Predictions: {self._folder}")


def file_state(path: Path) -> list[int] | None:
    """Return what tells whether an image was changed, its size and time; None if there is no such file."""
    try:
        status = path.stat()
    except OSError:
        return None
    return [status.st_size, status.st_mtime_ns]


def _counts(prediction: Prediction, taxonomy: Taxonomy) -> list[list[Any]]:
    """Return a row for each class that can be counted: its name, the expected number, and the ends of the interval."""
    if prediction.counts is None:
        return []
    rows = zip(taxonomy.detection_categories, prediction.counts.tolist(), strict=True)
    return [
        [category.name, round(expected, 2), *("" if math.isnan(end) else int(end) for end in ends)]
        for category, (expected, *ends) in rows
        if not math.isnan(expected)
    ]


def _write_counts(path: Path, rows: Sequence[Sequence[Any]]) -> None:
    with complete_file(path) as unfinished, unfinished.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("image", "class", "expected", "low", "high"))
        writer.writerows(rows)


def _segments(prediction: Prediction, taxonomy: Taxonomy, name: str) -> dict[str, Any] | None:
    if prediction.panoptic is None:
        return None
    return {
        "image_id": prediction.image_id,
        "file_name": name,
        "segments_info": [
            {
                "id": segment.id,
                "category_id": segment.category + 1,
                "isthing": int(taxonomy.categories[segment.category].is_thing),
                "area": segment.area,
                "score": segment.score,
            }
            for segment in prediction.segments
        ],
    }
