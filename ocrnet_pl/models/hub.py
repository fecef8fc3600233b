"""Networks at the Hugging Face hub: fetched as files without any pickle, and published with a page."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from ocrnet_pl.errors import CheckpointError, one_line
from ocrnet_pl.storage.network_folder import DESCRIPTION, WEIGHTS
from ocrnet_pl.storage.secrets import hidden


def fetched_folder(name: str, revision: str | None, token: str | None) -> Path:
    """Return the folder of a network at the hub, downloaded only if it is not in the cache yet.

    Args:
        name: Name of the repository, such as ``somebody/cells``.
        revision: Branch, tag or commit; None for the newest.
        token: Token for a private repository; None for that of the login.

    Raises:
        CheckpointError: There is no such repository, or the hub cannot be reached.
    """
    from huggingface_hub import constants, snapshot_download

    try:
        return Path(snapshot_download(name, revision=revision, token=token, allow_patterns=[DESCRIPTION, WEIGHTS]))
    except Exception as error:  # whichever client the hub's library uses
        raise CheckpointError(
            f"network {name!r}: there is no such folder, and {constants.ENDPOINT} cannot give it "
            f"({_reason(error, token)}); check the name, or log in with `hf auth login` if it is private"
        ) from error


def push(write: Callable[[Path], None], name: str, private: bool | None, token: str | None, message: str) -> str:
    """Publish a network in a repository, which is made if there is none, and return its address.

    Args:
        write: Writes the network and its page into a new folder.
        name: Name of the repository.
        private: Whether a new repository is private; None for the account's default.
        token: Token that may write; None for that of the login.
        message: What the commit is called.

    Raises:
        CheckpointError: The hub refuses it, or cannot be reached.
    """
    from huggingface_hub import HfApi, constants

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "network")
        write(path)
        try:
            api = HfApi(token=token)
            address = api.create_repo(name, private=private, exist_ok=True)
            api.upload_folder(repo_id=name, folder_path=path, commit_message=message)
        except Exception as error:  # whichever client the hub's library uses
            raise CheckpointError(
                f"network {name!r}: {constants.ENDPOINT} does not take it ({_reason(error, token)}); check the "
                "name and the connection, and log in with `hf auth login` or give a token that may write"
            ) from error
    return str(address)


def _reason(error: BaseException, token: str | None) -> str:
    from huggingface_hub import get_token

    # The hub, or the library that sends requests, may repeat what it was sent.
    secrets = [each for each in (token, get_token()) if each]
    return hidden(one_line(error), secrets)[:300]
