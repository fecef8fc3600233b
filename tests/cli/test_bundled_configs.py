"""The project's configs by name, from any folder, in a clone and where the package is installed."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ocrnet_pl.cli.bundled_configs import found_config, with_found_configs
from ocrnet_pl.cli.config_files import check_files
from ocrnet_pl.errors import UsageError
from tests.helpers.project import CONFIGS, ROOT


def test_a_name_means_the_projects_config_and_a_file_comes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    unet = str(CONFIGS / "overlays" / "decoders" / "unet.yaml")
    assert found_config("overlays/decoders/unet") == found_config("overlays/decoders/unet.yaml") == unet
    words = ["fit", "--config", "quickstart", "--config=overlays/decoders/unet", "--name", "quickstart"]
    quickstart = str(CONFIGS / "quickstart.yaml")
    assert with_found_configs(words) == ["fit", "--config", quickstart, f"--config={unet}", "--name", "quickstart"]
    for name in ("quickstart", "quickstart.yaml"):
        Path(name).write_text("name: mine")
        assert found_config(name) == name
    assert found_config("../configs/quickstart") == "../configs/quickstart"


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("quikstart", "; did you mean 'quickstart'?"),
        ("overlays/decoder/unet", "; did you mean 'overlays/decoders/unet'?"),
        ("unet.yaml", "; did you mean 'overlays/decoders/unet'?"),
        ("configs/quickstart.yaml", "; did you mean 'quickstart'?"),
        ("nothing_like_it_at_all", ""),
    ],
)
def test_a_mistyped_name_has_a_hint(name: str, hint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError) as refused:
        check_files(with_found_configs(["fit", "--config", name]))
    assert str(refused.value) == f"config {name!r}: no such file{hint}"


@pytest.mark.skipif(
    not (importlib.util.find_spec("setuptools") and importlib.util.find_spec("pip")),
    reason="building the package needs setuptools and pip",
)
def test_an_installed_package_brings_its_configs_and_the_command(tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    for name in ("ocrnet_pl", "configs"):
        shutil.copytree(ROOT / name, clone / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.py", "setup.cfg", "pyproject.toml", "requirements.txt", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, clone)
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}

    def call(*words: str | Path) -> str:
        done = subprocess.run(
            [str(word) for word in words], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
        )
        assert not done.returncode, done.stderr
        return done.stdout

    # What pip has the build system do, without the copies that it makes.
    build = "import os, sys; from setuptools import build_meta; os.chdir(sys.argv[1]); build_meta.build_wheel('..')"
    call(sys.executable, "-c", build, clone)
    call(sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv")
    python = tmp_path / "venv" / "bin" / "python"
    packages = Path(call(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    # What the package needs comes from here; the package itself from the wheel, which stands before it.
    (packages / "needed.pth").write_text(importlib.util.find_spec("yaml").origin.rpartition("/yaml/")[0])  # type: ignore[union-attr]
    (wheel,) = tmp_path.glob("*.whl")
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet")
    call(*pip, "--python", python, "install", "--no-deps", "--no-compile", "--no-index", wheel)
    command = python.with_name("ocrnet")
    assert call(command, "--help").startswith("usage: ocrnet SUBCOMMAND --config FILE")
    code = "import ocrnet_pl.cli.bundled_configs as b; print(*b.bundled_names(), b.__file__)"
    *names, file = call(python, "-c", code).split()
    assert file.startswith(str(packages))
    assert names == sorted(path.relative_to(CONFIGS).with_suffix("").as_posix() for path in CONFIGS.rglob("*.yaml"))
