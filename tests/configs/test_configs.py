"""Every file below configs/ takes a training step, and what it names is what trains."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from functools import partial
from itertools import chain, pairwise
from operator import attrgetter
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import yaml
from jsonargparse import ArgumentParser

from ocrnet_pl.cli.main import main
from ocrnet_pl.data.sources.synthetic import SyntheticSource
from ocrnet_pl.losses.detection import TutorialDetectionLoss
from ocrnet_pl.models.ocrnet import OCRNet
from tests.helpers.config_data import DATA
from tests.helpers.processes import run_together
from tests.helpers.project import CONFIGS, ROOT
from tests.helpers.teachers import write_teacher
from tests.helpers.tool_data import TOOLS

READ = {f"formats/{name}.yaml" for name in TOOLS}
"""Configs that differ from another one only in their data, which test_config_tools.py reads."""

FOUND = sorted({path.relative_to(CONFIGS).as_posix() for path in CONFIGS.rglob("*.yaml")} - READ)
OVERLAYS = ("overlays/", "presets/")
PRESETS = [name for name in FOUND if name.startswith("presets/")]
EXPERIMENTS = [name for name in FOUND if not name.startswith((*OVERLAYS, "sweeps/"))]
STEP = [
    "--trainer.max_epochs=1",
    "--trainer.check_val_every_n_epoch=1",
    "--trainer.limit_train_batches=1",
    "--trainer.limit_val_batches=1",
    "--trainer.num_sanity_val_steps=0",
    "--trainer.log_every_n_steps=1",
    "--trainer.enable_progress_bar=false",
    "--data.num_workers=0",
    "--data.batch_size=2",
    "--data.eval_batch_size=2",
]
TWO_PROCESSES = [
    "--trainer.accelerator=cpu",
    "--trainer.devices=2",
    "--trainer.limit_train_batches=2",
    "--data.train.init_args.length=8",
    "--data.cache=false",
]
MORE: dict[str, list[str]] = {
    # Two steps, the second of which is that of a static graph; gradients are exchanged at each second batch.
    "overlays/distributed/ddp.yaml": [
        *TWO_PROCESSES,
        "--trainer.limit_train_batches=4",
        "--data.train.init_args.length=16",
        "--trainer.accumulate_grad_batches=2",
    ],
    **{
        f"overlays/distributed/{name}.yaml": [
            *TWO_PROCESSES,
            f"--config={CONFIGS / 'overlays/distributed/bf16.yaml'}",
            "--model.encoder.init_args.name=test_convnext",
            "--trainer.strategy.init_args.block_parameters=1000",
        ]
        for name in ("fsdp", "fsdp_bf16")
    },
    # It validates in the middle of what would be many epochs.
    "overlays/low_data.yaml": ["--trainer.val_check_interval=1.0"],
    # Dynamo's own backend runs the traced graphs as they are; the overlay's compiles for a minute.
    "overlays/speed/compile.yaml": ["--model.compile_backend=eager", "--trainer.limit_val_batches=0"],
    **{
        f"overlays/balancing/{name}.yaml": ["--gradients.every_n_steps=1"]
        for name in ("uncertainty", "dynamic_weight_average", "gradnorm", "pcgrad")
    },
}
"""What a config needs to be run small, besides the options that all get."""


def _teacher(folder: Path) -> list[str]:
    encoder = {"class_path": "ocrnet_pl.models.encoder.TimmEncoder", "init_args": {"name": "test_resnet"}}
    write_teacher(folder / "teacher.ckpt", SyntheticSource(length=1).taxonomy, encoder=encoder)
    return [f"--model.teacher.init_args.checkpoint={folder / 'teacher.ckpt'}"]


FILES: dict[str, Callable[[Path], list[str]]] = {"overlays/transfer/teacher.yaml": _teacher}
"""Writes the files, other than data, that a config names, and returns the words that say where they are."""


TOGETHER = [
    ["quickstart.yaml", "overlays/decoders/bifpn.yaml", "overlays/losses/varifocal.yaml"],
    [
        *("formats/coco_instances.yaml", "overlays/decoders/fpn.yaml", "overlays/losses/lovasz.yaml"),
        "overlays/balancing/dynamic_weight_average.yaml",
    ],
    [
        *("formats/cityscapes.yaml", "overlays/decoders/unet.yaml", "overlays/losses/ohem.yaml"),
        "overlays/balancing/gradnorm.yaml",
    ],
    [
        *("formats/bdd100k.yaml", "overlays/decoders/shared_towers.yaml", "overlays/balancing/pcgrad.yaml"),
    ],
    ["overlays/decoders/deeplabv3plus.yaml", "overlays/transfer/teacher.yaml", "overlays/inference/multiscale.yaml"],
    [
        *("formats/packed.yaml", "overlays/low_data.yaml", "overlays/losses/tutorial.yaml"),
        "overlays/balancing/uncertainty.yaml",
    ],
    [
        *("formats/mixture.yaml", "overlays/decoders/one_to_one.yaml", "overlays/distributed/bf16.yaml"),
        "overlays/metrics/boundary_iou.yaml",
    ],
    ["formats/voc.yaml", "overlays/distributed/sync_batchnorm.yaml", "overlays/schedules/one_cycle.yaml"],
    ["sweeps/task_weights.yaml"],
    ["nuclei.yaml", "presets/nano.yaml"],
    ["formats/coco_panoptic.yaml", "presets/small.yaml"],
    ["formats/folder.yaml", "presets/vit_small.yaml"],
    ["applications/agriculture.yaml", "overlays/samples/crop_rows.yaml"],
    ["applications/retail.yaml", "overlays/samples/shelves.yaml"],
    ["applications/driving.yaml", "overlays/samples/streets.yaml"],
    [
        *("applications/driving.yaml", "overlays/samples/camvid.yaml", "overlays/losses/contours.yaml"),
        "overlays/schedules/step.yaml",
    ],
    ["applications/medical.yaml", "overlays/samples/nuclei.yaml", "overlays/distributed/fp16.yaml"],
]
TOGETHER += [[name] for name in EXPERIMENTS if name not in chain(*TOGETHER)]
"""Configs that take their step in one run, as they are laid over each other; each takes one alone with ``-m slow``.

The other overlays of schedules take theirs in test_config_schedules.py.
"""


COVERED = {
    "overlays/distributed/ddp.yaml": "distributed/test_distributed.py trains with its strategy",
    "overlays/distributed/bf16_gradients.yaml": "distributed/test_distributed.py trains with its strategy",
    "overlays/distributed/fsdp.yaml": "training/test_sharding.py trains with its strategy",
    "overlays/distributed/fsdp_bf16.yaml": "training/test_sharding.py trains with its strategy",
    "overlays/tracking/mlflow.yaml": "tracking/test_other_trackers.py runs it",
    "overlays/tracking/tensorboard.yaml": "tracking/test_other_trackers.py runs it",
    "overlays/tracking/wandb.yaml": "tracking/test_wandb_record.py runs it",
    "overlays/speed/compile.yaml": "training/test_speed.py compiles what it compiles, test_config_compile.py reads it",
    **{f"sweeps/{name}.yaml": "task_weights.yaml with other settings" for name in ("balancing", "encoders", "losses")},
    "presets/medium.yaml": "small.yaml with larger numbers",
    "presets/large.yaml": "small.yaml with larger numbers",
}
"""Configs that take their step with ``-m slow`` only, and why; they are read below."""


def over(*names: str) -> list[str]:
    return [word for name in names for word in ("--config", str(CONFIGS / name))]


def words_of(configs: Sequence[str], folder: Path) -> list[str]:
    """Return the words that run configs, laid over each other, for a step; overlays on the quickstart."""
    first = configs[0]
    if first.startswith("sweeps/"):
        sweep = yaml.safe_load((CONFIGS / first).read_text())
        words = [word.replace("--config=", f"--config={ROOT}/") for word in sweep["command"] if word[:2] == "--"]
        for key, spread in sweep["parameters"].items():
            words += [f"--{key}", str(spread.get("min", spread.get("values", [0])[0]))]
    else:
        words = over(*["quickstart.yaml"] * first.startswith(OVERLAYS), *configs)
    contents = [yaml.safe_load((CONFIGS / config).read_text()) for config in configs]
    sizes = [content.get("data", {}).get("size", 64) for content in contents]
    words += [*STEP, f"--data.size={64 if all(isinstance(size, int) for size in sizes) else [64, 96]}"]
    words += ["--model.encoder.init_args.name=test_resnet"]
    # The last config with sources says which data are read.
    read = [name for name, content in zip(configs, contents, strict=True) if "train" in content.get("data", {})]
    if read and read[-1] in DATA:
        DATA[read[-1]](folder / "data")
        words += ["--data.root", str(folder / "data")]
    else:
        words += ["--data.train.init_args.length=2", "--data.val.init_args.length=2"]
    encoders = [content.get("model", {}).get("encoder", {}).get("init_args", {}) for content in contents]
    if any(encoder.get("weights") for encoder in encoders):
        words += ["--model.encoder.init_args.weights=null", "--model.encoder.init_args.weights_by_order=false"]
    for config in configs:
        words += FILES[config](folder) if config in FILES else []
        words += MORE.get(config, [])
    return [*words, f"--trainer.default_root_dir={folder}"]


def fit(words: list[str]) -> None:
    main(["fit", *words])


class Run:
    """A run of one config, read from its folder."""

    def __init__(self, folder: Path) -> None:
        (self.folder,) = (path.parent for path in folder.glob("*/version_*/summary.json"))
        self.summary: dict[str, Any] = json.loads((self.folder / "summary.json").read_text())
        self.config: dict[str, Any] = yaml.safe_load((self.folder / "config.yaml").read_text())

    @property
    def losses(self) -> set[str]:
        with (self.folder / "metrics.csv").open() as file:
            rows = list(csv.DictReader(file))
        return {key[11:] for row in rows for key, value in row.items() if key.startswith("train/loss_") and value}

    def network(self) -> OCRNet:
        return OCRNet.from_checkpoint(self.folder / "checkpoints" / "last.ckpt")


def class_names(node: Any) -> set[str]:
    if isinstance(node, list):
        return set().union(*(class_names(part) for part in node))
    if not isinstance(node, dict):
        return set()
    own = {node["class_path"].rsplit(".", 1)[1]} if "class_path" in node else set()
    return own.union(*(class_names(part) for part in node.values()))


def predicts(run: Run, part: str = "postprocess", kind: str = "FusionPostProcess") -> None:
    """The checkpoint gives the network back, with the part that the overlay names."""
    network = run.network()
    assert type(attrgetter(part)(network)).__name__ == kind
    assert all(parameter.device.type == "cpu" and parameter.numel() for parameter in network.parameters())
    (prediction,) = network.predict([torch.randint(0, 256, (3, 90, 70), dtype=torch.uint8)])
    assert prediction.semantic is not None and prediction.semantic.shape == (90, 70)


def trains(run: Run, detection: set[str], **terms: str) -> None:
    """The losses are those that the overlay names."""
    # Only the loss that is not the tutorial's trains the boxes' distributions.
    distributions = () if "TutorialDetectionLoss" in detection else ("dfl",)
    assert run.losses == {"box", "confidence", "class", *distributions, *terms}
    assert class_names(run.config["model"]["detection_loss"]) == detection
    assert class_names(run.config["model"]["segmentation_loss"]) == {"SegmentationLoss", *terms.values()}


DEFAULT = {"QualityDetectionLoss", "TaskAlignedAssigner", "GIoULoss", "QualityFocalScore"}


def is_taught(run: Run) -> None:
    assert run.losses == {"box", "confidence", "class", "dfl", "ce", "dice", "teacher_boxes", "teacher_pixels"}
    predicts(run)


def is_the_tutorials(run: Run) -> None:
    trains(
        run,
        {"TutorialDetectionLoss", "CenterAssigner", "MSEBoxLoss", "MSEScore"},
        ce="CrossEntropy",
        dice="Dice",
    )
    given, want = run.config["model"]["detection_loss"]["init_args"], TutorialDetectionLoss()
    for name in ("box_weight", "confidence_weight", "class_weight", "background_weight"):
        assert given[name] == getattr(want, name), name


def balances(run: Run, weights: bool = True) -> None:
    figures = set(run.summary["last"])
    assert figures >= {"train/grad_share_detection", "train/grad_share_segmentation", "train/grad_cosine"}
    assert ("train/weight_detection" in figures) == weights
    predicts(run)


def reads_below_its_root(run: Run) -> None:
    """The root reaches the sources inside sources."""
    inner = run.config["data"]["train"]["init_args"]["sources"]["masks"]["init_args"]["source"]["init_args"]["source"]
    assert inner["init_args"]["root"] == run.config["data"]["root"] == str(run.folder.parents[1] / "data")


CHECKS: dict[str, Callable[[Run], None]] = {
    "formats/mixture.yaml": reads_below_its_root,
    **{name: partial(predicts, part="neck", kind="PathAggregationNeck") for name in PRESETS},
    "overlays/decoders/bifpn.yaml": partial(predicts, part="neck", kind="BiFPNNeck"),
    "overlays/decoders/fpn.yaml": partial(predicts, part="neck", kind="FeaturePyramidNeck"),
    "overlays/decoders/unet.yaml": partial(predicts, part="segmentation", kind="SmpUnet"),
    "overlays/decoders/deeplabv3plus.yaml": partial(predicts, part="segmentation", kind="SmpDeepLabV3Plus"),
    "overlays/decoders/shared_towers.yaml": partial(predicts, part="detection", kind="AnchorFreeDecoder"),
    "overlays/decoders/one_to_one.yaml": partial(predicts, part="detection", kind="OneToOneDecoder"),
    "overlays/losses/varifocal.yaml": partial(
        trains,
        detection={"QualityDetectionLoss", "TaskAlignedAssigner", "CIoULoss", "BCEScore", "VarifocalScore"},
        ce="CrossEntropy",
        dice="Dice",
    ),
    "overlays/losses/lovasz.yaml": partial(trains, detection=DEFAULT, ce="CrossEntropy", lovasz="Lovasz"),
    "overlays/losses/ohem.yaml": partial(trains, detection=DEFAULT, ce="OHEMCrossEntropy", dice="Dice"),
    "overlays/losses/contours.yaml": partial(
        trains, detection=DEFAULT, ce="CrossEntropy", tversky="Tversky", boundary="Boundary"
    ),
    "overlays/losses/tutorial.yaml": is_the_tutorials,
    "overlays/balancing/uncertainty.yaml": balances,
    "overlays/balancing/dynamic_weight_average.yaml": balances,
    "overlays/balancing/gradnorm.yaml": balances,
    "overlays/balancing/pcgrad.yaml": partial(balances, weights=False),
    "overlays/transfer/teacher.yaml": is_taught,
    "overlays/distributed/fsdp.yaml": predicts,
    "overlays/distributed/fsdp_bf16.yaml": predicts,
    "overlays/distributed/ddp.yaml": predicts,
}
"""What is to be seen of a config in its run, besides the step."""


def takes_a_step(configs: Sequence[str], folder: Path) -> None:
    words = words_of(configs, folder)
    together = "--trainer.devices=2" in words
    if together:
        run_together(folder / "results", 2, fit, words)
    else:
        fit(words)
    run = Run(folder)
    assert run.folder.name == "version_0"
    assert (run.summary["steps"], run.summary["skipped"]) == (2 if together else 1, 0)
    for config in configs:
        CHECKS.get(config, lambda run: None)(run)


@pytest.mark.parametrize("configs", TOGETHER, ids=" ".join)
def test_configs_take_a_step_together(configs: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OCRNET_PL_DEBUG", "1")
    takes_a_step(configs, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("config", FOUND)
def test_a_config_takes_a_step(config: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OCRNET_PL_DEBUG", "1")
    takes_a_step([config], tmp_path)


@pytest.mark.parametrize(
    "config", [name for name in COVERED if name.startswith(("overlays/distributed/", "overlays/tracking/"))]
)
def test_an_overlay_is_read(config: str, parser: ArgumentParser) -> None:
    read = parser.parse_args(["fit", *over("quickstart.yaml", config)]).as_dict()["fit"]["trainer"]
    for key, given in yaml.safe_load((CONFIGS / config).read_text())["trainer"].items():
        want = given["class_path"].rpartition(".")[2] if isinstance(given, dict) else given
        assert want == (read[key]["class_path"].rpartition(".")[2] if isinstance(given, dict) else read[key]), key


@pytest.mark.parametrize("config", PRESETS)
def test_a_preset_is_a_whole_network_over_any_data(config: str, parser: ArgumentParser) -> None:
    words = ["fit", *over("nuclei.yaml", config)]
    model = parser.parse_args(words).as_dict()["fit"]["model"]
    encoder = model["encoder"]["init_args"]
    assert timm.is_model(encoder["name"]) and timm.get_pretrained_cfg(encoder["name"]).hf_hub_id
    assert (encoder["weights"], encoder["weights_by_order"], encoder["frozen_stages"]) == ("hub", False, 0)
    # What the data's config says of its boxes stays.
    assert model["detection"]["init_args"]["max_stride"] == 16


@pytest.mark.slow
def test_presets_grow_together(parser: ArgumentParser) -> None:
    grown = []
    for name in ("nano", "small", "medium", "large"):
        model = parser.parse_args(["fit", *over("quickstart.yaml", f"presets/{name}.yaml")]).as_dict()["fit"]["model"]
        with torch.device("meta"):
            encoder = timm.create_model(model["encoder"]["init_args"]["name"], num_classes=0)
        parts = [model[part]["init_args"] for part in ("neck", "detection", "segmentation")]
        size = sum(parameter.numel() for parameter in encoder.parameters())
        grown.append((size, parts[0]["width"], parts[1]["depth"], parts[2]["width"]))
    for smaller, larger in pairwise(grown):
        assert all(one < other for one, other in zip(smaller[:3], larger[:3], strict=True))
        assert smaller[3] <= larger[3]


def test_what_is_named_above_exists() -> None:
    assert {*MORE, *FILES, *CHECKS, *DATA, *chain(*TOGETHER)} <= {*FOUND}
    # A new file below configs/ takes its step above as well, or in the test that the text there names.
    elsewhere = {name for name in FOUND if name.startswith("overlays/schedules/")}
    elsewhere |= set(COVERED)
    assert {*FOUND} == {*chain(*TOGETHER)} | elsewhere


@pytest.mark.parametrize("config", EXPERIMENTS)
def test_what_the_step_above_overrides_is_valid(config: str, parser: ArgumentParser) -> None:
    parsed = parser.parse_args(["fit", "--config", str(CONFIGS / config)]).as_dict()["fit"]
    given = yaml.safe_load((CONFIGS / config).read_text())
    # Where auto chooses, the config has none.
    sides = 64 if given.get("auto") else given["data"]["size"]
    assert given.get("auto") or parsed["data"]["size"] == (sides if isinstance(sides, int) else tuple(sides))
    assert all(side % 32 == 0 for side in ([sides] if isinstance(sides, int) else sides))
    encoder = parsed["model"]["encoder"]["init_args"]
    weights = encoder["weights"]
    if config == "quickstart.yaml":
        # Nothing is downloaded for it.
        assert weights is None and timm.is_model(encoder["name"])
    elif not weights.startswith("package:"):
        assert weights == "hub" and timm.is_model_pretrained(encoder["name"])
