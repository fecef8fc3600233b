"""Prediction at several scales and mirrored, against single passes put together by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from ocrnet_pl import MultiScale, OCRNet, Tiling
from ocrnet_pl.cli.main import main
from ocrnet_pl.data.sources.synthetic import SyntheticSource
from ocrnet_pl.data.transforms import letterbox_image
from ocrnet_pl.errors import UsageError
from ocrnet_pl.inference.decode import Decode, Detections
from ocrnet_pl.inference.fusion import FusionPostProcess, SemanticMap
from ocrnet_pl.models.base import PostProcess
from ocrnet_pl.structures import Output, Placement, Prediction, Predictions, Taxonomy
from ocrnet_pl.training.task import OCRNetTask
from tests.helpers.builders import TAXONOMY, TinyEncoder, tiny_network
from tests.helpers.project import CONFIGS
from tests.helpers.tiny_run import TINY, last_figures, learnt, pixel_accuracy
from tests.inference.test_tiling import oracle, scattered, scene

CONFIG = CONFIGS / "overlays/inference/multiscale.yaml"
SIZES = [(64, 64), (64, 30), (17, 50), (101, 77), (1, 1), (200, 3)]


def noise(size: tuple[int, int], seed: int = 1) -> Tensor:
    return torch.randint(0, 256, (3, *size), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def doubtful_network(**parts: bool) -> OCRNet:
    """An untrained network whose boxes all count."""
    network = tiny_network(**parts, bins=None).eval()
    network.postprocess.decode.score_threshold = 1e-4
    return network


def same(one: Prediction, other: Prediction) -> bool:
    names = ("boxes", "scores", "labels", "semantic", "instances", "panoptic")
    return all(torch.equal(getattr(one, n), getattr(other, n)) for n in names) and one.segments == other.segments


class Spy(FusionPostProcess):
    """Keeps what it was given to join."""

    def __init__(self) -> None:
        super().__init__(Decode(score_threshold=1e-4))
        self.seen: list[tuple[Detections, Tensor]] = []

    def join(self, detections: Detections | None, semantic: SemanticMap | None, taxonomy: Taxonomy) -> Predictions:
        assert detections is not None and semantic is not None
        self.seen.append((detections, semantic.probability.clone()))
        return super().join(detections, semantic, taxonomy)


@pytest.mark.parametrize("size", SIZES)
def test_one_scale_without_a_mirror_is_the_plain_prediction(size: tuple[int, int]) -> None:
    network = doubtful_network()
    image = noise(size)
    plain = network.predict(image)[0]
    found = network.predict(image, multiscale=MultiScale(scales=(1.0,), flip=False))[0]
    assert len(plain.scores)
    assert same(found, plain)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("axis", [-1, -2])
def test_a_mirrored_image_gives_the_mirrored_prediction(size: tuple[int, int], axis: int) -> None:
    """Mirrors included, the passes are the same in another order; with padding, nothing of it may leak."""
    network = doubtful_network()
    network.postprocess = spy = Spy()
    image = noise(size)
    way = MultiScale(scales=(0.75, 1.0, 1.5), flip=axis == -1, flip_vertical=axis == -2)
    way.predict(network, [image, image.flip(axis).contiguous()])
    (boxes, probability), (mirrored_boxes, mirrored) = spy.seen
    assert (probability - mirrored.flip(axis)).abs().max() < 1e-4
    length, low = size[axis], 0 if axis == -1 else 1
    back = mirrored_boxes.boxes.clone()
    back[:, low], back[:, low + 2] = length - mirrored_boxes.boxes[:, low + 2], length - mirrored_boxes.boxes[:, low]
    assert len(boxes.scores) == len(back)
    assert torch.allclose(boxes.scores, mirrored_boxes.scores, atol=1e-4)
    # Boxes of nearly the same score may change places; over a single color, all have.
    if size != (1, 1):
        assert torch.cdist(boxes.boxes, back, p=torch.inf).min(1).values.max() < 0.05


@pytest.mark.parametrize("size", [(64, 64), (97, 130), (50, 23)])
def test_logits_are_averaged_as_written_by_hand(size: tuple[int, int]) -> None:
    network = doubtful_network()
    network.postprocess = spy = Spy()
    image = noise(size, 2)
    total = np.zeros((TAXONOMY.num_semantic, *size))
    for scale in (0.5, 1.0, 1.3):
        side = round(64 * scale)
        for mirror in (False, True):
            # The image itself is mirrored here, before it is scaled and padded.
            boxed, placement = letterbox_image(image.flip(-1).contiguous() if mirror else image, (side, side))
            with torch.inference_mode():
                output = network(boxed[None])
            assert output.semantic is not None
            logits = torch.nn.functional.interpolate(
                output.semantic, scale_factor=float(output.stride), mode="bilinear", align_corners=False
            )
            height, width = (round(s * f) for s, f in zip(size, placement.scale, strict=True))
            back = torch.nn.functional.interpolate(
                logits[..., :height, :width], size=size, mode="bilinear", align_corners=False
            )[0].numpy()
            total += back[..., ::-1] if mirror else back
    expected = torch.from_numpy(total / 6).softmax(0)
    network.predict(image, multiscale=MultiScale(scales=(0.5, 1.0, 1.3)))
    assert (spy.seen[0][1] - expected).abs().max() < 2e-3


@pytest.mark.parametrize("options", [{"scales": (1.0,)}, {"scales": (0.5, 1.0, 2.0), "flip_vertical": True}])
@pytest.mark.parametrize("size", [(64, 64), (64, 41), (33, 64)])
def test_what_every_pass_sees_comes_out_as_it_is(
    monkeypatch: pytest.MonkeyPatch, size: tuple[int, int], options: dict[str, tuple[float, ...]]
) -> None:
    """An oracle reads each object's box and class from the pixels, mirrored or scaled; blocks survive scaling."""
    network, stub = oracle(monkeypatch, 64)
    boxes = [(2, 4, 14, 20), (20, 6, 30, 28)]
    image = scene(size, boxes)
    if 0.5 in options["scales"]:
        # Only nearest sampling keeps the oracle's numbers; the test is of the places.
        monkeypatch.setattr("ocrnet_pl.inference.multiscale.letterbox_image", _nearest)
    way = MultiScale(**options)  # type: ignore[arg-type]
    found = network.predict(image, multiscale=way)[0]
    plain = network.predict(image)[0]
    assert len(stub.passes) == len(way.scales) * (4 if way.flip_vertical else 2) + 1
    assert found.labels.tolist() == plain.labels.tolist()
    # Exact but for scaled sides of half a pixel, which the oracle cannot see.
    exact = way.scales == (1.0,) or size == (64, 64)
    assert (found.boxes - plain.boxes).abs().max() < (1e-3 if exact else 0.25)
    assert found.scores.tolist() == pytest.approx([0.9, 0.9], abs=0.2)
    if way.scales == (1.0,):
        assert torch.equal(found.semantic, plain.semantic)  # type: ignore[arg-type]


def _nearest(image: Tensor, size: tuple[int, int]) -> tuple[Tensor, Placement]:
    from ocrnet_pl.data.transforms import letterbox_placement

    placement = letterbox_placement((image.shape[1], image.shape[2]), size)
    inside = [round(s * f) for s, f in zip(placement.original_size, placement.scale, strict=True)]
    canvas = torch.full((3, *size), 114, dtype=torch.uint8)
    scaled = torch.nn.functional.interpolate(image[None].float(), size=inside, mode="nearest-exact")[0]
    canvas[:, : inside[0], : inside[1]] = scaled.to(torch.uint8)
    return canvas, placement


def test_every_scale_starts_from_the_original(monkeypatch: pytest.MonkeyPatch) -> None:
    """At scale 2 a large image is shown at its own resolution, not blown up from the input's."""
    network = doubtful_network()
    shown: list[Tensor] = []
    forward = network.forward
    monkeypatch.setattr(network, "forward", lambda images: (shown.append(images.clone()), forward(images))[1])
    image = noise((128, 128))
    network.predict(image, multiscale=MultiScale(scales=(2.0,)))
    assert torch.equal(shown[0][0], image)
    assert torch.equal(shown[1][0], image.flip(-1))


def test_several_images_are_predicted_as_one_by_one() -> None:
    network = doubtful_network()
    images = [noise(size, seed) for seed, size in enumerate([(64, 64), (40, 90), (120, 31)])]
    way = MultiScale(scales=(1.0, 1.25))
    together = way.predict(network, images)
    assert together.fused is not None
    for image, found in zip(images, together.fused, strict=True):
        assert found.semantic is not None and found.semantic.shape == image.shape[1:]
        alone = way(network, image).best[0]
        assert (found.semantic == alone.semantic).float().mean() > 0.999
        assert torch.allclose(found.scores, alone.scores, atol=1e-4)


@pytest.mark.parametrize("parts", [{"detection": False}, {"segmentation": False}])
def test_networks_of_one_task_are_fused_too(parts: dict[str, bool]) -> None:
    network = doubtful_network(**parts)
    found = network.predict(noise((90, 50)), multiscale=MultiScale())[0]
    assert (found.semantic is None) == ("segmentation" in parts)
    assert (len(found.scores) == 0) == ("detection" in parts)
    if found.semantic is not None:
        assert found.semantic.shape == (90, 50)


def test_an_image_without_objects_has_no_boxes(monkeypatch: pytest.MonkeyPatch) -> None:
    network, _ = oracle(monkeypatch, 64)
    found = network.predict(scene((64, 64), []), multiscale=MultiScale(scales=(1.0,)))[0]
    assert found.boxes.shape == (0, 4)
    assert [segment.instance for segment in found.segments] == [None, None]
    crowded = scene((64, 64), scattered((64, 64), 10, 12, 0))
    assert len(network.predict(crowded, multiscale=MultiScale(scales=(1.0,)))[0].scores) == 12


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"scales": ()}, "scales"),
        ({"scales": (1.0, 0.0)}, "scales"),
        ({"scales": (float("nan"),)}, "scales"),
        ({"scales": (1.0, 1.0)}, "scales"),
        ({"scales": (1e9,)}, r"scales: expected factors from 0\.1 to 10, got 1e\+09$"),
        ({"scales": (0.09,)}, r"scales: expected factors from 0\.1 to 10, got 0\.09$"),
        ({"iou_threshold": 0.0}, "iou_threshold"),
        ({"iou_threshold": 1.0}, "iou_threshold"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, object], name: str) -> None:
    with pytest.raises(ValueError, match=f"multiscale.{name}"):
        MultiScale(**options)  # type: ignore[arg-type]


def test_an_input_that_would_be_too_large_is_refused_before_it_is_made() -> None:
    network, way = doubtful_network(), MultiScale(scales=(1.0, 10.0))
    assert way.sizes((1000, 1500)) == [(1000, 1500), (10_000, 15_000)]
    network.input_size = (1000, 2001)
    said = r"multiscale\.scales: at 10 the input is 20010 x 10000, more than the limit of 200 megapixels; give smaller"
    with pytest.raises(UsageError, match=said):
        network.predict(noise((9, 9)), multiscale=way)


def test_the_cost_counts_the_pixels_of_all_passes() -> None:
    assert MultiScale(scales=(1.0,), flip=False).cost == 1
    assert MultiScale(scales=(0.5, 1.0)).cost == 2.5
    assert MultiScale(scales=(0.5, 1.0), flip_vertical=True).cost == 5


def test_a_foreign_postprocess_and_two_ways_at_once_are_refused() -> None:
    class Own(PostProcess):
        def forward(self, output: Output, placements: list[Placement], taxonomy: Taxonomy) -> Predictions:  # type: ignore[override]
            raise NotImplementedError

    network = doubtful_network()
    with pytest.raises(ValueError, match="tile and multiscale"):
        network.predict(noise((9, 9)), tile=Tiling(), multiscale=MultiScale())
    with pytest.raises(ValueError, match="tile and multiscale"):
        OCRNetTask(TAXONOMY, TinyEncoder(), tile=Tiling(), multiscale=MultiScale())
    network.postprocess = Own()
    with pytest.raises(ValueError, match="Own cannot join passes"):
        network.predict(noise((9, 9)), multiscale=MultiScale())


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A config and the last checkpoint of its run."""
    root = tmp_path_factory.mktemp("multiscale")
    config = root / "tiny.yaml"
    config.write_text(TINY)
    main(["fit", "--config", str(config), "--trainer.default_root_dir", str(root), "--trainer.max_epochs=1"])
    return config, root / "tiny" / "version_0" / "checkpoints" / "last.ckpt"


@pytest.mark.slow
def test_the_overlay_validates_with_its_own_figures(tmp_path: Path) -> None:
    """configs/overlays/inference/multiscale.yaml on top of another config, through the command line."""
    import yaml

    settings = yaml.safe_load(CONFIG.read_text())["model"]["multiscale"]
    assert MultiScale(**{k: tuple(v) if k == "scales" else v for k, v in settings.items()}) == MultiScale()
    config = tmp_path / "tiny.yaml"
    config.write_text(TINY)
    checkpoint = learnt(config, tmp_path / "fit")
    words = ["--ckpt_path", str(checkpoint), "--trainer.default_root_dir"]
    main(["validate", "--config", str(config), *words, str(tmp_path / "plain")])
    main(["validate", "--config", str(config), "--config", str(CONFIG), *words, str(tmp_path / "passes")])
    plain, passes = (last_figures(tmp_path / kind) for kind in ("plain", "passes"))
    # The losses were trained with single passes.
    assert set(passes) == {name for name in plain if not name.startswith("val/loss")} < set(plain)
    assert plain["val/pixel_accuracy"] != passes["val/pixel_accuracy"]
    source = SyntheticSource(length=5, seed=2, size=64)
    assert passes["val/pixel_accuracy"] == pytest.approx(pixel_accuracy(checkpoint, source, multiscale=MultiScale()))


@pytest.mark.slow
def test_the_command_line_predicts_with_it(
    trained: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, checkpoint = trained
    images = tmp_path / "images"
    images.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (90, 131, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(images / "one.png")
    words = ["predict", "--config", str(config), "--config", str(CONFIG), "--ckpt_path", str(checkpoint)]
    words += ["--data.predict_path", str(images), "--trainer.default_root_dir", str(tmp_path)]
    main([*words, "--model.multiscale.scales=[0.75,1.0]"])
    network = OCRNet.from_checkpoint(checkpoint, trust="tests")
    expected = network.predict(images / "one.png", multiscale=MultiScale(scales=(0.75, 1.0)))[0]
    out = tmp_path / "tiny" / "version_0" / "predictions"
    with Image.open(out / "semantic" / "one.png.png") as picture:
        assert (np.asarray(picture) == expected.semantic.numpy()).all()  # type: ignore[union-attr]
    with pytest.raises(SystemExit):
        main([*words, "--model.tile.overlap=0.25"])
    assert "tile and multiscale are both given" in capsys.readouterr().err
