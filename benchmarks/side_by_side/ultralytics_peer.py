"""Ultralytics' nano detector, for those who have installed it by hand: it is under the AGPL and not a dependency."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn

from ocrnet_pl.data.datamodule import JointDataModule
from ocrnet_pl.data.sources.base import Source
from ocrnet_pl.drawing.overlays import write_png
from ocrnet_pl.imaging.geometry import letterbox_sample
from ocrnet_pl.structures import Prediction
from ocrnet_pl.training.step_memory import peak_memory_mb
from side_by_side.base import training_rows
from side_by_side.evaluation import Predict
from side_by_side.settings import Settings


def train_ultralytics(
    settings: Settings, data: JointDataModule, folder: Path, device: torch.device
) -> tuple[nn.Module, Predict, dict[str, Any]]:
    """Train the nano detector from random weights (its encoder takes no others) with its own settings.

    Args:
        settings: Settings of the comparison.
        data: The data module, whose images are written in the YOLO layout at the input size.
        folder: Folder for the images and the run.
        device: Device for training.

    Returns:
        The network, its prediction function, and the data on its training.
    """
    from ultralytics import YOLO
    from ultralytics.utils import SETTINGS

    # It would record the run with any tracker that is installed, in the current folder. Setting its own item would
    # change the user's settings for good.
    for tracker in ("mlflow", "wandb", "tensorboard"):
        dict.__setitem__(SETTINGS, tracker, False)
    root = folder / "yolo"
    for split, source in (("train", data.train), ("val", data.val)):
        assert source is not None
        _export(source, root, split, settings.size)
    names = [category.name for category in data.taxonomy.detection_categories]
    description = root / "data.yaml"
    description.write_text(
        yaml.safe_dump(
            {"path": str(root.resolve()), "train": "images/train", "val": "images/val", "names": dict(enumerate(names))}
        )
    )
    model = YOLO("yolo11n.yaml")
    length = {"time": settings.budget / 3600} if settings.steps is None else {"epochs": 1}
    place = 0 if device.type == "cuda" else "cpu"
    steps, seconds = 0, 0.0

    def count(trainer: Any) -> None:
        nonlocal steps
        steps += 1

    def note(trainer: Any) -> None:
        nonlocal seconds
        seconds += float(trainer.epoch_time or 0.0)

    model.add_callback("on_train_batch_end", count)
    model.add_callback("on_train_epoch_end", note)
    batch = data.batch_size
    model.train(
        data=str(description),
        imgsz=settings.size,
        batch=batch,
        device=place,
        workers=1,
        val=False,
        plots=False,
        seed=settings.seed,
        project=str(folder.resolve()),
        name="run",
        exist_ok=True,
        **length,
    )

    def predict(images: Tensor) -> list[Prediction]:
        found = model.predict(
            images.float() / 255, imgsz=settings.size, conf=0.02, max_det=100, device=place, verbose=False
        )
        return [Prediction(one.boxes.xyxy.float(), one.boxes.conf.float(), one.boxes.cls.long()) for one in found]

    result = {
        "steps": steps,
        "train_s": seconds,
        "images_per_s": steps * batch / seconds if seconds else 0.0,
        "peak_memory_mb": peak_memory_mb(),
    }
    return model.model, predict, result


def _export(source: Source, root: Path, split: str, size: int) -> None:
    images, labels = root / "images" / split, root / "labels" / split
    labels.mkdir(parents=True, exist_ok=True)
    for index in range(len(source)):
        sample = letterbox_sample(source[index], (size, size))
        write_png(sample.image.as_subclass(Tensor), images / f"{index:06d}.png")
        lines = []
        for row in training_rows(sample).tolist():
            x1, y1, x2, y2 = (value / size for value in sample.boxes[row].tolist())
            lines.append(
                f"{int(sample.labels[row])} {(x1 + x2) / 2:.6f} {(y1 + y2) / 2:.6f} {x2 - x1:.6f} {y2 - y1:.6f}"
            )
        (labels / f"{index:06d}.txt").write_text("\n".join(lines))
