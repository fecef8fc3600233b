"""The page of errors, its pictures, and the packed file of images."""

from __future__ import annotations

import csv
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import tv_tensors

from ocrnet_pl.data.loading.collate import collate
from ocrnet_pl.drawing import error_plots, plots
from ocrnet_pl.drawing.error_plots import on_grid
from ocrnet_pl.drawing.overlays import draw_prediction
from ocrnet_pl.errors import DataError
from ocrnet_pl.metrics.errors.breakdown import groups, largest_confusions
from ocrnet_pl.metrics.errors.objects import Curve
from ocrnet_pl.metrics.errors.record import ErrorAnalysis
from ocrnet_pl.metrics.evaluation import EvaluationMetrics
from ocrnet_pl.report import errors_page
from ocrnet_pl.report.errors_page import write_errors_page
from ocrnet_pl.report.image_file import IMAGES, read_images, write_images
from ocrnet_pl.storage.flat_arrays import map_arrays, save_arrays
from ocrnet_pl.structures import Prediction, Predictions, Sample, Taxonomy
from tests.helpers.metric_cases import TAXONOMY, make_case

HOSTILE = Taxonomy.build(["<script>alert(1)</script>", "$x_{", "__\ud800\"'&"], ["<b>sky", "y" * 300])
"""Names that would be markup, a formula, no text at all, or wider than a page; otherwise as the cases' taxonomy."""


def analysed(
    predictions: list[Prediction],
    truths: list[Sample],
    taxonomy: Taxonomy = TAXONOMY,
    boxes: bool = True,
    pixels: bool = True,
    pictures: int = 1,
) -> tuple[ErrorAnalysis, dict[str, float]]:
    metrics = EvaluationMetrics(taxonomy, boxes=boxes, pixels=pixels)
    metrics.record_errors(0.3, pictures)
    metrics.update(Predictions(predictions, predictions if boxes and pixels else None), collate(truths, truths))
    figures = {name: float(value) for name, value in metrics.compute().items()}
    assert metrics.errors is not None
    analysis = metrics.errors.compute()
    assert analysis is not None
    return analysis, figures


class Tags(HTMLParser):
    """The tags of a page that are open, and all pictures' sources."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.names: set[str] = set()
        self.sources: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)
        self.sources += [value or "" for name, value in attrs if name == "src"]
        if tag not in ("img", "meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def checked(folder: Path) -> str:
    page = (folder / "report.html").read_text(encoding="utf-8")
    tags = Tags(page)
    assert not tags.open and "script" not in tags.names
    assert all(source.startswith("data:image/") for source in tags.sources)
    assert len(page) < 2_000_000
    return page


@pytest.mark.usefixtures("rendered_pictures")
def test_the_page_shows_everything_and_believes_no_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(error_plots, "save_figure", plots.save_figure)
    predictions, truths = make_case(2, 5)
    for number, (prediction, truth) in enumerate(zip(predictions, truths, strict=True)):
        truth.path = f"<img src=x onerror=alert({number})>\ud800/../{number}.png"
        truth.image_id = truth.path
        prediction.certainty = torch.ones(truth.size)
    analysis, figures = analysed(predictions, truths, HOSTILE)
    write_errors_page(tmp_path, "<i>title", analysis, figures)
    page = checked(tmp_path)
    for part in ("What each error costs", "Confused classes", "Precision and recall", "Size and crowding"):
        assert f"<h2>{part}</h2>" in page
    for part in ("Wrong pixels", "The worst images", "Surprising boxes", "Surprising pixels"):
        assert f"<h2>{part}</h2>" in page
    assert f"<b>{figures['fused_map']:.4f}</b>box mAP, fused" in page
    assert f"{100 * figures['fused_map_50']:.2f}</td>" in page
    names = {path.name for path in (tmp_path / "report").iterdir()}
    figures_of_page = {"costs.png", "box_confusion.png", "box_curves.png", "groups.png", "pixels.png"}
    assert figures_of_page < names
    assert {re.sub(r"_1_.*", "", name) for name in names - figures_of_page if name.endswith(".png")} == {
        "worst",
        "false_alarms",
        "sure_pixels",
    }
    for name in names:
        if name.endswith(".png"):
            with Image.open(tmp_path / "report" / name) as image:
                assert min(image.size) > 100
    with (tmp_path / "report" / "box_confusion.csv").open(encoding="utf-8") as file:
        rows = list(csv.reader(file))
    found = [row[2:] for row in rows[1:] if row[0] == "fused"]
    assert np.array(found, dtype=int).tolist() == analysis.boxes["fused"].errors.confusion.tolist()
    with (tmp_path / "report" / "box_curves.csv").open(encoding="utf-8") as file:
        curves = [row for row in csv.DictReader(file) if row["boxes"] == "raw" and row["class"] == "$x_{"]
    curve = analysis.boxes["raw"].curves[1]
    assert [float(row["recall"]) for row in curves] == pytest.approx(curve.recall.tolist(), abs=1e-5)
    write_images(tmp_path / IMAGES, analysis)
    assert len(read_images(tmp_path).ids) == 5


@pytest.mark.parametrize("case", ["boxes", "pixels", "nothing there", "no labels"])
def test_pages_of_what_there_is(tmp_path: Path, case: str) -> None:
    predictions, truths = make_case(2, 3)
    if case == "nothing there":
        predictions, truths = [predictions[0]], [truths[0]]
        empty = truths[0].boxes[:0], truths[0].labels[:0], truths[0].crowd[:0]
        truths[0] = truths[0].replace(
            boxes=tv_tensors.BoundingBoxes(empty[0], format="XYXY", canvas_size=truths[0].size),
            labels=empty[1],
            crowd=empty[2],
            instances=None,
            semantic=tv_tensors.Mask(torch.full(truths[0].size, 255, dtype=torch.uint8)),
        )
    if case == "no labels":
        for truth in truths:
            truth.supervision.detection[:] = False
            truth.supervision.semantic[:] = False
    analysis, figures = analysed(predictions, truths, boxes=case != "pixels", pixels=case != "boxes", pictures=0)
    write_errors_page(tmp_path, case, analysis, figures)
    page = checked(tmp_path)
    assert ("What each error costs" in page) == (case != "pixels")
    assert ("Wrong pixels" in page) == (case != "boxes")
    assert ("The images have no labelled objects." in page) == (case in ("nothing there", "no labels"))
    assert ("The images have no labelled pixels." in page) == (case in ("nothing there", "no labels"))
    write_images(tmp_path / IMAGES, analysis)
    read = read_images(tmp_path)
    assert len(read.ids) == len(analysis.images.ids)
    assert bool(read.boxed.any()) == (case not in ("pixels", "no labels"))


def test_an_image_of_two_galleries_is_drawn_once_unless_its_prediction_is_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    analysis, figures = analysed(*make_case(2, 3))
    shown = analysis.worst[0]
    before = replace(shown.prediction, semantic=torch.zeros_like(shown.prediction.semantic))  # type: ignore[arg-type]
    analysis = replace(analysis, alarming=[shown], sure=[shown._replace(prediction=before)])
    drawn = []

    def draw(image: torch.Tensor, prediction: Prediction, *args: Any, **options: Any) -> torch.Tensor:
        drawn.append(prediction)
        return draw_prediction(image, prediction, *args, **options)

    monkeypatch.setattr(errors_page, "draw_prediction", draw)
    write_errors_page(tmp_path, "three", analysis, figures)
    assert [each is before for each in drawn] == [False, True]
    names = ("worst", "false_alarms", "sure_pixels")
    worst, alarm, sure = (next((tmp_path / "report").glob(f"{name}_1_*")).read_bytes() for name in names)
    assert worst == alarm != sure


def test_objects_are_grouped_by_size_and_crowding() -> None:
    analysis, _ = analysed(*make_case(2, 8))
    found = groups(analysis)
    objects = int(analysis.boxes["fused"].objects.sum())
    errors = analysis.boxes["fused"].errors
    for own in found.values():
        assert sum(group.objects for group in own) == objects
        assert sum(group.found for group in own) == (errors.found >= np.float32(0.3)).sum()
        assert sum(group.missed for group in own) == (errors.found < 0).sum()
    sizes = analysis.surroundings.sizes
    by_size = {group.name: group.objects for group in found["size"]}
    assert by_size["8-16"] == ((sizes >= 8) & (sizes < 16)).sum()
    assert {group.name for group in found["count"]} == {"6-10"}


def test_the_largest_confusions_come_first() -> None:
    wrong = np.array([[9, 1, 4], [0, 9, 2], [0, 0, 9]])
    first, second, third = largest_confusions(wrong, np.array([14, 11, 9]), 5, edges=wrong // 2)
    assert (first.true, first.found, first.count, first.edges) == (0, 2, 4, 0.5)
    assert first.share == pytest.approx(4 / 14)
    assert (second.true, second.found, third.count) == (1, 2, 1)


def test_a_curve_is_read_at_equal_steps() -> None:
    curve = Curve(np.array([0.8, 0.255, 0.1], np.float32), np.array([1, 0.5, 0.25]), np.array([0.1, 0.2, 0.3]))
    read = on_grid(curve.precision, curve)
    assert np.isnan(read[81:]).all()
    assert (read[[0, 10, 25, 26, 80]] == [0.25, 0.25, 0.5, 1, 1]).all()


def test_a_damaged_file_of_images_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no images"):
        read_images(tmp_path)
    analysis, _ = analysed(*make_case(2, 3))
    path = tmp_path / IMAGES
    write_images(path, analysis)
    arrays, metadata = map_arrays(path)
    arrays = {name: values.copy() for name, values in arrays.items()}
    harm = {
        "box_labels": arrays["box_labels"] + 100,
        "box_counts": arrays["box_counts"] * 2,
        "pixel_images": arrays["pixel_images"] - 10,
        "segment_sums": arrays["segment_sums"] * np.nan,
        "ids_ends": arrays["ids_ends"][::-1].copy(),
    }
    for name, values in harm.items():
        save_arrays(path, arrays | {name: values}, metadata)
        with pytest.raises(DataError, match="the file is damaged"):
            read_images(tmp_path)
    save_arrays(path, {name: values for name, values in arrays.items() if name != "boxed"}, metadata)
    with pytest.raises(DataError, match="the file is damaged"):
        read_images(tmp_path)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DataError, match="the file is damaged"):
        read_images(tmp_path)
