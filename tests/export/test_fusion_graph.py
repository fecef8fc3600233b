"""The fusion of a file against the one of ``predict``, on many random scenes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ocrnet_pl.export.graph import Graph
from ocrnet_pl.export.letterbox import Frame
from ocrnet_pl.export.pixels import class_map
from ocrnet_pl.inference.decode import Detections
from ocrnet_pl.inference.fusion import FusionPostProcess
from ocrnet_pl.inference.geometry import clip_boxes, maps_to_original
from ocrnet_pl.inference.probabilities import Beta
from ocrnet_pl.inference.score_calibration import ScoreCalibration
from ocrnet_pl.inference.settings import FusionSettings
from ocrnet_pl.runtime.description import Description
from ocrnet_pl.runtime.prediction import Prediction, predictions
from ocrnet_pl.structures import Placement
from tests.helpers.exported import RUNTIMES, fusion_session, logits_of, padded, session
from tests.inference.test_fusion_cases import TAXONOMY, random_scene

DESCRIPTION = Description("0", False, 3, (24, 32), True, True, TAXONOMY, {}, {}, {})
ROWS = 26
"""Two more than a scene has boxes, so that some rows are empty."""

SETTINGS = {
    "default": FusionSettings(min_stuff_area=20),
    "strong": FusionSettings(0.1, 0.6, 1.0, 1.0, 1.0, 0.0, 1),
    "raw": FusionSettings(raw_boxes=("car",), raw_pixels=("road", "car"), min_stuff_area=60),
    "off": FusionSettings(claim=0.0, rescore=0.0, refine=0.0, min_fill=1.0, min_stuff_area=0),
}


CALIBRATION = ScoreCalibration(
    images=9,
    iou=0.5,
    curves={"raw": {}, "fused": {}},
    # All scores of one class become smaller, so that the order changes; one has no map, and the rest keep their order.
    probabilities={"fused": {"car": Beta(0.3, 0.6, -2.5)}},
)


def compare(
    settings: FusionSettings,
    seeds: range,
    calibration: ScoreCalibration | None = None,
    runtime: str = "onnxruntime",
) -> None:
    """Fuse scenes, three together, both ways; everything must be equal, up to rounding of boxes and scores."""
    run, fusion = fusion_session(TAXONOMY, settings, ROWS, calibration, runtime), FusionPostProcess()
    fusion.settings, fusion.calibration = settings, calibration
    fusion.choose("none", (), TAXONOMY)
    names = [out.name for out in run.get_outputs()]
    for start in range(seeds.start, seeds.stop, 3):
        scenes = [random_scene(seed) for seed in range(start, start + 3)]
        found = [
            # A scene without any box, and some with few.
            Detections(*(part[: (24, 5, 0)[seed % 3] if seed % 5 == 0 else 24] for part in detections))
            for seed, (_, detections) in enumerate(scenes, start)
        ]
        found = [each._replace(boxes=clip_boxes(each.boxes, (24, 32))) for each in found]
        logits = np.stack([logits_of(semantic.probability) for semantic, _ in scenes])
        results = run.run(names, padded(found, ROWS) | {"logits": logits})
        got = predictions(dict(zip(names, results, strict=True)), DESCRIPTION)
        for seed, own, detections, (semantic, _) in zip(range(start, start + 3), got, found, scenes, strict=True):
            wanted = fusion.fuse(detections, semantic, TAXONOMY)
            require_equal(own, wanted, f"scene {seed}")


def require_equal(got: Prediction, wanted: object, name: str) -> None:
    """Compare all fields."""
    for field in ("labels", "semantic", "instances", "panoptic"):
        np.testing.assert_array_equal(getattr(got, field), getattr(wanted, field).numpy(), err_msg=f"{name}: {field}")
    for field, close in (("boxes", 1e-3), ("scores", 1e-5)):
        np.testing.assert_allclose(
            getattr(got, field), getattr(wanted, field).numpy(), rtol=0, atol=close, err_msg=f"{name}: {field}"
        )
    plain = [
        [(each.id, each.category, each.area, each.instance) for each in prediction.segments]
        for prediction in (got, wanted)  # type: ignore[attr-defined]
    ]
    assert plain[0] == plain[1], name


@pytest.mark.parametrize("name", SETTINGS)
def test_fusion_in_a_file_is_that_of_predict(name: str) -> None:
    compare(SETTINGS[name], range(0, 75))


@pytest.mark.parametrize("name", SETTINGS)
def test_fusion_in_a_program_is_that_of_predict(name: str) -> None:
    compare(SETTINGS[name], range(0, 30), runtime="torch")


@pytest.mark.parametrize(("runtime", "scenes"), zip(RUNTIMES, (60, 21), strict=True))
def test_scores_become_probabilities_after_fusion(runtime: str, scenes: int) -> None:
    compare(SETTINGS["default"], range(0, scenes), CALIBRATION, runtime)


def require_same_pixels(
    logits: torch.Tensor, stride: int, size: tuple[int, int], inner: tuple[int, int], runtime: str
) -> None:
    """Scale the logits of a batch to ``size`` by a graph, and compare classes and probabilities."""
    graph = Graph()
    classes, (height, width) = logits.shape[1], size
    given = graph.input("logits", np.float32, ("batch", *logits.shape[1:]))
    sides = [graph.constant(np.array([side], np.int64)) for side in (*size, *inner)]
    found = class_map(graph, given, stride, classes, Frame(given.length(0), *sides))
    every, top = found.every.reshape(-1, height, width), found.most.reshape(-1, height, width)
    shape = ("batch", classes, *size) if found.class_axis == 1 else ("batch", *size, classes)
    graph.output(found.share / every.expand(found.class_axis), "probability", shape)
    graph.output(top / every, "top", ("batch", *size))
    graph.output(found.labels.reshape(-1, height, width), "labels", ("batch", *size))
    names = ["probability", "top", "labels"]
    got = dict(zip(names, session(graph, runtime).run(names, {"logits": logits.numpy()}), strict=True))
    padded = (logits.shape[2] * stride, logits.shape[3] * stride)
    placement = Placement(size, padded, (inner[0] / height, inner[1] / width), (0.0, 0.0))
    for image, own in enumerate(logits):
        probability = maps_to_original(own, stride, placement).softmax(0)
        close = np.testing.assert_allclose
        # A float32 logit of some hundreds has four digits after the point.
        within = {"rtol": 1e-4, "atol": 1e-6 * max(1.0, float(own.abs().max()))}
        close(np.moveaxis(got["probability"][image], found.class_axis - 1, 0), probability.numpy(), **within)
        close(got["top"][image], probability.amax(0).numpy(), **within)
        # Where two classes are alike, rounding decides.
        best = probability.topk(2, 0).values
        sure = (best[0] - best[1] > 1e-5).numpy()
        assert sure.mean() > 0.9
        np.testing.assert_array_equal(got["labels"][image][sure], probability.argmax(0).numpy()[sure])


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("classes", [3, 7])
def test_of_classes_that_are_alike_the_first_one_counts(classes: int, runtime: str) -> None:
    graph = Graph()
    given = graph.input("logits", np.float32, ("batch", classes, 4, 4))
    side = graph.constant(np.array([4], np.int64))
    found = class_map(graph, given, 1, classes, Frame(given.length(0), side, side, side, side))
    graph.output(found.labels.reshape(-1, 4, 4), "labels", ("batch", 4, 4))
    logits = np.zeros((2, classes, 4, 4), np.float32)
    # In the second image the last two are alike, and above the others.
    logits[1, -2:] = 3.0
    (labels,) = session(graph, runtime).run(["labels"], {"logits": logits})
    assert (labels[0] == 0).all()
    assert (labels[1] == classes - 2).all()


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize(("classes", "spread"), [(5, 1.0), (5, 30.0), (5, 300.0), (7, 30.0), (7, 300.0)])
def test_pixels_at_the_size_of_the_images(classes: int, spread: float, runtime: str) -> None:
    """With 300, logits so far apart that the exponential of their difference to the cell's best is 0."""
    logits = torch.randn(2, classes, 8, 12, generator=torch.Generator().manual_seed(3)) * spread
    require_same_pixels(logits, 4, (32, 48), (32, 48), runtime)
    require_same_pixels(logits, 4, (32, 40), (32, 40), runtime)
    require_same_pixels(logits, 4, (45, 60), (32, 43), runtime)
    require_same_pixels(logits, 4, (16, 24), (32, 48), runtime)
    require_same_pixels(logits, 1, (8, 12), (8, 12), runtime)


@pytest.mark.slow
@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("name", SETTINGS)
def test_fusion_in_a_file_is_that_of_predict_on_thousands_of_scenes(name: str, runtime: str) -> None:
    compare(SETTINGS[name], range(1000, 2500), runtime=runtime)
