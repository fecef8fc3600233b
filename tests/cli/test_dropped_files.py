"""Files that are put into the package's folders are part of the command line; nothing else has to be edited."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.helpers.project import CONFIGS, ROOT

COMMAND = """
from ocrnet_pl.cli.command import Command, Run


def add_arguments(parser):
    parser.add_argument("--word", type=str, default="hello", help="What is said.")


def greet(run: Run) -> int:
    model, data = run.config["model"], run.config["data"]
    parts = [model["segmentation"], *model["segmentation_loss"].init_args.terms]
    parts += [data["train"], *data["train_transforms"]]
    print(run.config["word"], *(part.class_path for part in parts), sep="\\n")
    return 7


COMMAND = Command(name="greet", help="greet the config by its name", run=greet, arguments=add_arguments)
"""

SOURCE = """
from ocrnet_pl import Sample, Source, Taxonomy


class DroppedSource(Source):
    def __init__(self, count: int = 3) -> None:
        self.count = count

    @property
    def taxonomy(self) -> Taxonomy:
        return Taxonomy.build(things=["disc"], stuff=["sky"])

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Sample:
        raise NotImplementedError
"""

TRANSFORM = """
from ocrnet_pl import Transform


class DroppedTransform(Transform):
    def __call__(self, sample, size, generator):
        return sample
"""

LOSS = """
from ocrnet_pl import PixelLoss


class DroppedLoss(PixelLoss):
    def forward(self, log_probability, target):
        return log_probability.mean() * 0
"""

DECODER = """
from ocrnet_pl import SegmentationDecoder, Shapes, Taxonomy


class DroppedDecoder(SegmentationDecoder):
    def __init__(self, shapes: Shapes, taxonomy: Taxonomy, width: int = 8) -> None:
        super().__init__()

    def forward(self, features):
        raise NotImplementedError
"""

ROOMS = {
    "ocrnet_pl.cli.commands": COMMAND,
    "ocrnet_pl.data.sources": SOURCE,
    "ocrnet_pl.data.transforms": TRANSFORM,
    "ocrnet_pl.losses": LOSS,
    "ocrnet_pl.models": DECODER,
}


def run(folder: Path, rooms: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    """Run a command line in a process in which each room has one more file."""
    code = ["import importlib, sys"]
    for room, text in rooms.items():
        (folder / room).mkdir(exist_ok=True)
        (folder / room / "dropped.py").write_text(text)
        code.append(f"importlib.import_module({room!r}).__path__.append({str(folder / room)!r})")
    code.append("from ocrnet_pl.cli.main import main; main(sys.argv[1:])")
    return subprocess.run(
        [sys.executable, "-c", "\n".join(code), *words], cwd=ROOT, capture_output=True, text=True, timeout=120
    )


@pytest.mark.slow
def test_a_command_and_parts_are_found(tmp_path: Path) -> None:
    overview = run(tmp_path, {"ocrnet_pl.cli.commands": COMMAND}, "--help")
    assert re.search(r"\n  greet +greet the config by its name\n", overview.stdout)
    overlay = {
        "name": "dropped",
        "model": {
            "segmentation": {"class_path": "DroppedDecoder", "init_args": {"width": 9}},
            "segmentation_loss": {
                "class_path": "SegmentationLoss",
                "init_args": {"terms": [{"class_path": "DroppedLoss"}]},
            },
        },
        "data": {
            "train": {"class_path": "DroppedSource", "init_args": {"count": 4}},
            "train_transforms": [{"class_path": "DroppedTransform"}],
        },
    }
    (tmp_path / "overlay.yaml").write_text(yaml.safe_dump(overlay))
    words = ["greet", "--config", str(CONFIGS / "quickstart.yaml"), "--config", str(tmp_path / "overlay.yaml")]
    done = run(tmp_path, ROOMS, *words, "--word", "good day")
    assert done.returncode == 7, done.stderr
    assert done.stdout.splitlines() == [
        "good day",
        "ocrnet_pl.models.dropped.DroppedDecoder",
        "ocrnet_pl.losses.dropped.DroppedLoss",
        "ocrnet_pl.data.sources.dropped.DroppedSource",
        "ocrnet_pl.data.transforms.dropped.DroppedTransform",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "it defines no COMMAND, which every file of this folder does; other code of the command line belongs one"),
        (COMMAND.replace('"greet"', '"fit"'), "COMMAND: there is already a subcommand 'fit'; give it another name"),
        ("import no_such", "it cannot be imported (ModuleNotFoundError: No module named 'no_such'; OCRNET_PL_DEBUG=1"),
    ],
)
def test_a_file_that_is_not_a_command_is_refused_in_one_line(tmp_path: Path, text: str, expected: str) -> None:
    done = run(tmp_path, {"ocrnet_pl.cli.commands": text}, "--help")
    file = tmp_path / "ocrnet_pl.cli.commands" / "dropped.py"
    assert done.returncode == 1 and not done.stdout
    assert done.stderr.startswith(f"error: {file}: {expected}") and done.stderr.count("\n") == 1
