"""What is collected to calibrate on is what predictions in the same passes are made from."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ocrnet_pl import MultiScale, Tiling
from ocrnet_pl.calibration.raw_results import collect
from ocrnet_pl.data.loading.collate import collate
from ocrnet_pl.data.sources.synthetic import SyntheticSource
from ocrnet_pl.inference.decode import Decode
from ocrnet_pl.inference.fusion import FusionPostProcess
from ocrnet_pl.inference.operating_points import Curve
from ocrnet_pl.inference.score_calibration import ONE_PASS, ScoreCalibration
from ocrnet_pl.models.ocrnet import OCRNet
from ocrnet_pl.structures import Batch
from tests.helpers.builders import tiny_network


@pytest.fixture(scope="module")
def labelled() -> tuple[OCRNet, Batch]:
    """An untrained network whose boxes all count, and a batch of three images that are larger than its input."""
    source = SyntheticSource(length=3, seed=1, size=96)
    network = tiny_network(source.taxonomy)
    network.postprocess = FusionPostProcess(Decode(0.0))
    samples = [source[row] for row in range(3)]
    batch = collate(samples)
    batch.truths = samples
    return network.eval(), batch


@pytest.mark.parametrize("passes", [MultiScale((1.0, 1.5)), Tiling(0.25), Tiling(scale=0.5)], ids=str)
def test_the_passes_are_those_of_predictions(labelled: tuple[OCRNet, Batch], passes: MultiScale | Tiling) -> None:
    network, batch = labelled
    fusion = network.postprocess
    assert isinstance(fusion, FusionPostProcess)
    items = list(collect(network, fusion, [batch], 2, passes))
    assert len(items) == 2
    for item, truth in zip(items, batch.truths, strict=False):
        expected = passes(network, truth.image.as_subclass(Tensor))
        raw = expected.raw[0]
        assert torch.equal(item.detections.boxes, raw.boxes) and torch.equal(item.detections.scores, raw.scores)
        assert item.logits is not None and item.logits.shape[-2:] == truth.size
        # Half precision may change the class where two are as good as equal.
        assert (item.semantic().labels == raw.semantic).float().mean() > 0.99
        fused = fusion.correct(item.detections, item.semantic(), network.taxonomy).prediction
        assert expected.fused is not None
        assert torch.allclose(fused.scores, expected.fused[0].scores, atol=2e-3)
    plain = next(collect(network, fusion, [batch], 1))
    assert len(plain.detections.scores) != len(items[0].detections.scores) or not torch.allclose(
        plain.detections.scores, items[0].detections.scores
    )


def test_other_passes_than_those_of_the_calibration_are_named_once(
    labelled: tuple[OCRNet, Batch], monkeypatch: pytest.MonkeyPatch
) -> None:
    network, batch = labelled
    fusion, image = network.postprocess, batch.truths[0].image.as_subclass(Tensor)
    several, tiles = MultiScale((1.0, 1.25), flip_vertical=True), Tiling(0.3)
    assert str(several) == "scales 1, 1.25 mirrored left to right and upside down (IoU 0.6)"
    assert str(tiles) == "tiles that overlap by 0.3 at scale 1"
    curve = Curve.from_text(Curve((0.5,), (1,), (0,), 1).to_text(), 1)
    curves = {"raw": {"disc": curve}, "fused": {"disc": curve}}
    for way, other in ((None, several), (several, None), (tiles, several)):
        passes = fusion.passes_text(way)
        assert passes == f"{way or ONE_PASS}, rescored by votes (3 are usual)"
        known = ScoreCalibration(3, 0.5, curves, passes=passes)
        fusion.load_calibration(known.to_dict(), network.taxonomy)
        network.choose("best_f1")
        assert fusion.passes_note(way) is None
        note = fusion.passes_note(other)
        assert note is not None and f"calibrated in {passes}, and" in note and "run calibrate" in note
        network.choose("none")
        # Without an operating point and without probabilities nothing depends on it.
        assert fusion.passes_note(other) is None
    with pytest.warns(UserWarning, match="calibrated in tiles that overlap by 0.3 at scale 1, .*, and these are"):
        network.predict(image, operating_point="best_f1")
    old = known.to_dict()
    del old["passes"]
    fusion.load_calibration(old, network.taxonomy)
    network.choose("best_f1")
    note = fusion.passes_note(None)
    assert note is not None and f"calibrated in {ONE_PASS}, and these" in note
    monkeypatch.setattr(fusion.decode, "usual_votes", None)
    assert fusion.passes_note(None) is None
