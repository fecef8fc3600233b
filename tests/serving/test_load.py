"""A server as a user starts it, under load."""

from __future__ import annotations

import http.client
import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ocrnet_pl.cli.main import main
from tests.helpers.free_port import free_port
from tests.helpers.tiny_run import fails

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def checkpoint(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    root = tmp_path_factory.mktemp("runs")
    main(["fit", "--config", str(tiny), "--trainer.default_root_dir", str(root), "--trainer.max_epochs", "1"])
    return str(root / "tiny" / "version_0" / "checkpoints" / "last.ckpt")


@pytest.fixture(scope="module", params=["checkpoint", "exported"])
def served(request: pytest.FixtureRequest, checkpoint: str) -> list[str]:
    """The words that name what is served: a checkpoint, or the file that was exported from it."""
    pytest.importorskip("litserve", reason="litserve is not installed")
    pytest.importorskip("prometheus_client", reason="prometheus-client is not installed")
    if request.param == "checkpoint":
        return [checkpoint, "--trust", "tests", "--trainer.accelerator", "cpu"]
    pytest.importorskip("onnxscript", reason="onnxscript is not installed")
    main(["export", "--ckpt_path", checkpoint, "--trust", "tests", "--check_images", "2"])
    return [str(Path(checkpoint).with_suffix(".onnx")), "--threads", "1"]


@contextmanager
def running(served: list[str], *options: str) -> Iterator[tuple[int, subprocess.Popen[str]]]:
    """Yield the port and the process of a server, which ends quietly when it is terminated, with its processes."""
    port = free_port()
    words = ["serve", *served, "--serving.port", str(port), "--serving.max_batch", "4", *options]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    process = subprocess.Popen(
        [sys.executable, "-m", "ocrnet_pl", *words],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 300
        while process.poll() is None and time.monotonic() < deadline:
            try:
                if request(port, "GET", "/health")[0] == 200:
                    break
            except OSError:
                pass
            time.sleep(0.2)
        else:
            process.kill()
            pytest.fail(f"the server did not start: {process.communicate()[1]}")
        yield port, process
        process.send_signal(signal.SIGTERM)
        # It returns when none of the server's processes holds the streams any more.
        _, errors = process.communicate(timeout=60)
        assert "Traceback" not in errors, errors
        assert process.returncode == 0, errors
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def port(served: list[str]) -> Iterator[int]:
    """The port of a running server."""
    with running(served) as (port, _):
        yield port


def request(port: int, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, str, bytes]:
    """Return the status, the kind and the content of an answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
    try:
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        return answer.status, answer.headers["content-type"], answer.read()
    finally:
        connection.close()


@pytest.mark.slow
def test_no_request_is_lost_under_load(port: int) -> None:
    """1,000 requests, 16 at a time; every fifth is malformed."""
    generator = np.random.default_rng(0)
    images = []
    for _ in range(8):
        file = io.BytesIO()
        # Each of its own size, by which its answer is recognised.
        height, width = generator.integers(32, 96, 2).tolist()
        Image.fromarray(generator.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(file, "PNG")
        images.append((file.getvalue(), [height, width]))
    bad = (b"hello", b"", images[0][0][:150], b"\x89PNG\r\n\x1a\n" + bytes(50))

    def send(number: int) -> int:
        if number % 5 == 4:
            status, kind, content = request(port, "POST", "/predict", bad[number // 5 % len(bad)])
            assert kind == "application/json" and b"\n" not in content and json.loads(content)["detail"]
            return status
        data, size = images[number % len(images)]
        if number % 10 == 3:
            status, kind, content = request(port, "POST", "/predict", data, Accept="image/png")
            with Image.open(io.BytesIO(content)) as drawn:
                assert kind == "image/png" and [drawn.height, drawn.width] == size
            return status
        status, kind, content = request(port, "POST", "/predict?masks=true", data)
        assert kind == "application/json" and json.loads(content)["size"] == size
        return status

    with ThreadPoolExecutor(16) as clients:
        assert Counter(clients.map(send, range(1000))) == {200: 800, 400: 200}
    page = request(port, "GET", "/metrics")[2].decode()
    assert 'ocrnet_requests_total{status="200"} 800.0' in page and "ocrnet_requests_waiting 0.0" in page


@pytest.mark.slow
@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("all_at_once", [False, True], ids=["the server", "all its processes"])
def test_requests_that_run_when_the_server_is_ended_are_answered(
    all_at_once: bool, ending: signal.Signals, served: list[str]
) -> None:
    file = io.BytesIO()
    Image.effect_noise((700, 500), 90).convert("RGB").save(file, "JPEG")
    with running(served) as (port, process), ThreadPoolExecutor(8) as clients:
        sent = [
            clients.submit(request, port, "POST", "/predict", file.getvalue(), Accept="image/png") for _ in range(8)
        ]
        while b"ocrnet_requests_waiting 8.0" not in request(port, "GET", "/metrics")[2]:
            assert not any(each.done() for each in sent)
        os.killpg(process.pid, ending) if all_at_once else process.send_signal(ending)
        assert [each.result()[:2] for each in sent] == [(200, "image/png")] * 8


@pytest.mark.slow
def test_whatever_is_sent_the_server_goes_on(port: int) -> None:
    """Raw bytes that no client library sends: each is answered or dropped, and the next request is answered."""
    file = io.BytesIO()
    Image.new("RGB", (40, 30)).save(file, "PNG")
    start = b"POST /predict HTTP/1.1\r\nHost: a\r\n"
    for sent in (
        b"\0\xff\r\n\r\n",
        b"POST /../../etc/passwd HTTP/1.1\r\nHost: a\r\n\r\n",
        start + b"Content-Length: -1\r\n\r\n",
        start + b"Content-Length: 999999999999\r\n\r\nx",
        start + b"Content-Length: 500\r\n\r\nslow",
        start + b"Transfer-Encoding: chunked\r\n\r\nffffffff\r\nx",
        start + b"Content-Type: multipart/form-data; boundary=" + b"a" * 5000 + b"\r\nContent-Length: 4\r\n\r\nabcd",
        start + b"Content-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc",
    ):
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            connection.sendall(sent)
            connection.settimeout(1)
            try:
                answer = connection.recv(4096)
            except (TimeoutError, ConnectionResetError):
                answer = b""
        assert not answer or answer.split()[1][:1] == b"4", (sent[:80], answer)
    name = 'filename="../../etc/\x1b[2J/passwd.png"'
    body = b"--x\r\nContent-Disposition: form-data; name=a; " + name.encode() + b"\r\n\r\n" + file.getvalue()
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    status, _, content = request(port, "POST", "/predict", body + b"\r\n--x--\r\n", **headers)
    assert status == 200 and "etc" in json.loads(content)["image_id"]


@pytest.mark.slow
def test_mistakes_in_the_options_are_one_line(checkpoint: str, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("litserve", reason="litserve is not installed")
    serve = ("serve", "--ckpt_path", checkpoint, "--trust", "tests")
    status, line = fails(capsys, *serve, "--classes", "dog")
    assert status == 2 and "there is no class 'dog'" in line
    status, line = fails(capsys, *serve, "--operating_point", "best_f1")
    assert status == 1 and "calibrate" in line
    status, line = fails(capsys, *serve, "--serving.port", "80")
    assert status and "serving.port: expected 1024 to 65535, got 80" in line
