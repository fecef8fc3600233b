"""Lists where boxes and pixels contradict each other: the likely errors of the labels and of the network."""

from __future__ import annotations

import base64
import csv
import heapq
import itertools
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from PIL import Image, ImageDraw
from torch import Tensor
from torchvision.transforms.v2.functional import pil_to_tensor, to_pil_image

from ocrnet_pl.callbacks.process_lines import ProcessLines
from ocrnet_pl.callbacks.run_folder import run_folder
from ocrnet_pl.distributed.gather import compute_on_first
from ocrnet_pl.drawing.overlays import write_png
from ocrnet_pl.inference.disagreements import Disagreement, Finder
from ocrnet_pl.storage.files import complete_file
from ocrnet_pl.structures import Batch, Predictions, Sample, Taxonomy
from ocrnet_pl.tracking.files import show_files
from ocrnet_pl.tracking.wandb_tracker import WandbTracker

COLUMNS = ("image", "kind", "category", "box", "score", "area", "labels")

_TILE, _CAPTION, _COLUMNS = 160, 34, 4


class _Entry(NamedTuple):
    found: Disagreement
    tile: Tensor
    """uint8 [3, H, W]: the place as it looks, and with the pixels of the class."""


class Disagreements(Callback):
    """Writes ``disagreements.csv`` and a sheet of pictures, ``disagreements.png``, after validate, test and predict.

    The rows are ranked by confidence times size. If there are labels, ``labels`` says which side they agree with. Look
    first at rows where the labels contradict themselves as well (``neither``), or agree with the side that looks wrong.
    Weights & Biases gets the same table. Nothing is done in training.

    Args:
        enabled: Whether anything is listed.
        rows: Largest number of rows, at least 1.
        pictures: Number of first rows that get a picture; 0 for none.
        finder: Decides what counts as a contradiction.

    Raises:
        ValueError: A number is out of range.
    """

    def __init__(self, enabled: bool = True, rows: int = 200, pictures: int = 24, finder: Finder = Finder()) -> None:
        if rows < 1 or pictures < 0:
            raise ValueError("disagreements: rows must be at least 1 and pictures at least 0")
        self.enabled = enabled
        self.rows = rows
        self.pictures = pictures
        self.finder = finder
        self._folder: Path | None = None
        # The worst first, so that it can be replaced; the number decides between equals.
        self._best: list[tuple[float, int, _Entry]] = []
        self._number = itertools.count(0, -1)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Get the run's folder, on all processes."""
        self._folder, self._best = None, []
        if self.enabled and trainer.state.fn != TrainerFn.FITTING:
            self._folder = run_folder(trainer)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Examine the batch."""
        self._look(pl_module, outputs, batch)

    on_test_batch_end = on_validation_batch_end

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Go on with what an earlier start of the run has found."""
        if self._folder is None:
            return
        lines = ProcessLines(self._folder, trainer.global_rank)
        for entry in itertools.chain.from_iterable(lines.own()):
            self._keep(
                _Entry(Disagreement(**entry["found"] | {"box": tuple(entry["found"]["box"])}), _unpacked(entry["tile"]))
            )
        lines.start()

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Examine the batch."""
        images = self._look(pl_module, outputs, batch)
        if self._folder is not None:
            ids = [str(image_id) for image_id in batch.image_ids] if images else []
            lines = [[{"found": asdict(entry.found), "tile": _packed(entry.tile)} for entry in kept] for kept in images]
            ProcessLines(self._folder, trainer.global_rank).add(zip(ids, lines, strict=True))

    def _look(self, pl_module: LightningModule, outputs: Any, batch: Any) -> list[list[_Entry]]:
        """Return what is listed for now, for each image of a batch."""
        if self._folder is None or not isinstance(outputs, Predictions) or not isinstance(batch, Batch):
            return []
        images: list[list[_Entry]] = []
        taxonomy = pl_module.taxonomy
        assert isinstance(taxonomy, Taxonomy)
        indices = {c.name: c.semantic for c in taxonomy.categories if c.semantic is not None}
        colors = {c.name: c.color for c in taxonomy.categories}
        for prediction, truth in zip(outputs.raw, batch.truths, strict=True):
            images.append([])
            for found in self.finder(prediction, truth, taxonomy):
                if len(self._best) == self.rows and found.rank <= self._best[0][0]:
                    continue
                assert prediction.semantic is not None
                mine = prediction.semantic.cpu().eq(indices[found.category])
                entry = _Entry(found, _tile(truth, mine, found, colors))
                self._keep(entry)
                images[-1].append(entry)
        return images

    def _keep(self, entry: _Entry) -> None:
        """Add an entry, in place of the last one if there are too many."""
        ranked = (entry.found.rank, next(self._number), entry)
        if len(self._best) < self.rows:
            heapq.heappush(self._best, ranked)
        elif ranked[0] > self._best[0][0]:
            heapq.heapreplace(self._best, ranked)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the table and the pictures."""
        self._finish(trainer)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the table and the pictures."""
        self._finish(trainer)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the table and the pictures."""
        self._finish(trainer)

    def _finish(self, trainer: Trainer) -> None:
        if self._folder is None:
            return
        own, self._best = [entry for _, _, entry in self._best], []
        gathered: list[_Entry] = []
        compute_on_first(own, lambda parts: gathered.extend(entry for part in parts for entry in part))
        if not trainer.is_global_zero:
            return
        # By name among equals, so that the order does not depend on the number of processes.
        gathered.sort(key=lambda entry: (-entry.found.rank, entry.found.image, entry.found.box))
        gathered = gathered[: self.rows]
        rows = [_row(entry.found) for entry in gathered]
        with (
            complete_file(self._folder / "disagreements.csv") as temporary,
            temporary.open("w", encoding="utf-8", newline="") as file,
        ):
            writer = csv.writer(file)
            writer.writerow(COLUMNS)
            writer.writerows(rows)
        shown = gathered[: self.pictures]
        if shown:
            write_png(contact_sheet(shown), self._folder / "disagreements.png")
            files = {f"disagreements/{kind}": self._folder / f"disagreements.{kind}" for kind in ("csv", "png")}
            show_files(trainer.loggers, files, trainer.global_step)
        for logger in trainer.loggers:
            if isinstance(logger, WandbTracker) and rows:
                logger.show({"disagreements": partial(_table, rows)}, trainer.global_step)


def _table(rows: Sequence[Sequence[Any]]) -> Any:
    """Return the rows as a table of Weights & Biases."""
    import wandb

    return wandb.Table(columns=list(COLUMNS), data=[list(row) for row in rows])


def _row(found: Disagreement) -> tuple[str | float, ...]:
    box = " ".join(f"{value:.1f}" for value in found.box)
    return found.image, found.kind, found.category, box, round(found.score, 4), round(found.area, 1), found.labels


def _tile(truth: Sample, mine: Tensor, found: Disagreement, colors: dict[str, tuple[int, int, int]]) -> Tensor:
    """Draw the place with its surroundings, and again with the pixels of the class."""
    image = truth.image.detach().as_subclass(Tensor).cpu()
    image = image[:3] if image.shape[0] >= 3 else image[:1].expand(3, -1, -1)
    height, width = image.shape[-2:]
    x1, y1, x2, y2 = found.box
    # A square of twice the longer side.
    half = max(x2 - x1, y2 - y1, 16.0)
    left, top = max(0, int((x1 + x2) / 2 - half)), max(0, int((y1 + y2) / 2 - half))
    right, bottom = min(width, int((x1 + x2) / 2 + half) + 1), min(height, int((y1 + y2) / 2 + half) + 1)
    part = image[:, top:bottom, left:right]
    color = torch.tensor(colors[found.category], dtype=torch.uint8)[:, None, None]
    tinted = torch.where(mine[top:bottom, left:right], (part // 2 + color // 2), part)
    scale = _TILE / max(right - left, bottom - top)
    size = max(1, round((right - left) * scale)), max(1, round((bottom - top) * scale))
    tile = Image.new("RGB", (2 * _TILE, _TILE), (255, 255, 255))
    for place, content in enumerate((part, tinted)):
        picture = to_pil_image(content.contiguous()).resize(size)
        corners = [(x1 - left) * scale, (y1 - top) * scale, (x2 - left) * scale - 1, (y2 - top) * scale - 1]
        corners[2:] = max(corners[0], corners[2]), max(corners[1], corners[3])
        ImageDraw.Draw(picture).rectangle(corners, outline=(255, 255, 0))
        tile.paste(picture, (place * _TILE, 0))
    drawn: Tensor = pil_to_tensor(tile)
    return drawn


def _packed(tile: Tensor) -> str:
    """Return a tile as text, for a line of JSON."""
    buffer = BytesIO()
    to_pil_image(tile).save(buffer, format="PNG")
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def _unpacked(text: str) -> Tensor:
    tile: Tensor = pil_to_tensor(Image.open(BytesIO(base64.b64decode(text))))
    return tile


def contact_sheet(entries: Sequence[_Entry]) -> Tensor:
    """Return one picture, uint8 [3, H, W], of all entries, row by row, each with its kind, class, score and labels."""
    columns = min(_COLUMNS, len(entries))
    rows = -(-len(entries) // columns)
    gap = 8
    cell = 2 * _TILE + gap, _TILE + _CAPTION + gap
    page = Image.new("RGB", (columns * cell[0] + gap, rows * cell[1] + gap), (255, 255, 255))
    draw = ImageDraw.Draw(page)
    for number, (found, tile) in enumerate(entries):
        x, y = gap + number % columns * cell[0], gap + number // columns * cell[1]
        labels = f", labels: {found.labels}" if found.labels else ""
        draw.text((x, y), f"{number + 1}. {found.kind}{labels}", fill=(0, 0, 0))
        name = found.image if len(found.image) <= 26 else "…" + found.image[-25:]
        draw.text((x, y + _CAPTION // 2), f"{found.category} {found.score:.2f}  {name}", fill=(90, 90, 90))
        page.paste(to_pil_image(tile), (x, y + _CAPTION))
    drawn: Tensor = pil_to_tensor(page)
    return drawn
