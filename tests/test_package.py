"""What the package offers by name."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import ocrnet_pl
from tests.helpers.project import ROOT


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = "import sys, ocrnet_pl; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "lightning", "numpy", "cv2", "jsonargparse"} & set(done.stdout.split())


@pytest.mark.parametrize("name", ocrnet_pl.__all__)
def test_every_name_can_be_imported_from_the_package(name: str) -> None:
    value = getattr(ocrnet_pl, name)
    assert getattr(value, "__name__", name) == name
    assert name in dir(ocrnet_pl)


def test_type_checkers_see_the_same_names() -> None:
    tree = ast.parse(Path(ocrnet_pl.__file__).read_text())
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    typed = {alias.name: node.module for node in block.body for alias in node.names}  # type: ignore[attr-defined]
    assert typed == {name: f"ocrnet_pl.{module}" for name, module in ocrnet_pl._MODULE_OF.items()}
    assert set(ocrnet_pl.__all__) == {*typed, "__version__"}
    assert {"OCRNet", "OCRNetTask", "JointDataModule", "Taxonomy", "Source", "Transform", "Loss", "main"} <= set(typed)


def test_a_name_that_does_not_exist_is_said_to() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Unknown'"):
        ocrnet_pl.Unknown  # noqa: B018


def test_the_small_image_installs_versions_that_the_package_allows() -> None:
    listed = (ROOT / "docker" / "requirements-serve-file.txt").read_text().splitlines()
    allowed = (ROOT / "requirements.txt").read_text() + (ROOT / "setup.cfg").read_text()
    wanted = [line for line in listed if not line.startswith("#")]
    assert len(wanted) > 5 and not any(word in line for line in wanted for word in ("torch", "lightning"))
    assert set(wanted) <= {line.strip() for line in allowed.splitlines()}
