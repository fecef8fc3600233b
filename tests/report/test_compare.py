"""Runs side by side: figures of random choices against the metrics themselves, refusals, the table and the page."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from ocrnet_pl.cli.main import main
from ocrnet_pl.data.loading.collate import collate
from ocrnet_pl.errors import DataError
from ocrnet_pl.metrics.evaluation import EvaluationMetrics
from ocrnet_pl.report.bootstrap import figures_of, random_weights
from ocrnet_pl.report.compare import compare_runs
from ocrnet_pl.report.image_file import IMAGES, read_images, write_images
from ocrnet_pl.structures import Prediction, Predictions, Sample, Taxonomy
from tests.helpers.metric_cases import TAXONOMY, make_case, make_prediction
from tests.helpers.tiny_run import fails


def evaluated(
    folder: Path,
    predictions: list[Prediction],
    truths: list[Sample],
    taxonomy: Taxonomy = TAXONOMY,
    boxes: bool = True,
    pixels: bool = True,
) -> dict[str, float]:
    """Write what a run of these images leaves, and return its figures."""
    metrics = EvaluationMetrics(taxonomy, boxes=boxes, pixels=pixels)
    metrics.record_errors(0.3, 0)
    if truths:
        metrics.update(Predictions(predictions, predictions if boxes and pixels else None), collate(truths, truths))
    figures = {name.removeprefix("fused_"): float(value) for name, value in metrics.compute().items()}
    assert metrics.errors is not None
    analysis = metrics.errors.compute()
    assert analysis is not None
    folder.mkdir(parents=True, exist_ok=True)
    write_images(folder / IMAGES, analysis)
    return figures


def case(images: int = 9) -> tuple[list[Prediction], list[Sample]]:
    predictions, truths = make_case(6, images)
    count = sum(len(each.scores) for each in predictions)
    # Of equal scores, those of the first image would rank first.
    scores = iter(((torch.randperm(count, generator=torch.Generator().manual_seed(0)) + 1) / (count + 1)).tolist())
    for prediction in predictions:
        own = torch.tensor([next(scores) for _ in prediction.scores])
        prediction.scores = own.sort(descending=True).values
    return predictions, truths


def test_figures_of_chosen_images_are_those_of_the_metrics(tmp_path: Path) -> None:
    predictions, truths = case()
    figures = evaluated(tmp_path / "run", predictions, truths)
    file = read_images(tmp_path / "run")
    whole = figures_of(file, np.ones((1, 9), np.float32))
    assert {name: values.item() for name, values in whole.items()} == {
        name: pytest.approx(figures[name], abs=1e-9) for name in ("map", "miou", "pq")
    }
    weights = random_weights(9, 3, seed=1)
    assert weights.sum(1).tolist() == [9, 9, 9]
    chosen = figures_of(file, weights)
    # Ids are numbers below ten, which texts and numbers sort alike.
    for row, counts in enumerate(weights.astype(int).tolist()):
        places = [place for place, count in enumerate(counts) for _ in range(count)]
        again = [truths[place].replace(image_id=number) for number, place in enumerate(places)]
        expected = evaluated(tmp_path / "again", [predictions[place] for place in places], again)
        for name, values in chosen.items():
            assert values[row] == pytest.approx(expected[name], abs=1e-6), name


def two_runs(root: Path) -> tuple[Path, Path]:
    """A run, and one of the same images with fewer errors, in another order."""
    predictions, truths = make_case(6, 30)
    evaluated(root / "runs" / "a", predictions, truths)
    generator = torch.Generator().manual_seed(1)
    better = [make_prediction(generator, truth, 0) for truth in truths]
    for prediction, truth in zip(better, truths, strict=True):
        semantic = torch.as_tensor(truth.semantic).clone()
        semantic[semantic == 255] = 1
        prediction.semantic = semantic
    evaluated(root / "runs" / "b", better[::-1], truths[::-1])
    return root / "runs" / "a", root / "runs" / "b"


def test_a_better_run_is_clearly_better_and_the_same_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = two_runs(tmp_path)
    found = compare_runs([first, second], 200, 0)
    assert list(found.figures) == ["box mAP 50-95", "mIoU", "panoptic quality"]
    pixels = found.figures["mIoU"]
    assert pixels[1].verdict == "better" and pixels[1].figure.value == 1
    difference = pixels[1].difference
    assert difference is not None and difference.low < difference.value < difference.high
    # The choices are the same for both: the difference is known better than either figure.
    back = compare_runs([second, first], 200, 0).figures["mIoU"][1]
    assert back.verdict == "worse" and back.difference is not None
    assert back.difference.low == pytest.approx(-difference.high)
    copy = tmp_path / "other" / "a"
    copy.mkdir(parents=True)
    (copy / IMAGES).write_bytes((first / IMAGES).read_bytes())
    same = compare_runs([first, copy], 50, 0).figures["mIoU"][1]
    assert same.difference is not None
    assert (same.difference.low, same.difference.high, same.verdict) == (0, 0, "not clear")
    assert same.figure.low < same.figure.high

    monkeypatch.chdir(tmp_path)
    main(["compare", "runs/a", "runs/b", "--choices=50", "--output=<b>.html"])
    said = capsys.readouterr().out
    assert "runs/b" in said and "better" in said and "30 images" in said
    page = (tmp_path / "<b>.html").read_text(encoding="utf-8")
    assert page.count("<h2>") == 3 and "runs/b" in page
    status, line = fails(capsys, "compare", "runs/a", "runs/c")
    assert status == 1 and line.startswith("error: runs/c: there is no images.safetensors") and line.count("\n") == 1


def test_only_runs_on_the_same_images_and_classes_are_compared(tmp_path: Path) -> None:
    predictions, truths = case(4)
    runs = tmp_path / "runs"
    evaluated(runs / "a", predictions, truths)
    evaluated(runs / "fewer", predictions[1:], truths[1:])
    evaluated(runs / "moved", predictions, [truth.replace(path=f"/else/{truth.image_id}.png") for truth in truths])
    other = Taxonomy.build(["a", "b", "d"], ["x", "y"])
    evaluated(runs / "classes", predictions, truths, other)
    with pytest.raises(DataError, match="at least two folders"):
        compare_runs([runs / "a"], 10, 0)
    for name, message in (
        ("fewer", "its 3 images are not the 4 of"),
        ("moved", r"different: 0.png, 4 in all"),
        ("classes", r"its classes are not those of .* \(different: c, d\)"),
        ("a", "the run is given more than once"),
    ):
        with pytest.raises(DataError, match=message) as refused:
            compare_runs([runs / "a", runs / name], 10, 0)
        assert "\n" not in str(refused.value)
    evaluated(runs / "boxes", predictions, truths, pixels=False)
    assert list(compare_runs([runs / "a", runs / "boxes"], 10, 0).figures) == ["box mAP 50-95"]
    evaluated(runs / "pixels", predictions, truths, boxes=False)
    assert list(compare_runs([runs / "pixels", runs / "a"], 10, 0).figures) == ["mIoU"]
    with pytest.raises(DataError, match="no figure in common"):
        compare_runs([runs / "boxes", runs / "pixels"], 10, 0)
    evaluated(runs / "none", [], [])
    evaluated(runs / "nothing", [], [])
    with pytest.raises(DataError, match="no images to compare"):
        compare_runs([runs / "none", runs / "nothing"], 10, 0)
