"""Files in half precision and int8: what they cost, and when they are not written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, numpy_helper

from ocrnet_pl.data.records import make_sample
from ocrnet_pl.errors import DataError, RunError
from ocrnet_pl.export import reduced
from ocrnet_pl.export.figures import losses, measure, predictor
from ocrnet_pl.export.files import CheckImage, onnx_model, write_onnx
from ocrnet_pl.export.half import half_graph
from ocrnet_pl.export.int8 import Int8
from ocrnet_pl.export.layers import WEIGHTED, inner_layers
from ocrnet_pl.export.raw import network_graph
from ocrnet_pl.export.reduced import export_half, export_int8
from ocrnet_pl.export.search import fewest
from ocrnet_pl.export.sensitivity import rank_layers
from ocrnet_pl.inference.fusion import FusionPostProcess
from ocrnet_pl.metrics.evaluation import EvaluationMetrics
from ocrnet_pl.models.detection import AnchorFreeDecoder
from ocrnet_pl.models.necks import PathAggregationNeck
from ocrnet_pl.models.ocrnet import OCRNet
from ocrnet_pl.models.segmentation import SubPixelDecoder
from ocrnet_pl.runtime import Model
from ocrnet_pl.structures import Sample, Supervision
from tests.helpers.builders import TAXONOMY, TinyEncoder

PLANTED = {"encoder.stages.0", "encoder.stages.1", "neck.lateral.0.0"}
"""The layers that make or read the values of which one channel is out of all proportion."""


@pytest.fixture(scope="module")
def network() -> OCRNet:
    torch.manual_seed(0)
    made = OCRNet(
        TAXONOMY,
        TinyEncoder(),
        lambda c, s: PathAggregationNeck(c, s, width=32),
        # Of random weights, distributions have means that are all alike.
        lambda c, s, t: AnchorFreeDecoder(c, s, t, bins=None),
        lambda s, t: SubPixelDecoder(s, t, width=32, detail=8),
        FusionPostProcess(),
        input_size=(64, 64),
    ).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for value in made.parameters():
            # At random weights all scores are alike.
            value.add_(torch.randn(value.shape, generator=generator) * 0.1)
        for head in made.detection.class_head:  # type: ignore[union-attr]
            head.bias.fill_(-1.0)
    return made


@pytest.fixture(scope="module")
def graph(network: OCRNet) -> onnx.ModelProto:
    return network_graph(network)


@pytest.fixture(scope="module")
def planted(graph: onnx.ModelProto) -> onnx.ModelProto:
    """Return the same network with one channel that is much larger, and read with weights that are much smaller."""
    made = onnx.ModelProto()
    made.CopyFrom(graph)
    factor, found = 2000.0, 0
    for constant in made.graph.initializer:
        values = numpy_helper.to_array(constant).copy()
        if constant.name in ("network.encoder.stages.0.weight", "network.encoder.stages.0.bias"):
            values[3] *= factor
        elif constant.name in ("network.encoder.stages.1.weight", "network.neck.lateral.0.0.weight"):
            values[:, 3] /= factor
        else:
            continue
        found += 1
        constant.CopyFrom(numpy_helper.from_array(values, constant.name))
    assert found == 4
    return made


@pytest.fixture(scope="module")
def ranked(network: OCRNet, planted: onnx.ModelProto) -> list[tuple[str, float]]:
    """Return the layers of the planted network by what each costs."""
    images = boxed(noise(12, seed=3), network)
    return rank_layers(Int8(planted, images[3:]), images[:3])


@pytest.fixture
def uses(monkeypatch: pytest.MonkeyPatch) -> Callable[[onnx.ModelProto], None]:
    """Return what lets exports use a graph that was made before."""
    return lambda model: monkeypatch.setattr(reduced, "network_graph", lambda _: model)


def noise(count: int, seed: int) -> list[CheckImage]:
    generator = torch.Generator().manual_seed(seed)
    made = []
    for _ in range(count):
        coarse = torch.rand(1, 3, 6, 7, generator=generator) * 255
        made.append(
            CheckImage(torch.nn.functional.interpolate(coarse, (60, 80), mode="bicubic")[0].clamp(0, 255).byte())
        )
    return made


@pytest.fixture(scope="module")
def samples(network: OCRNet) -> list[Sample]:
    """Return images whose truth is what the network sees in them, so that the network itself is perfect."""
    made = []
    for place, image in enumerate(noise(4, seed=5)):
        (seen,) = network.predict(image.pixels)
        assert seen.semantic is not None
        assert len(seen.scores) > 3
        assert seen.instances is not None
        instances = seen.instances.numpy()
        made.append(
            make_sample(
                image.pixels,
                boxes=seen.boxes[:6],
                labels=seen.labels[:6],
                crowd=[False] * len(seen.labels[:6]),
                supervision=Supervision.full(TAXONOMY),
                semantic=seen.semantic.numpy(),
                instances=np.where(instances <= 6, instances, 0).astype(np.int32),
                image_id=place,
            )
        )
    return made


def boxed(images: list[CheckImage], network: OCRNet) -> list[np.ndarray]:
    from ocrnet_pl.imaging.geometry import letterbox_image

    return [letterbox_image(each.pixels, network.input_size)[0][None].numpy() for each in images]


def outputs(model: onnx.ModelProto, image: np.ndarray) -> dict[str, np.ndarray]:
    import onnxruntime

    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [out.name for out in session.get_outputs()]
    return dict(zip(names, session.run(names, {"images": image}), strict=True))


def test_half_precision_keeps_what_needs_more(network: OCRNet, graph: onnx.ModelProto) -> None:
    halved = half_graph(graph)
    assert [*halved.graph.input] == [*graph.graph.input]
    assert [*halved.graph.output] == [*graph.graph.output]
    kinds = {each.name: each.data_type for each in halved.graph.initializer}
    weights = {n.input[1] for n in halved.graph.node if n.op_type in WEIGHTED}
    full = {name for name in weights if kinds[name] == TensorProto.FLOAT}
    assert {name for name in full if "head" in name} == full
    assert any("box_head" in name for name in full)
    assert any("class_head" in name for name in full)
    assert len(full) < len(weights) / 3
    assert halved.ByteSize() < 0.65 * graph.ByteSize()
    # Boxes are made in float32: they lie where float32 has them, not on the grid of half precision.
    (image,) = boxed(noise(1, seed=2), network)
    wanted, found = outputs(graph, image), outputs(halved, image)
    for name, allowed in (("boxes", 0.1), ("scores", 0.003), ("logits", 0.03)):
        np.testing.assert_allclose(found[name], wanted[name], atol=allowed)
        assert (found[name] != found[name].astype(np.float16)).mean() > 0.5


def test_int8_leaves_the_last_layers_alone(network: OCRNet, graph: onnx.ModelProto) -> None:
    images = boxed(noise(12, seed=3), network)
    int8 = Int8(graph, images)
    names = [layer.name for layer in int8.layers]
    assert names == [layer.name for layer in inner_layers(int8.model)]
    assert len(set(names)) == len(names)
    assert not any("head.0" in name and "detection" in name for name in names)
    made = int8.graph(names)
    kinds = {each.name: each.data_type for each in made.graph.initializer}
    assert kinds["network.encoder.stages.1.weight_quantized"] == TensorProto.INT8
    assert kinds["network.detection.box_head.0.weight"] == TensorProto.FLOAT
    scale = next(each for each in made.graph.initializer if each.name == "network.encoder.stages.1.weight_scale")
    assert list(scale.dims) == [12]
    assert made.ByteSize() < 0.6 * graph.ByteSize()
    # The same images give the same bytes; a layer that is not named stays as it was.
    assert Int8(graph, images).graph(names).SerializeToString() == made.SerializeToString()
    kept = int8.graph([name for name in names if name != "encoder.stages.1"])
    assert {each.name: each.data_type for each in kept.graph.initializer}["network.encoder.stages.1.weight"] == 1
    np.testing.assert_array_equal(outputs(int8.graph([]), images[0])["logits"], outputs(graph, images[0])["logits"])


def test_the_search_puts_a_planted_layer_back(
    network: OCRNet,
    planted: onnx.ModelProto,
    ranked: list[tuple[str, float]],
    samples: list[Sample],
    tmp_path: Path,
    uses: Callable[[onnx.ModelProto], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def rank(int8: Int8, images: list[np.ndarray]) -> list[tuple[str, float]]:
        """Return the order, which takes a network per layer to find, of the same layers."""
        assert len(images) == 3
        assert sorted(layer.name for layer in int8.layers) == sorted(name for name, _ in ranked)
        return ranked

    monkeypatch.setattr(reduced, "rank_layers", rank)
    uses(planted)
    path = tmp_path / "tiny.onnx"
    told: list[str] = []
    calibration = [image[0] for image in boxed(noise(12, seed=7), network)]
    found = export_int8(
        network, path, noise(3, seed=0), samples, calibration, max_loss=0.1, max_trials=12, tell=told.append
    )
    assert set(found.float_layers) >= PLANTED
    assert len(found.float_layers) < found.layers / 2
    assert found.before["map"] > 0.3
    assert found.before["miou"] > 0.99
    assert max(losses(found.before, found.after).values()) <= 0.1
    assert found.sizes[1] == path.stat().st_size < found.sizes[0]
    assert min(found.seconds) > 0
    # Without going back, it would have cost much more.
    assert told[1].startswith("int8, 0 of")
    assert float(told[1].split("mIoU ")[1].split(",")[0]) < found.before["miou"] - 0.2
    assert list(tmp_path.iterdir()) == [path]
    # The runtime reads it, and its figures are those that were told.
    model = Model(path)
    known = model.description.precision
    assert known["float_layers"] == found.float_layers
    assert known["calibration_images"] == 9
    assert known["figures"]["int8"] == pytest.approx(found.after, abs=1e-6)
    assert measure(predictor(network, path, False), samples, TAXONOMY) == found.after
    # A bar that is out of reach: nothing is written, and the file of before stays.
    before = path.read_bytes()
    with pytest.raises(RunError, match=r"was not written, because int8 costs more than max_loss 0\.01 in 2 trials"):
        export_int8(network, path, noise(3, seed=0), samples, calibration, raw=True, max_trials=2, tell=told.append)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(DataError, match="at least two images to calibrate on; found 1"):
        export_int8(network, path, noise(3, seed=0), samples, calibration[:1], tell=told.append)


def test_planted_layers_cost_most(ranked: list[tuple[str, float]]) -> None:
    assert {name for name, _ in ranked[:3]} == PLANTED
    assert [cost for _, cost in ranked] == sorted((cost for _, cost in ranked), reverse=True)


@pytest.mark.parametrize("raw", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_half_precision_as_a_file(
    raw: bool,
    network: OCRNet,
    graph: onnx.ModelProto,
    samples: list[Sample],
    tmp_path: Path,
    uses: Callable[[onnx.ModelProto], None],
) -> None:
    uses(graph)
    path = tmp_path / "tiny.onnx"
    told: list[str] = []
    found = export_half(network, path, noise(3, seed=0), samples, raw=raw, max_loss=0.05, tell=told.append)
    assert [line.split(":")[0] for line in told] == ["float32", "half precision"]
    assert not found.difference.too_large
    assert found.sizes[1] < found.sizes[0]
    if not raw:
        plain = tmp_path / "plain.onnx"
        write_onnx(onnx_model(network, False, graph), plain, lambda _: None)
        image = noise(1, seed=0)[0].pixels.permute(1, 2, 0).numpy()
        ours, theirs = Model(plain)(image), Model(path)(image)
        assert (ours.semantic == theirs.semantic).mean() > 0.99
        assert Model(path).description.precision["name"] == "fp16"
        assert Model(plain).description.precision == {}
    with pytest.raises(RunError, match="half precision costs more than max_loss -1"):
        export_half(network, tmp_path / "other.onnx", noise(3, seed=0), samples, raw=raw, max_loss=-1, tell=told.append)
    assert not (tmp_path / "other.onnx").exists()


def test_a_weight_that_half_precision_cannot_hold_is_named(graph: onnx.ModelProto) -> None:
    large = onnx.ModelProto()
    large.CopyFrom(graph)
    weight = next(each for each in large.graph.initializer if each.name == "network.encoder.stages.1.weight")
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * 1e7, weight.name))
    with pytest.raises(ValueError, match=r"encoder\.stages\.1\.weight: it has weights above 65504"):
        half_graph(large)


def test_figures_are_those_of_the_evaluation(network: OCRNet, samples: list[Sample]) -> None:
    from ocrnet_pl.imaging.geometry import letterbox_image

    # Of other images' truths, so that no figure is 1.
    mixed = [other.replace(image=own.image) for own, other in zip(samples, samples[1:] + samples[:1], strict=True)]
    ours = measure(lambda image: network.predict(image)[0], [*samples, *mixed[:3]], TAXONOMY)
    metrics = EvaluationMetrics(TAXONOMY, True, True)
    for sample in [*samples, *mixed[:3]]:
        image, placement = letterbox_image(sample.image.as_subclass(torch.Tensor), network.input_size)
        with torch.inference_mode():
            found = network.postprocessed(network(image[None]), [placement])
        metrics.update(found, SimpleNamespace(truths=[sample]))  # type: ignore[arg-type]
    theirs = metrics.compute()
    assert set(ours) == {"map", "miou", "pq"}
    for name, value in ours.items():
        assert 0 < value < 0.999
        assert value == pytest.approx(float(theirs[f"fused_{name}"]), abs=1e-6)


@pytest.mark.parametrize("most", [1, 2, 5, 11, 40])
def test_the_search_finds_the_fewest(most: int) -> None:
    for needed in range(most + 2):
        tried: list[int] = []

        def passes(number: int, needed: int = needed, tried: list[int] = tried) -> bool:
            tried.append(number)
            return number >= needed

        assert fewest(most, 99, passes) == (needed if needed <= most else None)
        assert len(tried) == len(set(tried)) <= 2 * (most + 1).bit_length() + 1
        for trials in range(1, 8):
            tried.clear()
            some = fewest(most, trials, passes)
            assert len(tried) <= trials
            assert some is None or (some >= needed and some in tried)


@pytest.mark.slow
def test_openvino_takes_both(
    network: OCRNet,
    graph: onnx.ModelProto,
    samples: list[Sample],
    tmp_path: Path,
    uses: Callable[[onnx.ModelProto], None],
) -> None:
    pytest.importorskip("openvino")
    uses(graph)

    def silent(line: str) -> None:
        assert line

    half, small = tmp_path / "half.xml", tmp_path / "small.xml"
    found = export_half(network, half, noise(3, seed=0), samples, openvino=True, max_loss=0.05, tell=silent)
    weights = sum(len(constant.raw_data) for constant in graph.graph.initializer)
    assert half.with_suffix(".bin").stat().st_size < 0.75 * weights
    assert Model(half).description.precision["name"] == "fp16"
    calibration = [image[0] for image in boxed(noise(40, seed=7), network)]
    found = export_int8(
        network, small, noise(3, seed=0), samples, calibration, openvino=True, max_loss=0.3, tell=silent
    )
    assert measure(predictor(network, small, False), samples, TAXONOMY) == found.after
    assert sorted(each.name for each in tmp_path.iterdir()) == ["half.bin", "half.xml", "small.bin", "small.xml"]
