"""Networks that are passed on: a folder with a page, and a stand-in for the Hugging Face hub on this machine."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
import yaml
from huggingface_hub import constants
from PIL import Image

from ocrnet_pl.errors import CheckpointError, DataError
from ocrnet_pl.models.ocrnet import OCRNet
from tests.helpers.builders import tiny_network
from tests.models.test_saved_network import equal

IMAGE = torch.randint(0, 256, (3, 40, 50), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Return the folder of a run with figures and pictures."""
    folder = tmp_path / "run"
    (folder / "pictures").mkdir(parents=True)
    best = {"val/map": 0.41234, "val/fused_map": 0.5, "val/miou": 0.75, "val/map_medium": None, "train/loss": 1.0}
    best["val/map_per_class/disc"] = 0.3
    summary = {"best": best, "last": best | {"val/map": 0.1}, "epochs": 3, "steps": 12, "versions": {"torch": "2.9"}}
    (folder / "summary.json").write_text(json.dumps(summary))
    for name in ("step_1.png", "step_2.png", "step_3.png", "confusion.png"):
        Image.new("RGB", (2, 2)).save(folder / "pictures" / name)
    return folder


def parts_of(page: str) -> tuple[dict[str, Any], str]:
    """Return what the hub reads of a page, and what people read."""
    _, head, text = page.split("---\n", 2)
    return yaml.safe_load(head), text


def test_a_folder_has_a_page_with_the_figures_of_the_run(run: Path, tmp_path: Path) -> None:
    network = tiny_network().eval()
    network.save_pretrained(tmp_path / "shapes", run=run, pictures=2, license="apache-2.0")
    loaded = OCRNet.from_pretrained(tmp_path / "shapes", trust="tests")
    assert equal(loaded.predict(IMAGE)[0], network.predict(IMAGE)[0])
    head, text = parts_of((tmp_path / "shapes" / "README.md").read_text())
    assert head["license"] == "apache-2.0" and head["pipeline_tag"] == "object-detection"
    (result,) = head["model-index"][0]["results"]
    assert {each["type"]: each["value"] for each in result["metrics"]} == {"map": 0.5, "miou": 0.75}
    assert "| box mAP 50-95 | 0.4123 | 0.5000 |" in text and "| mIoU | 0.7500 | - |" in text
    assert "Trained for 3 epochs and 12 steps with torch 2.9." in text
    assert "| disc | yes | yes |" in text and "| sky |  | yes |" in text
    weights = sum(parameter.numel() for parameter in network.parameters())
    assert f"{weights:,} weights, encoder `TinyEncoder`" in text
    shown = sorted(path.name for path in (tmp_path / "shapes" / "pictures").iterdir())
    assert len(shown) == 2 and "confusion.png" not in shown and all(f"(pictures/{name})" in text for name in shown)
    # Nothing of this machine's folders is told.
    assert str(tmp_path) not in text
    with pytest.raises(FileExistsError, match="there is a network already"):
        network.save_pretrained(tmp_path / "shapes")
    network.save_pretrained(tmp_path / "shapes", overwrite=True)
    names = sorted(path.name for path in (tmp_path / "shapes").iterdir())
    assert names == ["README.md", "model.safetensors", "network.json"]
    assert "Figures" not in (tmp_path / "shapes" / "README.md").read_text()
    with pytest.raises(DataError, match=r"nothing/summary\.json: there is no such file; give the folder of a finished"):
        network.save_pretrained(tmp_path / "other", run=tmp_path / "nothing")
    assert not (tmp_path / "other").exists()


class Hub(BaseHTTPRequestHandler):
    """The part of the hub's protocol that makes a repository, commits small files, and gives them out again."""

    files: ClassVar[dict[str, bytes]] = {}
    private: ClassVar[list[object]] = []
    commit = "1" * 40

    def do_POST(self) -> None:
        body = (
            self.rfile.read(int(self.headers["Content-Length"])) if "Content-Length" in self.headers else self.chunks()
        )
        if self.headers["Authorization"] != "Bearer token-of-mine":
            self.answer({"error": "Invalid credentials"}, 401)
        elif self.path == "/api/repos/create":
            asked = json.loads(body)
            self.private.append(asked.get("private") or asked.get("visibility") == "private")
            self.answer({"url": f"http://{self.headers['Host']}/me/shapes", "name": "me/shapes", "id": "1"})
        elif "/preupload/" in self.path:
            files = json.loads(body)["files"]
            modes = [{"path": each["path"], "uploadMode": "regular", "shouldIgnore": False} for each in files]
            self.answer({"files": modes})
        elif "/commit/" in self.path:
            for line in body.splitlines():
                entry = json.loads(line)
                if entry["key"] == "file":
                    self.files[entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
            address = f"http://{self.headers['Host']}/me/shapes/commit/{self.commit}"
            self.answer({"success": True, "commitOid": self.commit, "commitUrl": address})
        else:
            self.answer({}, 200)

    def chunks(self) -> bytes:
        """Return a body that is sent in pieces."""
        whole = b""
        while size := int(self.rfile.readline(), 16):
            whole += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return whole

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if not path.removeprefix("/api/models").startswith("/me/shapes"):
            self.answer({"error": "Repository not found"}, 404, {"X-Error-Code": "RepoNotFound"})
        elif path.startswith("/api/models/"):
            files = [{"rfilename": name, "path": name, "type": "file", "size": 1, "oid": "0"} for name in self.files]
            tree = "/tree/" in path
            self.answer(files if tree else {"id": "me/shapes", "sha": self.commit, "siblings": files})
        else:
            content = self.files[path.partition("/resolve/")[2].partition("/")[2]]
            self.answer(content, headers={"ETag": f'"{hashlib.sha256(content).hexdigest()}"'})

    def answer(self, content: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in ({"X-Repo-Commit": self.commit} | (headers or {})).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[type[Hub]]:
    Hub.files, Hub.private = {}, []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    yield Hub
    server.shutdown()
    server.server_close()


def test_a_network_goes_to_the_hub_and_comes_back(hub: type[Hub], run: Path) -> None:
    network = tiny_network().eval()
    address = network.push_to_hub("me/shapes", run=run, pictures=1, private=True, token="token-of-mine")
    assert address.endswith("/me/shapes") and hub.private == [True]
    assert {name for name in hub.files if not name.startswith("pictures/")} == {
        *("README.md", "model.safetensors", "network.json")
    }
    assert len(hub.files) == 4
    assert "OCRNet.from_pretrained('me/shapes')" in hub.files["README.md"].decode()
    loaded = OCRNet.from_pretrained("me/shapes", trust="tests")
    assert equal(loaded.predict(IMAGE)[0], network.predict(IMAGE)[0])


def test_what_the_hub_refuses_is_said_in_one_line(hub: type[Hub]) -> None:
    for act, words in (
        (
            lambda: tiny_network().push_to_hub("me/shapes", token="wrong-token"),
            "does not take it .*log in with `hf auth",
        ),
        (
            lambda: OCRNet.from_pretrained("me/nothing"),
            "there is no such folder, and http.* cannot give it .*check the",
        ),
        (lambda: OCRNet.from_pretrained("not/a/name"), "there is no such folder"),
    ):
        with pytest.raises(CheckpointError, match=f"^network '[a-z/]*': .*{words}") as caught:
            act()
        assert "\n" not in str(caught.value) and "wrong-token" not in str(caught.value)


def test_the_token_of_the_login_is_not_shown_where_the_hub_repeats_it(
    hub: type[Hub], monkeypatch: pytest.MonkeyPatch
) -> None:
    def repeat(self: Hub, *_: object) -> None:
        Hub.answer(self, {"error": f"no rights for {self.headers['Authorization']}"}, 403)

    # One that no header can hold is shown by the library that sends requests.
    for token in ("token-of-the-login", "token-of\x01-the-login"):
        monkeypatch.setenv("HF_TOKEN", token)
        monkeypatch.setattr(hub, "do_GET", repeat)
        monkeypatch.setattr(hub, "do_POST", repeat)
        for act in (lambda: tiny_network().push_to_hub("me/shapes"), lambda: OCRNet.from_pretrained("me/shapes")):
            with pytest.raises(CheckpointError, match="<redacted>") as caught:
                act()
            assert "the-login" not in str(caught.value)


def test_what_is_no_folder_and_no_number_is_said_before_anything_is_written(run: Path, tmp_path: Path) -> None:
    (tmp_path / "a.ckpt").write_bytes(b"weights")
    with pytest.raises(CheckpointError, match=r"a\.ckpt': it is a file, .* OCRNet\.from_checkpoint$"):
        OCRNet.from_pretrained(tmp_path / "a.ckpt")
    with pytest.raises(CheckpointError, match="it is a folder here, which has no revision 'v1'; leave"):
        OCRNet.from_pretrained(tmp_path, revision="v1")
    # Of a negative number, Python would take all but the oldest pictures.
    with pytest.raises(ValueError, match=r"^pictures: expected a whole number from 0, got -1$"):
        tiny_network().save_pretrained(tmp_path / "new", run=run, pictures=-1)
    assert not (tmp_path / "new").exists()
    tiny_network().save_pretrained(tmp_path / "new")
    with pytest.raises(ValueError, match=r"^map_location 'nowhere'"):
        OCRNet.from_pretrained(tmp_path / "new", map_location="nowhere", trust="tests")
