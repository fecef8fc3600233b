"""Images at an address, of which nothing is trusted: neither the size that a server gives, nor that it ever ends."""

from __future__ import annotations

import time
from http.client import HTTPException
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from ocrnet_pl.errors import DataError
from ocrnet_pl.imaging.image_files import Encoded
from ocrnet_pl.storage.secrets import hidden

SCHEMES = ("http://", "https://")
"""How the addresses begin from which images are fetched."""
_SECONDS = 30.0
_MOST_BYTES = 100 << 20
_PIECE = 1 << 16


def fetch_image(address: str, seconds: float = _SECONDS, most: int = _MOST_BYTES) -> Encoded:
    """Fetch an image file into memory; what it contains is checked when it is read.

    Args:
        address: Address that begins with ``http://`` or ``https://``.
        seconds: Longest time in seconds that all of it may take.
        most: Largest number of bytes.

    Raises:
        DataError: The server cannot be reached, refuses, takes too long, or sends too much or too little.
    """
    name = hidden(address)
    deadline = time.monotonic() + seconds
    pieces: list[bytes] = []
    size = 0
    try:
        # A client without a name is refused by many servers.
        with urlopen(Request(address, headers={"User-Agent": "ocrnet-pl"}), timeout=seconds) as answer:
            expected = answer.headers.get("Content-Length") or ""
            if expected.isdigit() and int(expected) > most:
                raise _too_large(name, most)
            while piece := answer.read1(_PIECE):
                size += len(piece)
                if size > most:
                    raise _too_large(name, most)
                if time.monotonic() > deadline:
                    raise TimeoutError
                pieces.append(piece)
    except DataError:
        raise
    except HTTPError as error:
        raise DataError.at(
            name, f"the server answers {error.code} {error.reason}", advice="check the address"
        ) from None
    except TimeoutError as error:
        raise DataError.at(name, f"it was not received within {seconds:g} s", advice="try again later") from error
    except (OSError, HTTPException, ValueError) as error:
        reason = hidden(" ".join(str(getattr(error, "reason", error)).split()))[:300] or type(error).__name__
        if "timed out" in reason:
            reason = f"no answer within {seconds:g} s"
        raise DataError.at(name, f"it cannot be fetched ({reason})", advice="check the address") from None
    if expected.isdigit() and size < int(expected):
        raise DataError.at(name, f"only {size} of {expected} bytes were received", advice="try again later")
    return Encoded(b"".join(pieces), name)


def _too_large(name: str, most: int) -> DataError:
    return DataError.at(name, f"the file is larger than {most / 2**20:g} MiB", advice="fetch it yourself")
