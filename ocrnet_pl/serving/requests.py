"""Reading requests for predictions: anything may arrive, and whatever is wrong with it becomes one line."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request

from ocrnet_pl.errors import UsageError, one_line
from ocrnet_pl.serving.inquiry import Inquiry, NotAcceptable

_NAME = "image"
_NAME_LENGTH = 200


@dataclass(frozen=True)
class Asked:
    """A request for the prediction of one image.

    Attributes:
        data: Content of the image file, not yet looked at.
        name: Name of the image.
        inquiry: What is wanted of its prediction.
    """

    data: bytes
    name: str
    inquiry: Inquiry


@dataclass(frozen=True)
class Reception:
    """What is needed to read requests.

    Attributes:
        names: Names of the network's classes.
        score: The score from which objects are given out unless a request says another.
        max_bytes: Largest size of a request's body in bytes.
        seconds: Longest time that the body may take to arrive.
    """

    names: tuple[str, ...]
    score: float
    max_bytes: int
    seconds: float


async def read_request(request: Request) -> Asked:
    """Read a request whose body is an image file, or a form with one; ``app.state.reception`` says how.

    Raises:
        HTTPException: The request cannot be answered, with a status from 400 to 499.
    """
    reception: Reception = request.app.state.reception
    length = request.headers.get("content-length", "")
    if length.isdigit() and int(length) > reception.max_bytes:
        raise HTTPException(413, f"the request is larger than the limit of {reception.max_bytes / 2**20:g} MiB")
    try:
        accept = request.headers.get("accept", "")
        inquiry = Inquiry.parse(request.query_params.multi_items(), accept, reception.names, reception.score)
    except NotAcceptable as error:
        raise HTTPException(406, str(error)) from None
    except UsageError as error:
        raise HTTPException(400, str(error)) from None
    try:
        data, name = await asyncio.wait_for(_content(request), reception.seconds)
    except TimeoutError:
        raise HTTPException(408, f"the image did not arrive within {reception.seconds:g} s") from None
    except ClientDisconnect:
        raise HTTPException(400, "the client closed the connection before the image was complete") from None
    if not data:
        raise HTTPException(400, "there is no image; send one as the body, or as a file of a multipart form")
    return Asked(data, name, inquiry)


async def _content(request: Request) -> tuple[bytes, str]:
    is_form = request.headers.get("content-type", "").lower().startswith("multipart/form-data")
    return (await _from_form(request)) if is_form else (await request.body(), _NAME)


async def _from_form(request: Request) -> tuple[bytes, str]:
    try:
        form = await request.form(max_files=1, max_fields=10)
    except (HTTPException, ClientDisconnect):
        raise
    except Exception as error:  # the parser raises errors of several libraries
        reason = one_line(error)
        raise HTTPException(400, f"the form cannot be read ({reason:.200})") from error
    files = [value for _, value in form.multi_items() if isinstance(value, UploadFile)]
    if len(files) != 1:
        raise HTTPException(400, "expected one file in the form, such as that of: curl -F image=@photo.jpg")
    data = await files[0].read()
    await form.close()
    # Some encodings of a form have characters that no answer can hold.
    name = (files[0].filename or _NAME).encode("utf-8", "replace").decode("utf-8")
    return data, name[:_NAME_LENGTH]
