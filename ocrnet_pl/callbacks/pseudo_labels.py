"""Confident predictions as labels to train on; what is doubtful is left unlabelled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ocrnet_pl.callbacks.process_lines import ProcessLines, refuse_equal_stems
from ocrnet_pl.callbacks.progress import stop_bar
from ocrnet_pl.imaging.run_lengths import encode_instances
from ocrnet_pl.storage.files import complete_file, write_json
from ocrnet_pl.structures import IGNORE_INDEX, Batch, Prediction, Predictions, Taxonomy

_FEW_PIXELS = 0.05
"""Share of certain pixels below which an image without certain objects teaches nothing."""


@dataclass(frozen=True)
class Certainty:
    """Decides which predictions become labels.

    Attributes:
        score: Score from which an object is a label, above 0 to 1.
        scores: Scores of single classes by name, instead of ``score``.
        doubt: Score from which an object below that is doubtful: neither a target nor background, 0 to 1.
        pixel: Probability from which a pixel is labelled, 0 to 1; the others are ignored.
        pixels: Probabilities of single classes by name, instead of ``pixel``.

    Raises:
        ValueError: A number is out of range.
    """

    score: float = 0.6
    scores: dict[str, float] = field(default_factory=dict)
    doubt: float = 0.1
    pixel: float = 0.9
    pixels: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        every = {"score": self.score, "doubt": self.doubt, "pixel": self.pixel}
        every |= {f"scores.{name}": value for name, value in self.scores.items()}
        every |= {f"pixels.{name}": value for name, value in self.pixels.items()}
        for name, value in every.items():
            if not 0 <= value <= 1:
                raise ValueError(f"certainty.{name}: expected 0 to 1, got {value}")

    def of_boxes(self, taxonomy: Taxonomy) -> Tensor:
        """Return the score of each detection class.

        Raises:
            ValueError: A class has no boxes.
        """
        names = [category.name for category in taxonomy.detection_categories]
        return torch.tensor(_by_name("scores", self.scores, names, self.score), dtype=torch.float32)

    def of_pixels(self, taxonomy: Taxonomy) -> Tensor:
        """Return the probability of each segmentation class.

        Raises:
            ValueError: A class has no pixels.
        """
        names = [category.name for category in taxonomy.semantic_categories]
        return torch.tensor(_by_name("pixels", self.pixels, names, self.pixel), dtype=torch.float32)


def _by_name(option: str, given: Mapping[str, float], names: list[str], default: float) -> list[float]:
    for name in given:
        if name not in names:
            raise ValueError(f"certainty.{option}: there is no class {name!r} with {option}; there are {names[:20]}")
    return [given.get(name, default) for name in names]


@dataclass(frozen=True)
class PseudoLabels:
    """The labels of one image.

    Attributes:
        annotations: COCO annotations without numbers; doubtful objects are crowds.
        semantic: uint8 [H, W] of segmentation classes, 255 where it is doubtful; None without pixels.
        worth: Whether there is anything to learn from the image.
    """

    annotations: list[dict[str, Any]]
    semantic: NDArray[np.uint8] | None
    worth: bool


def pseudo_labels(best: Prediction, raw: Prediction, taxonomy: Taxonomy, certainty: Certainty) -> PseudoLabels:
    """Return what is certain of a prediction.

    A pixel of a detected class is labelled only inside a certain object; every other one if its class is certain and
    not changed by fusion.

    Args:
        best: The prediction after fusion.
        raw: The prediction before fusion, with the probabilities of the pixels.
        taxonomy: Categories of the network.
        certainty: Decides what is certain.
    """
    scores, labels = best.scores.cpu(), best.labels.cpu()
    certain = scores >= certainty.of_boxes(taxonomy)[labels] if len(labels) else scores > 1
    doubtful = ~certain & (scores >= certainty.doubt)
    masks: list[bytes] = []
    if best.instances is not None:
        masks, areas = encode_instances(best.instances, len(scores))
    annotations: list[dict[str, Any]] = []
    for row in (certain | doubtful).nonzero()[:, 0].tolist():
        x1, y1, x2, y2 = (float(side) for side in best.boxes[row])
        entry: dict[str, Any] = {
            "category_id": int(labels[row]) + 1,
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "area": (x2 - x1) * (y2 - y1),
            "iscrowd": int(doubtful[row]),
            "score": float(scores[row]),
        }
        if best.instances is not None and areas[row]:
            entry["segmentation"] = {"size": list(best.instances.shape), "counts": masks[row].decode("ascii")}
            entry["area"] = float(areas[row])
        annotations.append(entry)
    semantic = _certain_pixels(best, raw, taxonomy, certainty, certain)
    labelled = 0.0 if semantic is None else float((semantic != IGNORE_INDEX).mean())
    return PseudoLabels(annotations, semantic, bool(certain.any()) or labelled >= _FEW_PIXELS)


def _certain_pixels(
    best: Prediction, raw: Prediction, taxonomy: Taxonomy, certainty: Certainty, certain: Tensor
) -> NDArray[np.uint8] | None:
    if best.semantic is None or raw.semantic is None or raw.certainty is None:
        return None
    semantic, before = best.semantic.cpu().long(), raw.semantic.cpu().long()
    least = certainty.of_pixels(taxonomy)
    detected = torch.tensor([category.detection is not None for category in taxonomy.semantic_categories])
    keep = (semantic == before) & (raw.certainty.cpu().float() >= least[semantic]) & ~detected[semantic]
    result = torch.where(keep, semantic, IGNORE_INDEX)
    if best.instances is not None:
        instances = best.instances.cpu().long()
        of_row = torch.full((len(certain) + 1,), -1)
        classes = torch.tensor([*taxonomy.detection_to_semantic, -1])[best.labels.cpu()]
        of_row[1:] = torch.where(certain, torch.where(classes < 0, IGNORE_INDEX, classes), IGNORE_INDEX)
        drawn = of_row[instances]
        result = torch.where(drawn >= 0, drawn, result)
    return np.asarray(result.to(torch.uint8))


class PseudoLabelWriter(Callback):
    """Writes what ``predict`` is certain of as COCO instances and semantic PNGs.

    Args:
        folder: Folder of the labels.
        certainty: Decides what is certain.

    Attributes:
        counts: Number of images, of those that are worth nothing, and of certain and doubtful objects, at the end.
    """

    def __init__(self, folder: Path, certainty: Certainty) -> None:
        self.folder = folder
        self.certainty = certainty
        self.counts = (0, 0, 0, 0)

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open the file for this process's lines."""
        refuse_equal_stems(trainer, "labels")
        self._lines(trainer).start()

    def _lines(self, trainer: Trainer) -> ProcessLines:
        return ProcessLines(self.folder, trainer.global_rank)

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
        taxonomy = pl_module.taxonomy
        assert isinstance(outputs, Predictions) and isinstance(taxonomy, Taxonomy)
        lines = []
        for best, raw, truth in zip(outputs.best, outputs.raw, batch.truths, strict=True):
            found = pseudo_labels(best, raw, taxonomy, self.certainty)
            height, width = truth.size
            image = {"file_name": str(best.image_id), "height": height, "width": width}
            if found.worth and found.semantic is not None:
                with complete_file(self.folder / "semantic" / Path(str(best.image_id)).with_suffix(".png")) as file:
                    Image.fromarray(found.semantic).save(file, format="PNG")
            entry = {"image": image, "annotations": found.annotations, "worth": found.worth}
            lines.append((str(best.image_id), entry))
        self._lines(trainer).add(lines)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Join the processes' images."""
        trainer.strategy.barrier()
        if not trainer.is_global_zero:
            return
        taxonomy = pl_module.taxonomy
        assert isinstance(taxonomy, Taxonomy)
        found = self._lines(trainer).joined()
        found.sort(key=lambda each: each["image"]["file_name"])
        worth = [each for each in found if each["worth"]]
        images = [{"id": number, **each["image"]} for number, each in enumerate(worth, 1)]
        rows = [(number, row) for number, each in enumerate(worth, 1) for row in each["annotations"]]
        annotations = [{"id": position, "image_id": number, **row} for position, (number, row) in enumerate(rows, 1)]
        categories = [{"id": i, "name": c.name} for i, c in enumerate(taxonomy.detection_categories, 1)]
        content = {"images": images, "annotations": annotations, "categories": categories}
        write_json(self.folder / "instances.json", content)
        doubtful = sum(row["iscrowd"] for _, row in rows)
        self.counts = (len(found), len(found) - len(worth), len(rows) - doubtful, doubtful)
        self._lines(trainer).remove()
        stop_bar(trainer)
