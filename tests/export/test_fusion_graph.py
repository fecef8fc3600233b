"""The fusion of a file against the one of ``predict``, on many random scenes."""

from __future__ import annotations

import numpy as np
import pytest

from ocrnet_pl.inference.decode import Detections
from ocrnet_pl.inference.fusion import FusionPostProcess
from ocrnet_pl.inference.geometry import clip_boxes
from ocrnet_pl.inference.settings import FusionSettings
from ocrnet_pl.runtime.description import Description
from ocrnet_pl.runtime.prediction import Prediction, predictions
from tests.helpers.exported import fusion_session, logits_of, padded
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


def compare(settings: FusionSettings, seeds: range) -> None:
    """Fuse scenes, three together, both ways; everything must be equal, up to rounding of boxes and scores."""
    run, fusion = fusion_session(TAXONOMY, settings, ROWS), FusionPostProcess()
    fusion.settings = settings
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


@pytest.mark.slow
@pytest.mark.parametrize("name", SETTINGS)
def test_fusion_in_a_file_is_that_of_predict_on_thousands_of_scenes(name: str) -> None:
    compare(SETTINGS[name], range(1000, 2500))
