from __future__ import annotations

import csv
import json
import os
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision import tv_tensors

from ocrnet_pl.drawing import plots
from ocrnet_pl.drawing.overlays import (
    draw_prediction,
    draw_truth,
    drawn_categories,
    panel,
    panoptic_to_rgb,
    sheet,
    write_png,
)
from ocrnet_pl.drawing.plots import plot_confusion, plot_curves
from ocrnet_pl.imaging.geometry import letterbox_sample
from ocrnet_pl.runtime.painting import class_colors
from ocrnet_pl.structures import Prediction, Sample, Segment, Supervision, Taxonomy
from ocrnet_pl.tracking.wandb_media import overlay_data, to_wandb_image
from tests.helpers.builders import TAXONOMY

DISC, SQUARE = (TAXONOMY.detection_categories[i] for i in (0, 1))

pytestmark = pytest.mark.usefixtures("rendered_pictures")


def make_prediction(
    boxes: list[list[float]], scores: list[float], labels: list[int], semantic: Tensor | None = None
) -> Prediction:
    return Prediction(torch.tensor(boxes).reshape(-1, 4), torch.tensor(scores), torch.tensor(labels), semantic)


def make_sample(size: tuple[int, int] = (40, 60), taxonomy: Taxonomy = TAXONOMY) -> Sample:
    semantic = torch.zeros(size, dtype=torch.uint8)
    semantic[10:20, 10:30] = TAXONOMY.detection_to_semantic[0]
    semantic[0, 0] = 255
    instances = (semantic == TAXONOMY.detection_to_semantic[0]).int()
    return Sample(
        image=tv_tensors.Image(torch.full((3, *size), 90, dtype=torch.uint8)),
        boxes=tv_tensors.BoundingBoxes(torch.tensor([[10.0, 10, 30, 20]]), format="XYXY", canvas_size=size),  # type: ignore[call-arg]
        labels=torch.tensor([0]),
        crowd=torch.tensor([False]),
        supervision=Supervision.full(taxonomy),
        semantic=tv_tensors.Mask(semantic),
        instances=tv_tensors.Mask(instances),
        image_id="folder/a b.png",
    )


def colored(drawn: Tensor, color: tuple[int, int, int]) -> Tensor:
    return (drawn == torch.tensor(color, dtype=torch.uint8)[:, None, None]).all(0)


def extent(mask: Tensor) -> tuple[int, int, int, int]:
    y, x = mask.nonzero(as_tuple=True)
    return int(x.min()), int(y.min()), int(x.max()) + 1, int(y.max()) + 1


def test_a_box_is_drawn_where_it_is() -> None:
    image = torch.zeros(3, 600, 800, dtype=torch.uint8)
    drawn = draw_prediction(image, make_prediction([[100, 200, 300, 450]], [0.9], [1]), TAXONOMY)
    assert drawn.shape == (3, 600, 800) and drawn.dtype == torch.uint8
    mask = colored(drawn, SQUARE.color)
    assert mask[200, 295] and not mask[199, 295], "the label ends before the top border's right end"
    mask[:200] = False
    assert extent(mask) == (100, 200, 300, 450)
    assert not drawn[:, 210:440, 110:290].any(), "the inside stays the image's"
    assert not image.any(), "the image itself is not drawn on"


def test_boxes_under_the_score_are_left_out() -> None:
    prediction = make_prediction([[100, 200, 300, 450], [400, 200, 500, 300]], [0.9, 0.2], [1, 0])
    image = torch.zeros(3, 600, 800, dtype=torch.uint8)
    assert not colored(draw_prediction(image, prediction, TAXONOMY), DISC.color).any()
    assert colored(draw_prediction(image, prediction, TAXONOMY, threshold=0.1), DISC.color).any()


@pytest.mark.parametrize(
    ("size", "expected"), [((40, 60), (360, 540)), ((512, 100), (512, 100)), ((300, 511), (600, 1022))]
)
def test_small_images_are_enlarged_by_a_whole_factor(size: tuple[int, int], expected: tuple[int, int]) -> None:
    for channels in (1, 3, 4):
        image = torch.zeros(channels, *size, dtype=torch.uint8)
        assert draw_prediction(image, make_prediction([], [], []), TAXONOMY).shape == (3, *expected)


def test_an_enlarged_box_is_where_it_was() -> None:
    sample = replace(make_sample(), semantic=None, instances=None)
    drawn = draw_truth(sample, TAXONOMY)
    mask = colored(drawn, DISC.color)
    assert mask[90, 265] and not mask[89, 265], "the label ends before the top border's right end"
    mask[:90] = False
    assert extent(mask) == (90, 90, 270, 180)


def test_maps_tint_and_instances_are_outlined() -> None:
    sample = make_sample()
    drawn = draw_truth(sample, TAXONOMY).float()
    tint = torch.tensor(DISC.color) - drawn[:, 135, 180]
    bare = torch.tensor(DISC.color) - 90.0
    assert tint.abs().sum() < bare.abs().sum(), "a thing's pixels move towards its color"
    sky = TAXONOMY.semantic_categories[0].color
    moved = (drawn[:, 300, 400] - 90) * (torch.tensor(sky) - 90.0)
    assert (moved >= 0).all() and moved.sum() > 0
    assert drawn[:, 4, 4].tolist() == [90, 90, 90], "pixels without a label are not tinted"


def test_a_lone_background_is_not_tinted() -> None:
    taxonomy = Taxonomy.build(things=["nucleus"], stuff=["background"])
    image = torch.full((3, 512, 512), 90, dtype=torch.uint8)
    prediction = make_prediction([], [], [], torch.zeros(512, 512, dtype=torch.uint8))
    assert torch.equal(draw_prediction(image, prediction, taxonomy), image)


def test_many_boxes_have_no_labels() -> None:
    image = torch.zeros(3, 512, 512, dtype=torch.uint8)
    boxes = [[20.0 + 80 * (i % 6), 20.0 + 80 * (i // 6), 70.0 + 80 * (i % 6), 70.0 + 80 * (i // 6)] for i in range(36)]
    few = draw_prediction(image, make_prediction(boxes[:6], [0.9] * 6, [0] * 6), TAXONOMY)
    many = draw_prediction(image, make_prediction(boxes, [0.9] * 36, [0] * 36), TAXONOMY)
    assert colored(few, DISC.color).sum() / 6 > 2 * colored(many, DISC.color).sum() / 36


def test_a_map_of_another_size_is_refused() -> None:
    image = torch.zeros(3, 40, 60, dtype=torch.uint8)
    with pytest.raises(ValueError, match="semantic map"):
        draw_prediction(image, make_prediction([], [], [], torch.zeros(20, 30, dtype=torch.uint8)), TAXONOMY)


def test_semantic_colors() -> None:
    rgb = torch.from_numpy(class_colors(TAXONOMY)[[[0, 1, 255]]]).permute(2, 0, 1)
    colors = [category.color for category in TAXONOMY.semantic_categories]
    assert [tuple(pixel.tolist()) for pixel in rgb.permute(1, 2, 0)[0]] == [colors[0], colors[1], (0, 0, 0)]


def test_a_panel_holds_its_pictures_side_by_side(tmp_path) -> None:
    pictures = [torch.full((3, 300, 200), 10, dtype=torch.uint8), torch.full((3, 100, 400), 20, dtype=torch.uint8)]
    page = panel(pictures, ["first", "second"])
    assert page.shape[-1] > 600 and page.shape[-2] > 300
    left, right = (extent(colored(page, (value,) * 3)) for value in (10, 20))
    assert (left[2] - left[0], left[3] - left[1]) == (200, 300)
    assert (right[2] - right[0], right[3] - right[1]) == (400, 100)
    assert left[2] < right[0] and left[1] == right[1]
    assert (page[:, : left[1]] < 128).any(), "titles stand above"

    write_png(page, tmp_path / "new" / "page.png")
    assert os.listdir(tmp_path / "new") == ["page.png"]
    assert np.array_equal(np.asarray(Image.open(tmp_path / "new" / "page.png")), page.permute(1, 2, 0).numpy())


def test_curves_are_plotted(tmp_path) -> None:
    keys = ["epoch", "step", "train/loss", "train/loss_box", "val/map", "val/fused_map", "val/miou", "val/pq"]
    with open(tmp_path / "metrics.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(keys)
        for step in range(60):
            writer.writerow([0, step, 3 / (1 + step), "nan" if step == 5 else 1 / (1 + step), "", "", "", ""])
        writer.writerow([0, 30, "", "", 0.2, 0.3, 0.5, 0.1])
        writer.writerow([1, 59, "", "", 0.4, 0.5, 0.7, 0.2])
    plot_curves(tmp_path / "metrics.csv", tmp_path / "curves.png")
    pixels = np.asarray(Image.open(tmp_path / "curves.png").convert("RGB"))
    assert pixels.shape[1] > 600 and len(np.unique(pixels.reshape(-1, 3), axis=0)) > 20


def test_legends_cover_no_line_and_equal_learning_rates_are_one_line(tmp_path, monkeypatch) -> None:
    groups = {"encoder": 1, "encoder_no_decay": 1, "decoders": 2, "decoders_no_decay": 3, "balancing_no_decay": 2}
    logged = [f"val/{prefix}{name}" for prefix in ("", "fused_") for name in ("pq", "sq", "rq", "map", "miou")]
    with open(tmp_path / "metrics.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["epoch", "step", *(f"lr-AdamW/{name}" for name in groups), *logged])
        for step in range(3):
            writer.writerow([0, step, *(rate * step for rate in groups.values()), *(step % 2 for _ in logged)])
    drawn: list[Any] = []
    monkeypatch.setattr(plots, "save_figure", lambda figure, png: drawn.append(figure))
    plot_curves(tmp_path / "metrics.csv", "")
    drawn[0].canvas.draw()
    assert len(drawn[0].axes) == 4
    for axes in drawn[0].axes:
        legend = axes.get_legend().get_window_extent()
        assert not any(legend.overlaps(each.bbox) for each in drawn[0].axes)
        assert legend.y0 >= 0 and axes.bbox.x0 <= legend.x0 and legend.x1 <= axes.get_tightbbox().x1 + 1
        assert legend.y1 < axes.xaxis.get_tightbbox().y0
    # The groups of the decoders differ, so each keeps its name.
    (rates,) = (axes for axes in drawn[0].axes if axes.get_title(loc="left") == "Learning rate")
    lines = {str(line.get_label()): list(line.get_ydata()) for line in rates.lines}
    assert lines == {
        "balancing, decoders": [0, 2, 4],
        "decoders_no_decay": [0, 3, 6],
        "encoder": [0, 1, 2],
    }


def test_a_confusion_matrix_is_plotted_by_rows(tmp_path) -> None:
    matrix = torch.eye(5, dtype=torch.long) * 1000
    # A class that is not in the truth has nothing to be divided by.
    matrix[4] = 0
    plot_confusion(matrix, [c.name for c in TAXONOMY.semantic_categories], tmp_path / "a.png")
    # The same shares from other counts: the same picture.
    plot_confusion(
        matrix * torch.tensor([[1], [7], [2], [9], [3]]),
        [c.name for c in TAXONOMY.semantic_categories],
        tmp_path / "b.png",
    )
    first, second = (np.asarray(Image.open(tmp_path / name)) for name in ("a.png", "b.png"))
    assert first.shape[0] > 200 and len(np.unique(first.reshape(-1, first.shape[-1]), axis=0)) > 20
    assert np.array_equal(first, second)


def test_plots_leave_no_global_state(tmp_path) -> None:
    from matplotlib import pyplot

    before = pyplot.get_fignums()
    plot_confusion(torch.eye(2), ["a", "b"], tmp_path / "c.png")
    assert pyplot.get_fignums() == before


def test_overlays_are_plain_python_in_pixels() -> None:
    truth = make_sample()
    semantic = torch.zeros(40, 60, dtype=torch.uint8)
    raw = make_prediction([[1.5, 2, 3, 4], [5, 6, 7, 8]], [0.75, 0.5], [2, 0], semantic)
    boxes, masks = overlay_data(truth.size, truth, {"raw": raw, "fused": raw}, TAXONOMY)
    assert list(boxes) == list(masks) == ["truth", "raw", "fused"]
    json.dumps(boxes)  # no tensors or numpy numbers
    (box, _) = boxes["raw"]["box_data"]
    assert box["position"] == {"minX": 1.5, "minY": 2.0, "maxX": 3.0, "maxY": 4.0}
    assert box["domain"] == "pixel" and box["scores"] == {"score": 0.75} and type(box["class_id"]) is int
    assert boxes["raw"]["class_labels"][box["class_id"]] == "star"
    (true,) = boxes["truth"]["box_data"]
    assert "scores" not in true and true["domain"] == "pixel" and true["box_caption"] == "disc"
    for mask in masks.values():
        assert isinstance(mask["mask_data"], np.ndarray) and mask["mask_data"].shape == (40, 60)
        assert np.issubdtype(mask["mask_data"].dtype, np.integer)
        assert set(np.unique(mask["mask_data"])) <= set(mask["class_labels"])
    assert all(type(key) is int for mask in masks.values() for key in mask["class_labels"])


def test_a_class_has_one_id_in_boxes_and_masks() -> None:
    # Of the detected names one has no pixels; its id must not be that of a class that has.
    taxonomy = Taxonomy.build(things=["car", "dog"], stuff=["sky"], segmented=["sky", "dog"])
    sample = replace(make_sample(), boxes=torch.zeros(2, 4), labels=torch.tensor([0, 1]), semantic=None)
    none = make_prediction([], [], [])
    boxes, masks = overlay_data((40, 60), sample, {"raw": replace(none, semantic=torch.zeros(40, 60))}, taxonomy)
    box_names, mask_names = boxes["truth"]["class_labels"], masks["raw"]["class_labels"]
    assert set(box_names.values()) == {"car", "dog"}
    assert list(masks) == ["raw"] and list(boxes) == ["truth", "raw"]
    assert all(mask_names[id_] == box_names[id_] for id_ in box_names.keys() & mask_names.keys())
    assert {id_ for id_, name in mask_names.items() if name == "dog"} == {1}


def test_a_mask_of_another_size_raises() -> None:
    raw = make_prediction([], [], [], torch.zeros(20, 30, dtype=torch.uint8))
    with pytest.raises(ValueError, match="raw mask"):
        overlay_data((40, 60), make_sample(), {"raw": raw}, TAXONOMY)


def test_wandb_takes_the_overlays() -> None:
    pytest.importorskip("wandb")
    truth = make_sample()
    semantic = torch.full((40, 60), 1, dtype=torch.uint8)
    raw = make_prediction([[1.5, 2, 30, 40]], [0.75], [2], semantic)
    image = to_wandb_image(truth.image, truth, {"raw": raw, "fused": raw}, TAXONOMY)
    assert (image._width, image._height) == (60, 40)
    assert set(image._boxes) == set(image._masks) == {"truth", "raw", "fused"}
    stored = np.asarray(Image.open(image._masks["truth"]._path))
    assert np.array_equal(stored, truth.semantic.numpy())


def test_padding_is_drawn_as_padding() -> None:
    sample = letterbox_sample(make_sample((40, 80)), (64, 64))
    assert sample.placement is not None and sample.placement.scale == (0.8, 0.8)
    everywhere = make_prediction([], [], [], torch.ones(64, 64, dtype=torch.uint8))
    panoptic = replace(everywhere, panoptic=torch.ones(64, 64, dtype=torch.int32), segments=(Segment(1, 1, 1.0, 4096),))
    for drawn in (
        draw_truth(sample, TAXONOMY, min_side=128),
        draw_prediction(sample.image, everywhere, TAXONOMY, min_side=128, placement=sample.placement),
        panoptic_to_rgb(panoptic, TAXONOMY, min_side=128, placement=sample.placement),
    ):
        assert drawn.shape == (3, 128, 128)
        # Grey stripes, whatever was predicted there, and none of them on the image.
        assert set(drawn[:, 64:].unique().tolist()) == {205, 235}
        assert drawn[0, 64:].equal(drawn[1, 64:])
        assert not drawn[:, :64].eq(205).all(0).any()


def test_the_legend_names_the_drawn_classes_in_their_colors() -> None:
    sample = make_sample()
    square = make_prediction(
        [[1, 1, 9, 9], [1, 1, 9, 9]], [0.9, 0.1], [1, 2], torch.full((40, 60), 4, dtype=torch.uint8)
    )
    shown = drawn_categories(TAXONOMY, sample, [square])
    wanted = {0, TAXONOMY.detection_to_semantic[0], 4}
    assert shown == [c for c in TAXONOMY.categories if c.semantic in wanted or c.detection in (0, 1)]
    image = torch.zeros(3, 50, 300, dtype=torch.uint8)
    plain, drawn = panel([image], ["one"]), panel([image], ["one"], shown)
    assert drawn.shape[1] > plain.shape[1] and drawn[:, : plain.shape[1]].equal(plain)
    for category in shown:
        assert colored(drawn[:, plain.shape[1] :], category.color).sum() > 50
    assert sheet([plain, drawn]).shape == (3, plain.shape[1] + drawn.shape[1], drawn.shape[2])
