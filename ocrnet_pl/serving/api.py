"""The steps of a request that LitServe runs in the process that has the network."""

# Without postponed annotations: LitServe reads those of `decode_request` as they stand, to know how requests are read.

from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Response
from fastapi.responses import JSONResponse
from litserve import LitAPI

from ocrnet_pl.errors import DataError
from ocrnet_pl.serving.answers import MEDIA_TYPES, answer
from ocrnet_pl.serving.ending import Ending
from ocrnet_pl.serving.requests import Asked, read_request
from ocrnet_pl.serving.served import Loaded, Result, Served


@dataclass(frozen=True)
class Decoded:
    """A request whose image was decoded.

    Attributes:
        asked: The request.
        image: The image as the network reads it, or why there is none.
    """

    asked: Asked
    image: Any


@dataclass(frozen=True)
class Predicted:
    """A request with its result.

    Attributes:
        asked: The request.
        result: The prediction, or why there is none.
    """

    asked: Asked
    result: Result | DataError


class PredictionAPI(LitAPI):
    """Predicts for one image per request, several requests at a time.

    A request that cannot be answered goes through all steps with its error, because an exception would fail the others
    of its batch as well.

    Args:
        served: The network.
        max_pixels: Number of pixels above which images are refused before they are decoded.
        max_batch_size: Largest number of requests that are predicted together.
        batch_timeout: Longest time in seconds that a request waits for others.

    Attributes:
        ending: How the process ends that predicts; None if that is not a process of its own.
    """

    ending: Ending | None = None

    def __init__(self, served: Served, max_pixels: int, max_batch_size: int, batch_timeout: float) -> None:
        super().__init__(max_batch_size=max_batch_size, batch_timeout=batch_timeout)
        self.served = served
        self.max_pixels = max_pixels
        self.loaded: Loaded | None = None

    def setup(self, device: str) -> None:
        """Load the network onto the device of this process."""
        if self.ending is not None:
            self.ending.take_over()
        self.loaded = self.served.load(device)

    def decode_request(self, request: Annotated[Asked, Depends(read_request)]) -> Decoded:
        """Decode the image."""
        assert self.loaded is not None
        try:
            return Decoded(request, self.loaded.read(request.data, request.name, self.max_pixels))
        except DataError as error:
            return Decoded(request, error)

    def batch(self, inputs: list[Decoded]) -> list[Decoded]:
        """Return the requests as they are: their images have sizes of their own."""
        return inputs

    def predict(self, x: Decoded | list[Decoded]) -> Predicted | list[Predicted]:
        """Predict for all images that there are; without batches LitServe gives a single request."""
        assert self.loaded is not None
        several = x if isinstance(x, list) else [x]
        images = [each.image for each in several if not isinstance(each.image, DataError)]
        predictions = iter(self.loaded.predict(images) if images else ())
        found = [
            Predicted(each.asked, each.image if isinstance(each.image, DataError) else next(predictions))
            for each in several
        ]
        return found if isinstance(x, list) else found[0]

    def encode_response(self, output: Predicted) -> Response:
        """Write the answer."""
        asked, result = output.asked, output.result
        if isinstance(result, DataError):
            return JSONResponse({"detail": str(result)}, status_code=400)
        # PNG is compressed already; a stated encoding keeps the server from trying again.
        headers = {"content-encoding": "identity"} if asked.inquiry.kind == "png" else None
        content = answer(result, asked.inquiry, asked.name)
        return Response(content, media_type=MEDIA_TYPES[asked.inquiry.kind], headers=headers)
