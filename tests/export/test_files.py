"""Whole files: what they give, and when they are not written."""

from __future__ import annotations

import copy
import subprocess
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import helper

from ocrnet_pl.errors import DataError, ModelFileError, RunError
from ocrnet_pl.export import files, raw, whole
from ocrnet_pl.export.describe import describe
from ocrnet_pl.export.files import CheckImage, export_onnx, export_openvino, export_torch
from ocrnet_pl.export.parity import Difference, Limits
from ocrnet_pl.export.probabilities import probability_maps
from ocrnet_pl.export.whole import WholeNetwork
from ocrnet_pl.inference.fusion import FusionPostProcess
from ocrnet_pl.inference.probabilities import Beta
from ocrnet_pl.inference.score_calibration import ScoreCalibration
from ocrnet_pl.inference.settings import FusionSettings
from ocrnet_pl.models.ocrnet import OCRNet
from ocrnet_pl.runtime import Model, sessions
from ocrnet_pl.runtime.description import Description
from ocrnet_pl.runtime.prediction import predictions
from ocrnet_pl.structures import Taxonomy
from tests.helpers.builders import TAXONOMY, tiny_network


class OtherRules(FusionPostProcess):
    """A post-processing of one's own."""


@pytest.fixture(scope="module")
def network() -> OCRNet:
    made = tiny_network().eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for value in made.parameters():
            value.add_(torch.randn(value.shape, generator=generator) * 0.2)
        # At random weights all scores are alike, and there is no box.
        for head in made.detection.class_head:  # type: ignore[union-attr]
            head.weight.add_(torch.randn(head.weight.shape, generator=generator))
            head.bias.add_(3.0)
    made.postprocess.settings = FusionSettings(temperature=0.4)  # type: ignore[assignment]
    return made


@pytest.fixture(scope="module")
def graph(network: OCRNet) -> onnx.ModelProto:
    return raw.network_graph(network)


@pytest.fixture(autouse=True)
def made_once(graph: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let all tests use one export of the network, which takes seconds."""

    def same(_: OCRNet) -> onnx.ModelProto:
        own = onnx.ModelProto()
        own.CopyFrom(graph)
        return own

    monkeypatch.setattr(files, "network_graph", same)
    monkeypatch.setattr(whole, "network_graph", same)


def images() -> list[CheckImage]:
    generator = torch.Generator().manual_seed(0)
    sizes = [(64, 64), (50, 90), (100, 41)]
    return [CheckImage(torch.randint(0, 256, (3, *size), dtype=torch.uint8, generator=generator)) for size in sizes]


def test_a_whole_file_gives_what_predict_gives(network: OCRNet, tmp_path: Path) -> None:
    path = tmp_path / "made" / "tiny.onnx"
    difference = export_onnx(network, path, images())
    assert difference.images == 3
    assert not difference.too_large
    assert {"boxes", "scores", "pixels", "segments", "lonely"} == set(difference.found)
    model = Model(path)
    assert model.class_names == ["disc", "square", "star"]
    assert model.pixel_names == ["sky", "ground", "disc", "square", "star"]
    assert model.description.score_thresholds == dict.fromkeys(model.class_names, 0.02)
    assert model.description.fusion == network.postprocess.dump_settings()
    image = images()[1].pixels
    (wanted,), got = network.predict(image), model(image.permute(1, 2, 0).numpy())
    assert len(wanted.boxes) > 10
    torch.testing.assert_close(torch.from_numpy(got.boxes), wanted.boxes, rtol=0, atol=1e-2)
    torch.testing.assert_close(torch.from_numpy(got.scores), wanted.scores, rtol=0, atol=1e-4)
    assert got.semantic is not None
    assert (got.semantic != wanted.semantic.numpy()).mean() < 1e-3  # type: ignore[union-attr]
    assert (got.taxonomy, got.size) == (TAXONOMY, (50, 90))
    # Images of one size, together.
    batch = np.stack([image.permute(1, 2, 0).numpy(), 255 - image.permute(1, 2, 0).numpy()])
    for one, own in zip(model.predict(batch), model.predict(list(batch)), strict=True):
        np.testing.assert_allclose(one.scores, own.scores, atol=1e-5)
        assert one.panoptic is not None
        assert own.panoptic is not None
        assert (one.panoptic != own.panoptic).mean() < 1e-3


def test_scores_that_are_probabilities_are_written(network: OCRNet, tmp_path: Path) -> None:
    made = copy.deepcopy(network)
    curves = {"raw": {}, "fused": {}}
    maps = {"raw": {"star": Beta(2.0, 1.0, 0.0)}, "fused": {"disc": Beta(0.4, 0.9, -1.5), "star": Beta(1.5, 0.2, 1.0)}}
    known = ScoreCalibration(3, 0.5, curves, maps, passes=made.postprocess.passes_text(None))
    made.postprocess.load_calibration(known.to_dict(), TAXONOMY)
    path = tmp_path / "probabilities.onnx"
    assert not export_onnx(made, path, images()).too_large
    image = images()[1].pixels
    (wanted,), got = made.predict(image), Model(path)(image.permute(1, 2, 0).numpy())
    (before,) = network.predict(image)
    assert (wanted.scores - before.scores).abs().max() > 0.01
    np.testing.assert_allclose(got.scores, wanted.scores.numpy(), atol=1e-4)
    # Boxes alone have maps of their own.
    np.testing.assert_array_equal(probability_maps(known, False, TAXONOMY)[2], [2.0, 1.0, 0.0])
    assert np.isnan(probability_maps(known, False, TAXONOMY)[:2]).all()


def test_a_raw_file_has_only_common_operators_and_takes_any_number_of_images(
    network: OCRNet, graph: onnx.ModelProto, tmp_path: Path
) -> None:
    path = tmp_path / "raw.onnx"
    assert not export_onnx(network, path, images(), raw=True).too_large
    assert {node.op_type for node in graph.graph.node} <= raw.OPERATORS
    assert not {"NonZero", "NonMaxSuppression", "Loop", "If", "Unique"} & raw.OPERATORS
    # By factors, for which there are fast kernels, and not to sizes.
    scaled = [node for node in graph.graph.node if node.op_type == "Resize"]
    assert scaled
    assert all(len(node.input) == 3 for node in scaled)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    shapes = {out.name: out.shape for out in session.get_outputs()}
    assert shapes == {"boxes": ["batch", 336, 4], "scores": ["batch", 336, 3], "logits": ["batch", 5, 32, 32]}
    batch = torch.randint(0, 256, (7, 3, 64, 64), dtype=torch.uint8)
    with torch.no_grad():
        wanted = network(batch)
    boxes, scores, logits = session.run(["boxes", "scores", "logits"], {"images": batch.numpy()})
    assert wanted.detection is not None
    for got, expected in (
        (boxes, wanted.detection.boxes),
        (scores, wanted.detection.scores),
        (logits, wanted.semantic),
    ):
        torch.testing.assert_close(torch.from_numpy(got), expected, rtol=1e-4, atol=1e-4)
    # Nothing of this machine goes along.
    assert str(Path.home()).encode() not in path.read_bytes()
    assert b"site-packages" not in path.read_bytes()


def test_an_operator_that_few_runtimes_have_is_refused(graph: onnx.ModelProto) -> None:
    strange = onnx.ModelProto()
    strange.CopyFrom(graph)
    strange.graph.node.append(helper.make_node("NonZero", ["x"], ["y"]))
    with pytest.raises(ValueError, match="the operators NonZero, which not all runtimes have"):
        raw.require_common_operators(strange)


@pytest.mark.parametrize("is_raw", [True, False])
def test_a_file_that_gives_something_else_is_not_kept(
    is_raw: bool, network: OCRNet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "tiny.onnx"
    path.write_bytes(b"the one before")
    changed = tiny_network().eval()
    changed.load_state_dict(network.state_dict())
    with torch.no_grad():
        for value in changed.segmentation.parameters():  # type: ignore[union-attr]
            value.add_(torch.randn(value.shape, generator=torch.Generator().manual_seed(2)))
    with pytest.raises(RunError, match=r"was not written.* on 3 images .*pixels of another class: .*allowed 0\.1"):
        export_onnx(changed, path, images(), raw=is_raw)
    assert path.read_bytes() == b"the one before"
    assert list(tmp_path.iterdir()) == [path]


def test_limits_and_images_are_taken_seriously(network: OCRNet, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="scores"):
        export_onnx(network, tmp_path / "tiny.onnx", images(), limits=Limits(scores=-1.0))
    with pytest.raises(DataError, match="at least one image"):
        export_onnx(network, tmp_path / "tiny.onnx", [])
    network_with_own = tiny_network().eval()
    network_with_own.postprocess = OtherRules()
    with pytest.raises(ValueError, match="OtherRules cannot be written into a file; export with --raw"):
        export_onnx(network_with_own, tmp_path / "tiny.onnx", images())
    assert not list(tmp_path.iterdir())


def test_the_graph_in_torch_gives_what_predict_gives(network: OCRNet) -> None:
    module = WholeNetwork(network).eval()
    assert module.state_dict()["score_thresholds"].tolist() == [pytest.approx(0.02)] * 3
    for image, _ in images():
        require_predicted(network, image[None], module(image.permute(1, 2, 0)[None]))


def require_predicted(network: OCRNet, batch: torch.Tensor, outputs: dict[str, torch.Tensor]) -> None:
    """Compare the outputs of a program with the predictions of the network for images, uint8 [B, C, H, W]."""
    got = predictions({name: values.numpy() for name, values in outputs.items()}, describe(network, False))
    # In images of a few pixels, many boxes are clipped to the same place, and it is not told which belongs to which.
    difference = Difference(Limits(lonely=0.1 if min(batch.shape[2:]) < 10 else 0.0))
    for image, own in zip(batch, got, strict=True):
        (wanted,) = network.predict(image)
        np.testing.assert_allclose(own.scores, wanted.scores.numpy(), atol=1e-6)
        difference.add(wanted, own, 0.0)
    difference.finish()
    assert not difference.too_large, (batch.shape, difference.found)


ALONE = """
import sys

import torch

class Forbidden:
    def find_spec(self, name, *_):
        if name.split(".")[0] == "ocrnet_pl":
            raise ImportError(f"{name} is forbidden")

sys.meta_path.insert(0, Forbidden())

held = {"ocrnet_pl": ""}
program = torch.export.load(sys.argv[1], extra_files=held)
results = [program.module()(images) for images in torch.load(sys.argv[2])]
program.state_dict["score_thresholds"].fill_(1.0)
nothing = program.module()(torch.load(sys.argv[2])[0])
assert not {"torchvision", "onnx", "onnxruntime"} & set(sys.modules)
torch.save((held["ocrnet_pl"], results, nothing), sys.argv[3])
"""
"""Runs a program where this package cannot be imported: on batches, then with thresholds that no score reaches."""


@pytest.fixture(scope="module")
def program(network: OCRNet) -> torch.export.ExportedProgram:
    return files.whole_program(network)


@pytest.mark.slow
def test_a_program_of_torch_export_needs_only_torch(
    network: OCRNet, program: torch.export.ExportedProgram, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "whole_program", lambda _: program)
    path = tmp_path / "all.pt2"
    assert export_torch(network, path, images()).found.keys() == {"boxes", "scores", "pixels", "segments", "lonely"}
    assert list(tmp_path.iterdir()) == [path]
    with zipfile.ZipFile(path) as archive:
        content = b"".join(map(archive.read, archive.namelist()))
    assert not [place for place in (str(Path.home()), "site-packages", "test_files") if place.encode() in content]
    generator = torch.Generator().manual_seed(4)
    shapes = [(2, 50, 90), (1, 64, 64), (3, 100, 41), (1, 1, 1), (1, 3, 700), (2, 500, 2), (5, 64, 64)]
    batches = [torch.randint(0, 256, (n, 3, *size), dtype=torch.uint8, generator=generator) for n, *size in shapes]
    batches.append(torch.zeros(2, 3, 80, 80, dtype=torch.uint8))
    torch.save([batch.permute(0, 2, 3, 1) for batch in batches], tmp_path / "batches.pt")
    words = [sys.executable, "-c", ALONE, path, tmp_path / "batches.pt", tmp_path / "results.pt"]
    subprocess.run(words, check=True, cwd=tmp_path)
    description, results, nothing = torch.load(tmp_path / "results.pt")
    assert Description.of({"ocrnet_pl": description}, "it") == describe(network, False)
    for batch, outputs in zip(batches, results, strict=True):
        require_predicted(network, batch, outputs)
    assert nothing["count"].tolist() == [0, 0]
    strict = copy.deepcopy(network)
    strict.postprocess.decode.score_threshold = 1.0  # type: ignore[union-attr, assignment]
    require_predicted(strict, batches[0], nothing)


@pytest.mark.slow
def test_a_program_that_gives_something_else_is_not_kept(
    network: OCRNet, program: torch.export.ExportedProgram, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "whole_program", lambda _: program)
    path = tmp_path / "all.pt2"
    path.write_bytes(b"the one before")
    changed = copy.deepcopy(network)
    with torch.no_grad():
        for value in changed.segmentation.parameters():  # type: ignore[union-attr]
            value.add_(torch.randn(value.shape, generator=torch.Generator().manual_seed(2)))
    with pytest.raises(RunError, match=r"was not written.* on 3 images .*pixels of another class: .*allowed 0\.1"):
        export_torch(changed, path, images())
    assert path.read_bytes() == b"the one before"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.slow
def test_a_program_may_hold_the_network_alone(network: OCRNet, tmp_path: Path) -> None:
    path = tmp_path / "alone.pt2"
    assert not export_torch(network, path, images(), raw=True).too_large
    assert list(tmp_path.iterdir()) == [path]
    held = {"ocrnet_pl": ""}
    program = torch.export.load(path, extra_files=held).module()
    assert Description.of(held, "it").taxonomy == TAXONOMY
    batch = torch.randint(0, 256, (5, 3, 64, 64), dtype=torch.uint8)
    with torch.no_grad():
        boxes, scores, logits = program(batch)
        wanted = network(batch)
    assert wanted.detection is not None
    torch.testing.assert_close(boxes, wanted.detection.boxes, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(scores, wanted.detection.scores, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(logits, wanted.semantic, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("is_raw", [True, False])
def test_openvino_gives_the_same(
    is_raw: bool, network: OCRNet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("openvino")
    path = tmp_path / "tiny.xml"
    assert not export_openvino(network, path, images(), is_raw).too_large
    assert sorted(each.name for each in tmp_path.iterdir()) == ["tiny.bin", "tiny.xml"]
    if is_raw:
        with pytest.raises(ModelFileError, match="the network alone"):
            Model(path)
        return
    image = images()[1].pixels
    (wanted,), got = network.predict(image), Model(path, threads=1)(image.permute(1, 2, 0).numpy())
    torch.testing.assert_close(torch.from_numpy(got.boxes), wanted.boxes, rtol=0, atol=1e-2)
    model, pixels = Model(path), image.permute(1, 2, 0).numpy()
    with ThreadPoolExecutor(4) as threads:
        for each in threads.map(model, [pixels] * 20):
            np.testing.assert_array_equal(each.boxes, got.boxes)
    monkeypatch.setattr(sessions, "_EXACT", 1)
    with pytest.raises(DataError, match="the boxes have too many pixels for OpenVINO to count; scale the image down"):
        model(pixels)
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(ModelFileError, match="OpenVINO cannot load it"):
        Model(path)


@pytest.mark.slow
@pytest.mark.parametrize(("detection", "segmentation"), [(True, False), (False, True)])
def test_networks_of_one_task(
    detection: bool, segmentation: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # So many classes that they are the last axis while maps are scaled.
    many = Taxonomy.build(["disc", "square", "star"], [f"stuff {number}" for number in range(6)])
    single = tiny_network(many, detection, segmentation).eval()
    single.postprocess.decode.score_threshold = 0.001  # type: ignore[union-attr, assignment]
    made = raw.network_graph(single)
    monkeypatch.setattr(whole, "network_graph", lambda _: made)
    assert not export_onnx(single, tmp_path / "one.onnx", images()).too_large
    assert not export_torch(single, tmp_path / "one.pt2", images()).too_large
    got = Model(tmp_path / "one.onnx")(images()[0].pixels.permute(1, 2, 0).numpy())
    assert (got.semantic is not None) is segmentation
    assert (len(got.scores) > 0) is detection
    assert got.panoptic is None
