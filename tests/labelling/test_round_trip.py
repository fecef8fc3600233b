"""Written annotations, read again as a source: the same boxes, masks and stuff."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from ocrnet_pl.data.sources import coco, cvat, label_studio, labelme, table, yolo
from ocrnet_pl.data.sources.base import Source
from ocrnet_pl.labelling.base import AnnotationFormat
from ocrnet_pl.labelling.coco import Coco
from ocrnet_pl.labelling.cvat import Cvat
from ocrnet_pl.labelling.label_studio import LabelStudio
from ocrnet_pl.labelling.labelme import Labelme
from ocrnet_pl.labelling.shapes import LabelledImage
from ocrnet_pl.labelling.table import BoxTable
from ocrnet_pl.labelling.yolo import Yolo
from tests.labelling.test_formats import TAXONOMY, _masks, _written, image, prediction

__all__ = ["image", "prediction"]

THINGS, STUFF = ["car", "<ring>"], ["sky & sea"]


def _label_studio(folder: Path, images: Path) -> Source:
    """As the tool exports it: what was predicted was submitted."""
    (task,) = json.loads((folder / "tasks.json").read_text())
    task["annotations"] = [{"id": 1, "was_cancelled": False, "result": task.pop("predictions")[0]["result"]}]
    (folder / "export.json").write_text(json.dumps([task]))
    return label_studio.LabelStudio(images, folder / "export.json", classes=THINGS, stuff=STUFF)


def _yolo(folder: Path, images: Path) -> Source:
    (folder / "images").symlink_to(images)
    return yolo.Yolo(folder / "data.yaml", semantic_from_instances=True)


def _table(folder: Path, images: Path) -> Source:
    options = {"table": folder / "images.csv", "boxes": folder / "boxes.csv", "root": images}
    return table.Table(classes=THINGS, **options)  # type: ignore[arg-type]


READERS = [
    (LabelStudio(tolerance=0), _label_studio, True),
    (Cvat(tolerance=0), lambda f, i: cvat.CvatImages(i, f / "annotations.xml", THINGS, stuff=STUFF), True),
    (Labelme(tolerance=0), lambda f, i: labelme.Labelme(i, THINGS, f, stuff=STUFF), True),
    (Coco(tolerance=0), lambda f, i: coco.CocoInstances(i, f / "instances.json"), True),
    (Yolo(tolerance=0), _yolo, False),
    (BoxTable(), _table, False),
]


@pytest.mark.parametrize(("form", "reader", "stuff"), READERS, ids=lambda each: getattr(each, "folder", ""))
def test_what_is_written_is_read(
    form: AnnotationFormat, reader: object, stuff: bool, image: LabelledImage, tmp_path: Path
) -> None:
    folder = _written(form, image, tmp_path / "out")
    source: Source = reader(folder, Path(image.path).parents[1])  # type: ignore[operator]
    assert len(source) == 1
    sample = source[0]
    names = [category.name for category in source.taxonomy.detection_categories]
    found = {names[label]: [] for label in sample.labels.tolist()}  # type: ignore[var-annotated]
    for label, box in zip(sample.labels.tolist(), sample.boxes.as_subclass(Tensor).tolist(), strict=True):
        found[names[label]].append(box)
    assert sample.path.endswith("ä.png")
    assert pytest.approx(found["car"][-1], abs=1e-3) == [1, 25, 9.5, 29]
    if isinstance(form, BoxTable):
        return
    assert sample.instances is not None and sample.semantic is not None
    instances = sample.instances.as_subclass(Tensor)
    _, disc, ring = _masks(image)
    drawn = {
        names[label]: (instances == row + 1).numpy() for row, label in reversed([*enumerate(sample.labels.tolist())])
    }
    np.testing.assert_array_equal(drawn["car"], disc)
    # Objects are above the stuff, as they are drawn.
    np.testing.assert_array_equal(drawn["<ring>"], ring)
    if stuff:
        number = {c.name: c.semantic for c in source.taxonomy.categories}["sky & sea"]
        semantic = sample.semantic.as_subclass(Tensor)
        assert torch.equal(semantic == number, torch.from_numpy(_masks(image)[0]) & (semantic != 255))
        assert (semantic == number).sum() > 400
    assert TAXONOMY.num_detection == 2
