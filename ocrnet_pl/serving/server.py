"""The server: LitServe's, with the project's requests, limits and figures."""

from __future__ import annotations

import logging
import math
import multiprocessing
import os
import signal
import sys
import tempfile
from pathlib import Path
from types import FrameType

from litserve import LitServer

from ocrnet_pl.distributed.signals import signals_handled
from ocrnet_pl.errors import RunError
from ocrnet_pl.serving.api import PredictionAPI
from ocrnet_pl.serving.ending import ENDINGS, Ending
from ocrnet_pl.serving.requests import Reception
from ocrnet_pl.serving.served import Loaded
from ocrnet_pl.serving.serving import Serving
from ocrnet_pl.serving.traffic import Counts, Traffic
from ocrnet_pl.version import __version__

_BATCH = 16
"""Number of requests that an accelerator predicts together."""

_ANSWERING = "LitServer"
"""How LitServe's name of the process that answers begins."""


def make_server(loaded: Loaded, serving: Serving, accelerator: str, devices: int | list[int] | str) -> LitServer:
    """Return a server that is not started yet.

    Args:
        loaded: The network; the processes that predict load their own.
        serving: The options.
        accelerator: Kind of devices to predict on, ``auto``, ``cpu``, ``cuda``, ``gpu`` or ``mps``.
        devices: Number of devices or their indices, with one process for each; ``auto`` for all.

    Raises:
        ValueError: There are no such devices.
    """
    on_cpu = accelerator == "cpu" or not _has_accelerator()
    batch = serving.max_batch or (1 if on_cpu else _BATCH)
    api = PredictionAPI(loaded.how, serving.max_pixels, batch, serving.batch_wait)
    counts = Counts()
    server = LitServer(
        api,
        accelerator="cpu" if on_cpu and accelerator == "auto" else accelerator,
        devices=1 if on_cpu else devices,
        timeout=serving.timeout,
        # For requests that do not say how long they are, or lie.
        max_payload_size=serving.max_bytes,
        middlewares=[(Traffic, {"path": api.api_path, "counts": counts, "most": serving.max_waiting})],
        model_metadata={
            "version": __version__,
            "classes": list(loaded.names),
            "input_size": list(loaded.input_size),
            "operating_point": loaded.how.operating_point,
            "max_megapixels": serving.max_megapixels,
        },
        # Its page would load scripts from elsewhere.
        disable_openapi_url=True,
    )
    # For the requests that run when it is terminated.
    server.uvicorn_graceful_timeout = math.ceil(serving.timeout)
    # It would write a line for each form that is not one.
    logging.getLogger("python_multipart").setLevel(logging.CRITICAL)
    score = loaded.default_score if serving.score is None else serving.score
    server.app.state.reception = Reception(loaded.names, score, serving.max_bytes, serving.timeout)
    server.app.add_api_route("/metrics", counts.page, methods=["GET"])
    return server


def _has_accelerator() -> bool:
    # An exported file is served without torch.
    import torch

    return torch.accelerator.is_available()


def run_server(server: LitServer, serving: Serving) -> None:
    """Answer requests until the process is interrupted or terminated.

    Args:
        server: The server.
        serving: The options that it was made with.

    Raises:
        RunError: One of its processes was killed.
    """
    main = os.getpid()

    def stop(number: int, frame: FrameType | None) -> None:
        if os.getpid() == main:
            # Whoever asks twice would break off the end, and the processes that predict would lose what they wait for.
            for each in ENDINGS:
                signal.signal(each, signal.SIG_IGN)
            raise KeyboardInterrupt
        if not multiprocessing.current_process().name.startswith(_ANSWERING):
            ending.handle(number, frame)
            return
        # The process that answers inherits this, and raises what it was sent once more when it is done.
        ending.mark()
        sys.exit(0)

    # A terminated server would leave its processes behind.
    with tempfile.TemporaryDirectory() as folder:
        ending = Ending(Path(folder, "answered"))
        for api in server.litapi_connector:
            api.ending = ending
        try:
            with signals_handled(stop, *ENDINGS):
                server.run(
                    host=serving.host,
                    port=serving.port,
                    # One process answers, so that its figures are those of all requests.
                    num_api_servers=1,
                    log_level="warning",
                    generate_client_file=False,
                )
        except (EOFError, ConnectionError) as error:
            # Raised by what the processes share.
            raise RunError(
                "serve: one of its processes was killed, such as for lack of memory; start it again, with a smaller "
                "--serving.max_megapixels or --serving.max_batch"
            ) from error
