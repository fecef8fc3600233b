"""Images at an address, of which nothing is trusted: neither the size that a server gives, nor that it ever ends."""

from __future__ import annotations

import base64
import ipaddress
import socket
import time
from http.client import HTTPException, HTTPMessage
from typing import IO
from urllib.error import HTTPError
from urllib.parse import unquote, urlsplit, urlunsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from ocrnet_pl.errors import DataError
from ocrnet_pl.imaging.image_files import Encoded
from ocrnet_pl.storage.secrets import hidden

SCHEMES = ("http://", "https://")
"""How the addresses begin from which images are fetched."""
_SECONDS = 30.0
_MOST_BYTES = 100 << 20
_PIECE = 1 << 16


class _Redirects(HTTPRedirectHandler):
    """Follows a server to other addresses, but not to those that only this machine or its network can reach.

    Otherwise a public address could have anything fetched that is meant for the own network.
    """

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> Request | None:
        """Return the request for the new address.

        Raises:
            DataError: It is not to be followed.
        """
        if not newurl.startswith(SCHEMES) or (_is_local(newurl) and not _is_local(req.full_url)):
            problem = f"the server redirects to {hidden(newurl):.200}, which is not fetched"
            raise DataError.at(hidden(req.full_url), problem, advice="give that address itself if you trust it")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _is_local(address: str) -> bool:
    """Return whether a host is this machine or in its network; one that has no address is not."""
    try:
        found = socket.getaddrinfo(urlsplit(address).hostname, None)
    except (OSError, ValueError):
        return False
    return any(not ipaddress.ip_address(str(entry[4][0]).partition("%")[0]).is_global for entry in found)


def _request(address: str) -> Request:
    """Return the request for an address, whose user and password are not sent on to where it is redirected."""
    parts = urlsplit(address)
    user, at, host = parts.netloc.rpartition("@")
    # A client without a name is refused by many servers.
    request = Request(urlunsplit(parts._replace(netloc=host)), headers={"User-Agent": "ocrnet-pl"})
    if at:
        text = base64.b64encode(unquote(user).encode()).decode("ascii")
        request.add_unredirected_header("Authorization", f"Basic {text}")
    return request


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
        with build_opener(_Redirects).open(_request(address), timeout=seconds) as answer:
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
        reason = " ".join(str(error.reason).split())
        raise DataError.at(name, f"the server answers {error.code} {reason:.200}", advice="check the address") from None
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
