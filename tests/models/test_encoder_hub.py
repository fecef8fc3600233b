"""timm's own weights come out of the cache, from a server, or are refused in one line before anybody waits."""

from __future__ import annotations

import hashlib
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest
import timm
import torch
from huggingface_hub import constants
from safetensors.torch import save

from ocrnet_pl.errors import WeightsError
from ocrnet_pl.models import encoder_hub
from ocrnet_pl.models.encoder import TimmEncoder

NAME = "test_resnet"
REPOSITORY = "/timm/test_resnet.r160_in1k/resolve/main/"
ADVICE = "set model.encoder.weights to null .random., to a file or to package:<package>/<file>"


class Hub(BaseHTTPRequestHandler):
    """The part of the hub's protocol that a download of a public file needs."""

    files: ClassVar[dict[str, bytes]] = {}
    asked: ClassVar[list[str]] = []

    def do_HEAD(self) -> None:
        self.answer(with_content=False)

    def do_GET(self) -> None:
        self.answer(with_content=True)

    def answer(self, with_content: bool) -> None:
        self.asked.append(f"{self.command} {self.path}")
        content = self.files.get(self.path)
        self.send_response(404 if content is None else 200)
        self.send_header("X-Repo-Commit", "0" * 40)
        if content is None:
            self.send_header("X-Error-Code", "EntryNotFound")
        self.send_header("ETag", f'"{hashlib.sha256(content or b"").hexdigest()}"')
        self.send_header("Content-Length", str(len(content or b"")))
        self.end_headers()
        if with_content:
            self.wfile.write(content or b"")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.delenv("HF_HUB_ETAG_TIMEOUT", raising=False)
    return tmp_path / "cache"


def serve_at(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the hub be at another address, as HF_ENDPOINT does at the start of a process."""
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Hub]]:
    Hub.files, Hub.asked = {}, []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    serve_at(f"http://127.0.0.1:{server.server_port}", monkeypatch)
    yield Hub
    server.shutdown()
    server.server_close()


def refused(seconds: float, message: str) -> None:
    began = time.monotonic()
    with pytest.raises(WeightsError, match=message) as caught:
        TimmEncoder(NAME, "hub")
    assert time.monotonic() - began < seconds
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin"])
def test_weights_are_downloaded_once_and_then_need_no_network(
    file: str, hub: type[Hub], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    torch.manual_seed(1)
    model = timm.create_model(NAME)
    if file.endswith("bin"):
        torch.save(model.state_dict(), tmp_path / file)
        hub.files[REPOSITORY + file] = (tmp_path / file).read_bytes()
    else:
        hub.files[REPOSITORY + file] = save(model.state_dict())
    own = TimmEncoder(NAME, "hub").model.state_dict()
    assert own and all(torch.equal(value, model.state_dict()[key]) for key, value in own.items())
    assert f"GET {REPOSITORY}{file}" in hub.asked
    hub.asked.clear()
    for offline in (False, True):
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
        again = TimmEncoder(NAME, "hub").model.state_dict()
        assert all(torch.equal(value, own[key]) for key, value in again.items())
    assert not hub.asked


def test_a_server_that_refuses_is_reported_at_once(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    serve_at(f"http://127.0.0.1:{port}", monkeypatch)
    refused(2, f"those of 'test_resnet' are not in the cache {cache}, and http://127.0.0.1:{port}/timm.* {ADVICE}")


def test_a_server_that_never_answers_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        serve_at(f"http://127.0.0.1:{silent.getsockname()[1]}", monkeypatch)
        monkeypatch.setattr(encoder_hub, "_WAIT", 0.2)
        refused(2, f"no answer within 0.2 s|[Tt]imed out.*{ADVICE}")
        monkeypatch.setenv("HF_HUB_ETAG_TIMEOUT", "1")
        began = time.monotonic()
        refused(3, ADVICE)
        assert time.monotonic() - began > 0.9


def test_the_wait_is_below_five_seconds() -> None:
    assert encoder_hub._wait() < 5


def test_an_address_that_is_looked_for_in_vain_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    serve_at("http://weights.invalid", monkeypatch)
    monkeypatch.setattr(encoder_hub, "_WAIT", 0.2)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: time.sleep(3) or [])
    refused(2, "no answer within 0.2 s; HF_HUB_ETAG_TIMEOUT sets how long to wait")


def test_offline_by_choice_and_repositories_without_the_file_are_named(
    hub: type[Hub], monkeypatch: pytest.MonkeyPatch
) -> None:
    refused(2, "it has no model.safetensors or pytorch_model.bin")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    hub.asked.clear()
    refused(2, f"HF_HUB_OFFLINE is set.*{ADVICE}")
    assert not hub.asked


def test_weights_at_an_address_of_their_own(hub: type[Hub], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    torch.save({"a": torch.ones(2)}, tmp_path / "w.pth")
    digest = hashlib.sha256((tmp_path / "w.pth").read_bytes()).hexdigest()[:8]
    hub.files[f"/w-{digest}.pth"] = (tmp_path / "w.pth").read_bytes()
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    path = encoder_hub._of_url("some_model", f"{constants.ENDPOINT}/w-{digest}.pth")
    assert path.read_bytes() == (tmp_path / "w.pth").read_bytes() and path.is_relative_to(tmp_path / "torch")
    with pytest.raises(WeightsError, match=r"absent\.pth cannot be read .HTTP Error 404"):
        encoder_hub._of_url("some_model", f"{constants.ENDPOINT}/absent.pth")
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert encoder_hub._of_url("some_model", f"{constants.ENDPOINT}/w-{digest}.pth") == path


def test_a_model_without_weights_is_named() -> None:
    with pytest.raises(WeightsError, match="timm has no weights for 'botnet50ts_256'"):
        TimmEncoder("botnet50ts_256", "hub")
