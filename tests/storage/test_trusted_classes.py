"""Checkpoints that somebody made up: nothing that they name is imported or called, and one line says so."""

from __future__ import annotations

import copy
import importlib
import inspect
import pickle
import pkgutil
import subprocess
import sys
import types
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_type_hints

import pytest
import torch
from torch import nn

import ocrnet_pl
from ocrnet_pl import OCRNet
from ocrnet_pl.data.datamodule import JointDataModule
from ocrnet_pl.errors import CheckpointError
from ocrnet_pl.models.network_parts import PARTS
from ocrnet_pl.storage.allowed_values import argument_kinds
from ocrnet_pl.storage.trusted_classes import trusted_packages, trusted_parts
from ocrnet_pl.training.task import OCRNetTask
from tests.helpers.builders import tiny_network
from tests.helpers.made_up_checkpoints import content, parts, spec

MARK = "was_here"
MODULE = """
from pathlib import Path
Path({mark!r}).touch()
from torch import nn
from os import system
from ocrnet_pl.models.necks import PathAggregationNeck

def make(channels, strides):
    return PathAggregationNeck(channels, strides)

class MyNeck(PathAggregationNeck):
    pass
"""


class Evil:
    def __reduce__(self) -> Any:
        return subprocess.call, (["touch", MARK],)


@pytest.fixture
def save(tmp_path: Path) -> Callable[[dict[str, Any]], Path]:
    def write(entries: dict[str, Any]) -> Path:
        torch.save(entries, tmp_path / "made_up.ckpt")
        return tmp_path / "made_up.ckpt"

    return write


@pytest.fixture
def mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that appears once anything hostile has run, and packages that make it when they are imported."""
    path = tmp_path / MARK
    for name in ("evil", "ocrnet_pl_evil", "my_package", "my"):
        (tmp_path / f"{name}.py").write_text(MODULE.format(mark=str(path)))
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("evil", "ocrnet_pl_evil", "my_package", "my"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    # The command of every attack names it relative to the folder.
    monkeypatch.chdir(tmp_path)
    return path


def nested(depth: int) -> Any:
    value: Any = {}
    for _ in range(depth):
        value = {"decode": value}
    return value


def doubled(depth: int) -> Any:
    value: Any = 0
    for _ in range(depth):
        value = [value, value]
    return value


SHELL = {"command": f"touch {MARK}"}
YAML = f"{{class_path: os.system, init_args: {{command: touch {MARK}}}}}"
DECODER = "ocrnet_pl.models.detection.OneToOneDecoder"
FUSION = "ocrnet_pl.inference.fusion.FusionPostProcess"
NECK = "ocrnet_pl.models.necks.PathAggregationNeck"

ATTACKS: dict[str, tuple[str, Any]] = {
    **{f"os.system as {name}": (name, spec("os.system", **SHELL)) for name in PARTS},
    **{f"evil as {name}": (name, spec("evil.MyNeck")) for name in PARTS},
    "posix": ("neck", spec("posix.system", **SHELL)),
    "Popen": ("neck", spec("subprocess.Popen", args=["touch", MARK])),
    "run": ("detection", spec("subprocess.run", args=["touch", MARK])),
    "exec": ("neck", spec("builtins.exec", source=f"open('{MARK}', 'w')")),
    "eval": ("segmentation", spec("builtins.eval", source=f"open('{MARK}', 'w')")),
    "open": ("neck", spec("builtins.open", file=MARK, mode="w")),
    "Path.touch": ("neck", spec("pathlib.Path.touch", self=MARK)),
    "import_module": ("neck", spec("importlib.import_module", name="evil")),
    "partial": ("neck", spec("functools.partial", func="os.system")),
    "shutil": ("neck", spec("shutil.copy", src="evil.py", dst=MARK)),
    "pickle": ("neck", spec("pickle.loads", data="cos\nsystem\n")),
    "torch.load": ("neck", spec("torch.load", f="evil.pt", weights_only=False)),
    "torch.hub": ("encoder", spec("torch.hub.load", repo_or_dir=".", model="evil", source="local")),
    "torchvision": ("encoder", spec("torchvision.models.resnet18")),
    "a class of torchvision": ("encoder", spec("torchvision.models.ResNet")),
    "a module of torch": ("neck", spec("torch.nn.Identity")),
    "an optimiser": ("neck", spec("torch.optim.SGD", lr=1.0)),
    "the parser": ("neck", spec("jsonargparse.set_parsing_settings")),
    "a module that one of ours imports": ("neck", spec("ocrnet_pl.models.ocrnet.torch.load", f="evil.pt")),
    "os through one of ours": ("neck", spec("ocrnet_pl.storage.files.os.system", **SHELL)),
    "os through one of ours, short": ("neck", spec("ocrnet_pl.storage.files.os")),
    "sys through one of ours": ("neck", spec("ocrnet_pl.cli.main.sys.modules")),
    "subprocess through one of ours": ("neck", spec("ocrnet_pl.report.runs.subprocess.run", args=["touch", MARK])),
    "a class that one of ours imports": ("neck", spec("ocrnet_pl.models.ocrnet.Path")),
    "another class that one of ours imports": ("encoder", spec("ocrnet_pl.models.layers.nn.Identity")),
    "a function of ours": ("neck", spec("ocrnet_pl.models.encoder_weights.resolve_weights", weights="x")),
    "the command line": ("neck", spec("ocrnet_pl.cli.main.main", args=["check"])),
    "a class of ours of another kind": ("neck", spec("ocrnet_pl.models.detection.AnchorFreeDecoder")),
    "another class of ours of another kind": ("detection", spec("ocrnet_pl.data.sources.coco.CocoInstances")),
    "our command line": ("segmentation", spec("ocrnet_pl.cli.lightning_cli.OCRNetCLI")),
    "only a base": ("neck", spec("ocrnet_pl.models.base.Neck")),
    "a class in a class": ("neck", spec("ocrnet_pl.models.ocrnet.OCRNet.from_checkpoint", path="x")),
    "a module of ours": ("neck", spec("ocrnet_pl.models")),
    "no module of ours": ("neck", spec("ocrnet_pl.evil.MyNeck")),
    "a like name": ("neck", spec("ocrnet_pl_evil.MyNeck")),
    "a like name, relative": ("neck", spec("ocrnet_pl..evil.MyNeck")),
    "relative": ("neck", spec(".evil.MyNeck")),
    "a file": ("neck", spec("./evil.py")),
    "blanks": ("neck", spec(" os.system", **SHELL)),
    "a new line": ("neck", spec(f"{NECK}\n", width=8)),
    "letters that only look like ours": ("neck", spec("\u043ecrnet_pl.models.necks.PathAggregationNeck")),
    "a lambda": ("neck", f"lambda *a: __import__('os').system('touch {MARK}')"),
    "a call": ("neck", spec(f"__import__('os').system('touch {MARK}')")),
    "a text": ("neck", "os.system"),
    "a text of a class": ("encoder", "evil.MyNeck"),
    "a short name": ("neck", "system"),
    "a short name of torch": ("neck", "Identity"),
    "YAML": ("neck", YAML),
    "YAML of a part": ("encoder", YAML),
    "a file of YAML": ("neck", "neck.yaml"),
    "a number": ("neck", 5),
    "a list": ("encoder", [spec("os.system", **SHELL)]),
    "a path that is a list": ("neck", spec(["os", "system"])),
    "a path that is a dictionary": ("neck", spec(spec("os.system", **SHELL))),
    "no path": ("neck", {"init_args": SHELL}),
    "an empty path": ("neck", spec("")),
    "a long path": ("neck", spec("ocrnet_pl." + "a" * 100_000)),
    "a dotted key": ("neck", {"class_path": NECK, "init_args.width": 8}),
    "a dotted option": ("detection", {"class_path": DECODER, "init_args": {"decoder.class_path": "os.system"}}),
    "arguments that are a list": ("neck", {"class_path": NECK, "init_args": [8]}),
    "free arguments": ("neck", {"class_path": NECK, "dict_kwargs": {"part": spec("os.system", **SHELL)}}),
    "free arguments of ours": ("neck", {"class_path": NECK, "dict_kwargs": {"part": 1}}),
    "a text within": ("detection", spec(DECODER, decoder="os.system")),
    "a class within": ("detection", spec(DECODER, decoder=spec("os.system", **SHELL))),
    "a function within": ("detection", spec(DECODER, decoder="ocrnet_pl.storage.files.write_json")),
    "one of ours within": ("detection", spec(DECODER, decoder=spec("ocrnet_pl.models.encoder.TimmEncoder"))),
    "YAML within": ("detection", spec(DECODER, decoder=YAML)),
    "evil within": ("detection", spec(DECODER, decoder="evil.MyNeck")),
    "decoding": ("postprocess", spec(FUSION, decode=spec("os.system", **SHELL))),
    "decoding by text": ("postprocess", spec(FUSION, decode="evil.MyNeck")),
    "the heuristic": ("postprocess", spec(FUSION, heuristic=spec("subprocess.Popen", args=["touch", MARK]))),
    "a number that is YAML": ("postprocess", spec(FUSION, claim=YAML)),
    "a number that is a class": ("neck", spec(NECK, width=spec("os.system", **SHELL))),
    "an option that nobody knows": ("neck", spec(NECK, evil=1)),
    "depth": ("postprocess", spec(FUSION, decode=nested(400))),
    "breadth": ("neck", spec(NECK, width=doubled(30))),
    "a huge number": ("neck", spec(NECK, width=10**400)),
    "a negative number": ("neck", spec(NECK, width=-1)),
    "zero": ("neck", spec(NECK, width=0)),
    "a class of torch, pickled": ("neck", nn.Parameter),
    "a function of torch, pickled": ("neck", torch._utils._rebuild_tensor),
    "a type, pickled": ("neck", spec(OrderedDict)),
    "a tensor": ("neck", torch.zeros(3)),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_nothing_that_a_hostile_checkpoint_names_runs(
    attack: str, save: Callable[[dict[str, Any]], Path], mark: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, value = ATTACKS[attack]
    (mark.parent / "neck.yaml").write_text(YAML)
    path = save(content(hyper_parameters=parts() | {name: value}, state_dict={}))
    for load in (OCRNet.from_checkpoint, OCRNetTask.load_from_checkpoint):
        with pytest.raises(CheckpointError) as refused:
            load(path, trust=["tests", "my"])
        line = str(refused.value)
        assert line.startswith(f"checkpoint {str(path)!r}: ")
        assert "\n" not in line and len(line) < 600 + len(str(path))
        # It was not built after all.
        assert "weights of another network" not in line
        assert not mark.exists()
    assert not {"evil", "my_package", "my", "ocrnet_pl_evil"} & set(sys.modules)


def test_code_in_a_pickle_is_refused(save: Callable[[dict[str, Any]], Path], mark: Path) -> None:
    path = save(content(hyper_parameters=Evil()))
    for load in (OCRNet.from_checkpoint, OCRNetTask.load_from_checkpoint):
        with pytest.raises(CheckpointError, match="unreadable"):
            load(path, trust=["tests"])
    assert not mark.exists()
    # It would have.
    pickle.loads(pickle.dumps(Evil()))
    assert mark.exists()


def test_a_trusted_package_is_built_and_no_other(save: Callable[[dict[str, Any]], Path], mark: Path) -> None:
    own = parts() | {"neck": spec("my_package.MyNeck", width=8)}
    path = save(content(hyper_parameters=own))
    for trust in (["tests"], ["tests", "my"], ["tests", "my_package.deeper"], ["tests", "package"]):
        with pytest.raises(CheckpointError, match=r"--trust my_package"):
            OCRNet.from_checkpoint(path, trust=trust)
        assert not mark.exists()
    network = OCRNet.from_checkpoint(path, trust=["tests", "my_package"])
    assert mark.exists()
    assert type(network.neck).__module__ == "my_package"
    reference = tiny_network().eval()
    images = torch.rand(1, 3, 64, 64) * 255
    with torch.inference_mode():
        assert torch.equal(network(images).semantic, reference(images).semantic)  # type: ignore[arg-type]
    task = OCRNetTask.load_from_checkpoint(path, trust=["tests", "my_package"], encoder_lr=0.5)
    assert type(task.network.neck) is type(network.neck)
    # What a trusted package has from elsewhere stays out, and so does what is no class or of another kind.
    for name in ("system", "nn", "nn.Identity", "make", "absent"):
        with pytest.raises(CheckpointError, match="my_package"):
            OCRNet.from_checkpoint(
                save(content(hyper_parameters=parts() | {"neck": spec(f"my_package.{name}")})),
                trust=["tests", "my_package"],
            )
    with pytest.raises(CheckpointError, match="is not of type Encoder"):
        OCRNet.from_checkpoint(
            save(content(hyper_parameters=parts() | {"encoder": spec("my_package.MyNeck")})), trust=["my_package"]
        )


@pytest.mark.parametrize("trust", ["", "*", ".", "a b", "os;sys", "../x", "my_package."])
def test_what_is_trusted_is_named(trust: str) -> None:
    with pytest.raises(ValueError, match=r"trust: .* is not a package"):
        trusted_packages([trust])


def test_own_classes_may_be_named_short_or_by_text(save: Callable[[dict[str, Any]], Path]) -> None:
    own = parts() | {"neck": spec("PathAggregationNeck", width=8), "detection": "AnchorFreeDecoder"}
    network = OCRNet.from_checkpoint(save(content(hyper_parameters=own)), trust="tests")
    assert type(network.neck).__name__ == "PathAggregationNeck"


def test_weights_of_the_encoder_are_not_read(save: Callable[[dict[str, Any]], Path], mark: Path) -> None:
    """Neither a file in a package, which would have to be imported, nor timm's own from the hub."""
    for weights in ("package:evil/x.pt", "hub"):
        encoder = spec("ocrnet_pl.models.encoder.TimmEncoder", name="test_convnext", weights=weights)
        # All else of the network was built when its weights do not fit.
        with pytest.raises(CheckpointError, match="weights of another network"):
            OCRNet.from_checkpoint(save(content(hyper_parameters=parts() | {"encoder": encoder})))
        assert not mark.exists()


def test_the_optimiser_of_a_task_is_one(save: Callable[[dict[str, Any]], Path], mark: Path) -> None:
    for path, line in (
        ("os.system", "is not a class of"),
        ("torch.optim.lr_scheduler.StepLR", "is not of type Optimizer"),
    ):
        entries = content(hyper_parameters=parts() | {"optimizer": spec(path, **SHELL)})
        with pytest.raises(CheckpointError, match=line):
            OCRNetTask.load_from_checkpoint(save(entries), trust=["tests"])
        assert not mark.exists()
    entries = content(hyper_parameters=parts() | {"optimizer": spec("torch.optim.SGD", lr=0.5)})
    task = OCRNetTask.load_from_checkpoint(save(entries), trust=["tests"])
    assert isinstance(task.make_optimizer(), torch.optim.SGD)
    with pytest.raises(NotImplementedError, match="build it from the config"):
        JointDataModule.load_from_checkpoint(save(entries))


def test_the_schedule_of_a_task_is_one(save: Callable[[dict[str, Any]], Path], mark: Path) -> None:
    for scheduler, line in (
        (spec("os.system", **SHELL), "is not a class of"),
        (spec("torch.optim.SGD", lr=0.5), "is not of type LRScheduler"),
        (spec("torch.optim.lr_scheduler.LambdaLR", lr_lambda="os.system"), "'os.system' is not valid here"),
    ):
        entries = content(hyper_parameters=parts() | {"scheduler": scheduler})
        with pytest.raises(CheckpointError, match=line):
            OCRNetTask.load_from_checkpoint(save(entries), trust=["tests"])
        assert not mark.exists()

    def rates(hyper_parameters: dict[str, Any]) -> list[float]:
        task = OCRNetTask.load_from_checkpoint(save(content(hyper_parameters=hyper_parameters)), trust=["tests"])
        optimizer = torch.optim.SGD([{"name": "decoders", "params": [torch.zeros(1, requires_grad=True)]}], lr=1.0)
        schedule = task.schedule.build(optimizer, length=8)
        found = []
        for _ in range(3):
            found.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            schedule.step()
        return found

    falling = spec("torch.optim.lr_scheduler.PolynomialLR", total_iters=-1, power=1.0)
    assert rates(parts() | {"scheduler": falling}) == pytest.approx([1.0, 7 / 8, 6 / 8])
    # As earlier versions wrote it.
    assert rates(parts() | {"warmup_steps": 1, "final_lr": 1.0}) == pytest.approx([0.5, 1.0, 1.0])


def test_the_types_of_all_own_classes_are_known() -> None:
    """Of an argument whose type is unknown, little could be checked."""
    for each in pkgutil.walk_packages(ocrnet_pl.__path__, "ocrnet_pl."):
        if not each.name.startswith(("ocrnet_pl.models.", "ocrnet_pl.inference.", "ocrnet_pl.losses.")):
            continue
        module = importlib.import_module(each.name)
        for value in list(vars(module).values()):
            own = inspect.isclass(value) and value.__module__ == each.name and issubclass(value, nn.Module)
            if own and not inspect.isabstract(value):
                get_type_hints(value.__init__)
                kinds, more = argument_kinds(value)
                assert not more, value
                assert Any not in kinds.values(), value


def test_checked_parts_are_what_was_given() -> None:
    own = parts()
    kept = copy.deepcopy(own)
    checked = trusted_parts(own, PARTS, "tests", "here")
    assert own == kept
    assert checked["postprocess"] == own["postprocess"]
    assert set(checked) == set(PARTS)
    assert isinstance(sys.modules["tests.helpers.builders"], types.ModuleType)
