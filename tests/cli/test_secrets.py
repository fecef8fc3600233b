"""Credentials of a config are in nothing that a run writes or says; references to the environment stay as written."""

from __future__ import annotations

import os
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
import torch
import wandb
import yaml
from fsspec.implementations.local import LocalFileSystem
from jsonargparse import Namespace

from ocrnet_pl.cli.main import main
from ocrnet_pl.data.shards.source import Packed
from ocrnet_pl.data.shards.writer import pack
from ocrnet_pl.data.sources.synthetic import SyntheticSource
from ocrnet_pl.errors import StoreError
from ocrnet_pl.report import joint
from ocrnet_pl.storage.interpolation import InterpolationError, resolved
from ocrnet_pl.storage.secrets import MARKER, hidden, hidden_words, in_environment, redacted, secrets_in
from tests.helpers.tiny_run import fails

KEY, TOKEN, SESSION, PASSWORD = "key-0123456789", "token-0123456789", "session-0123456789", "password-0123456789"
SECRETS = (KEY, TOKEN, SESSION, PASSWORD)


class Locked(LocalFileSystem):
    """Opens for those with the right credentials; tells the others what they came with, as some libraries do."""

    protocol = ("locked",)

    def __init__(self, **options: Any) -> None:
        super().__init__()
        options.pop("use_listings_cache", None)
        if options != {"key": KEY, "token": TOKEN, "session": SESSION, "anon": False}:
            raise RuntimeError(f"refused: {options}")

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return path.removeprefix("locked://").rpartition("@")[2]


fsspec.register_implementation("locked", Locked, clobber=True)


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packed")
    pack(SyntheticSource(length=4, seed=1, size=64), folder, "test")
    return folder


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUR_SESSION", SESSION)


@pytest.fixture
def config(packed: Path, tmp_path: Path) -> Path:
    content = {
        "name": "tiny",
        "model": {
            "encoder": {"class_path": "tests.helpers.builders.TinyEncoder"},
            "neck": {"class_path": "PathAggregationNeck", "init_args": {"width": 8}},
        },
        "data": {
            "train": {
                "class_path": "Packed",
                "init_args": {
                    "path": f"locked://user:{PASSWORD}@{packed}",
                    "cache": str(tmp_path / "cache"),
                    "storage_options": {"key": KEY, "session": "${oc.env:OUR_SESSION}", "anon": False},
                },
            },
            "val": {"class_path": "SyntheticSource", "init_args": {"length": 2, "seed": 2, "size": 64}},
            "size": 64,
            "scales": [1.0],
            "batch_size": 4,
            "num_workers": 0,
        },
        "trainer": {
            "max_epochs": 1,
            "accelerator": "cpu",
            "default_root_dir": "${oc.env:OUR_RUNS,runs}/below",
            "logger": [{"class_path": "WandbTracker"}],
        },
        "pictures": {"enabled": False},
    }
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def contents(root: Path) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of each file, and of each file in archives."""
    for path in root.rglob("*"):
        if path.is_file():
            yield str(path), path.read_bytes()
            if zipfile.is_zipfile(path):
                with zipfile.ZipFile(path) as archive:
                    for name in archive.namelist():
                        yield f"{path}: {name}", archive.read(name)


def assert_silent(root: Path, *texts: str) -> int:
    """Check that no file below a folder and no text has a credential; return the number of files."""
    files = [*contents(root), *((f"text {text[:300]}", text.encode()) for text in texts)]
    for name, content in files:
        for secret in SECRETS:
            assert secret.encode() not in content, f"{secret} in {name}"
    return len(files)


TOKEN_WORD = f"--data.train.init_args.storage_options.token={TOKEN}"


@pytest.mark.filterwarnings("ignore")
def test_nothing_that_a_run_writes_or_says_has_a_credential(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    runs = tmp_path / "runs"
    monkeypatch.setenv("OUR_RUNS", str(runs))
    words = ["fit", "--config", str(config), TOKEN_WORD]
    monkeypatch.setattr(sys, "argv", ["train.py", *words])
    main(words)
    wandb.teardown()
    run = runs / "below" / "tiny" / "version_0"
    said = capfd.readouterr()
    assert assert_silent(runs, said.out, said.err) > 10
    assert list(run.glob("wandb/offline-run-*/*.wandb"))
    saved = yaml.safe_load((run / "config.yaml").read_text())
    source = saved["data"]["train"]["init_args"]
    options = {"key": MARKER, "token": MARKER, "session": "${oc.env:OUR_SESSION}", "anon": False}
    assert source["storage_options"] == options
    assert source["path"].startswith(f"locked://user:{MARKER}@/")
    assert saved["trainer"]["default_root_dir"] == "${oc.env:OUR_RUNS,runs}/below"
    checkpoint = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint["config"]["data"] == saved["data"]

    # The saved config names what it lacks, and runs with it.
    copy = tmp_path / "copy.yaml"
    copy.write_text(yaml.safe_dump({"data": saved["data"]}))
    again = ["check", "--config", str(copy), f"--output={tmp_path / 'check'}"]
    status, error = fails(capfd, *again)  # type: ignore[arg-type]
    assert status == 2 and error.count("\n") == 1
    assert f"{copy}', line " in error and "data.train.path: this credential was left out" in error
    monkeypatch.setenv("OUR_KEY", KEY)
    path = yaml.safe_load(config.read_text())["data"]["train"]["init_args"]["path"]
    given = ["--data.train.init_args.path", path.replace(PASSWORD, "${oc.env:OUR_PASSWORD,none}")]
    status, error = fails(capfd, *again, *given)  # type: ignore[arg-type]
    assert status == 2 and "data.train.storage_options.key: this credential was left out" in error
    assert "--data.train.init_args.storage_options.key '${oc.env:NAME}'" in error
    given += ["--data.train.init_args.storage_options.key=${oc.env:OUR_KEY}", TOKEN_WORD]
    main([*again, *given])
    main(["pack", *again[1:3], *given, f"--output={tmp_path / 'shards'}", "--splits=train"])
    said = capfd.readouterr()
    assert "4 images" in said.out
    for folder in ("check", "shards"):
        assert_silent(tmp_path / folder, said.out, said.err)


def test_print_config_shows_no_credential(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["fit", "--config", str(config), TOKEN_WORD, "--print_config"])
    assert not stopped.value.code
    shown = capsys.readouterr().out
    assert_silent(config.parent / "none", shown)
    assert shown.count(MARKER) == 3 and "${oc.env:OUR_SESSION}" in shown


@pytest.mark.parametrize(
    "words",
    [
        [],  # the file system refuses
        [f"--data.train.init_args.storage_options={{key: {KEY}"],
        [f"--data.train.init_args.storage_options=[{KEY}]"],
    ],
)
def test_no_error_shows_a_credential(config: Path, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    status, error = fails(capsys, "fit", "--config", str(config), *words)
    assert status in (1, 2) and error.count("\n") == 1
    assert_silent(config.parent / "none", error)
    assert "locked://" in error or "data.train" in error


def test_a_source_of_its_own_shows_no_credential(packed: Path, tmp_path: Path) -> None:
    options = {"key": KEY, "token": "another-token"}
    with pytest.raises(StoreError, match="refused") as raised:
        Packed(f"locked://me:{PASSWORD}@{packed}", cache=tmp_path, storage_options=options)
    assert_silent(tmp_path, str(raised.value))
    assert "another-token" not in str(raised.value) and f"locked://me:{MARKER}@{packed}" in str(raised.value)


def test_a_reference_that_leads_nowhere_is_one_line(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config.write_text(config.read_text().replace("OUR_SESSION", "OUR_ABSENT"))
    status, error = fails(capsys, "fit", "--config", str(config))
    assert status == 2 and error.count("\n") == 1
    line = next(number for number, text in enumerate(config.read_text().splitlines(), 1) if "session:" in text)
    assert f"config {str(config)!r}, line {line}: data.train.storage_options.session: " in error
    assert "environment variable 'OUR_ABSENT' is not set" in error


def test_the_joint_report_hands_credentials_on_in_the_environment(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    handed: list[str] = []
    monkeypatch.setattr(joint, "run_joint_report", lambda text, *_: handed.append(text))
    monkeypatch.setattr(os, "environ", os.environ.copy())
    monkeypatch.setenv("OUR_RUNS", str(tmp_path))
    main(["joint-report", "--config", str(config), TOKEN_WORD])
    (text,) = handed
    assert_silent(tmp_path / "none", text)
    assert "${oc.env:OCRNET_PL_DATA_TRAIN_STORAGE_OPTIONS_KEY}" in text
    child = tmp_path / "child.yaml"
    child.write_text(text)
    main(["check", "--config", str(child)])
    assert "user:${oc.env:OCRNET_PL_DATA_TRAIN_PATH}@" in text
    assert_silent(tmp_path / "below", capsys.readouterr().out)


PLACES = [
    ({"storage_options": {"a": "secret1", "anon": True, "n": 5, "none": None, "in": {"deep": ["secret2"]}}}, 2),
    ({"storage_options": {"endpoint_url": "${oc.env:X}", "h": "Bearer ${oc.env:X}", "n": "${oc.env:X,null}"}}, 0),
    ({"storage_options": {"a": "${oc.env:X,secret1}"}}, 1),
    ({name: "secret1" for name in ("key", "secret", "token", "password", "connection_string", "api_key")}, 6),
    ({name: "secret1" for name in ("credentials", "sas_token", "Authorization", "accountKey", "secret_access_key")}, 5),
    ({"headers": {"X-Auth": "secret1"}, "password": 12345678, "client_secret": "secret1", "cookies": ["secret1"]}, 4),
    ({"key": 64, "token": None, "monitor": "val/score", "keys": "abc", "early_stopping": {"mode": "max"}}, 0),
    ({"rename": {"key": "tool", "token": "coin"}, "shares": {"password": 2.0}, "sources": {"token": {"a": "b"}}}, 0),
    ({"path": "https://user:secret1@host/a", "other": "https://secret1@host", "root": "a:secret@b/c"}, 2),
    ({"path": "https://host/a?sig=secret1&v=2&X-Amz-Credential=secret2", "azure": "abfs://box@host/a"}, 2),
    ({"path": "https://user:${oc.env:X}@host/a", "done": f"https://user:{MARKER}@host/a"}, 0),
]


@pytest.mark.parametrize(("config", "count"), PLACES)
def test_credentials_are_known_by_their_place(
    config: dict[str, Any], count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = redacted(config)
    assert str(shown).count(MARKER) - str(config).count(MARKER) == count
    assert "secret1" not in str(shown) and "secret2" not in str(shown)
    assert redacted(shown) == shown
    assert (shown == config) == (count == 0)
    parsed = redacted(Namespace(**config))
    assert isinstance(parsed, Namespace) and parsed.as_dict() == shown
    monkeypatch.setenv("X", "value")
    referring, variables = in_environment(config)
    assert "secret1" not in str(referring)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    found = resolved(referring)
    assert {k: str(v) for k, v in found.items()} == {k: str(v) for k, v in resolved(config).items()}


def test_texts_hide_what_is_known() -> None:
    secrets = secrets_in({"password": 'a"b\n c/d', "pin": 12345678, "token": "abc"})
    assert hidden("is 'a\"b c/d' or a%22b%0A%20c%2Fd or 12345678; abc", secrets).count(MARKER) == 3
    assert hidden("abc of val/score", secrets) == "abc of val/score"
    words = ["fit", "--a.token", "secret1", "--a.headers={x: secret2}", "--b", "x", "--p=s3://u:secret3@h", "--q"]
    assert hidden_words(words) == [
        *("fit", "--a.token", MARKER, f"--a.headers={MARKER}", "--b", "x", f"--p=s3://u:{MARKER}@h", "--q")
    ]


def test_references_are_resolved_as_omegaconf_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A", "one")
    config = {
        "a": "${oc.env:A}",
        "b": ["x-${oc.env:A}/${oc.env:B,two}"],
        "c": Path("${oc.env:A}/f"),
        "d": "${B}",
        "e": 5,
    }
    assert resolved(config) == {"a": "one", "b": ["x-one/two"], "c": Path("one/f"), "d": "${B}", "e": 5}
    assert (
        resolved("${oc.env:B,null}") is None and resolved("${oc.env:B,}") == "" and resolved("${oc.env:A,b}") == "one"
    )
    with pytest.raises(InterpolationError, match="'B' is not set"):
        resolved("${oc.env:B}")
    for wrong in ("${oc.env:}", "${oc.env:A B}", "${oc.env:A", "${oc.select:a}"):
        with pytest.raises(InterpolationError, match="is not a reference"):
            resolved(f"a/{wrong}")
