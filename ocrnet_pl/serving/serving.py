"""The options of the server."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Serving:
    """Says where the server listens, what it accepts, and how it batches requests.

    Attributes:
        host: Address to listen on; ``127.0.0.1`` is reached from this machine only, ``0.0.0.0`` and ``::`` from all
            that can reach it.
        port: Port to listen on, 1024 to 65535.
        score: Score from which objects are given out unless a request says another, 0 to 1; null for 0.3, or for all
            objects of an operating point.
        max_upload_mb: Largest size of a request in MiB.
        max_megapixels: Largest size of an image in millions of pixels, above which it is refused before it is decoded.
        max_waiting: Number of requests that may wait at a time; further ones are answered with status 503.
        max_batch: Largest number of requests that are predicted together; null for 1 on a CPU, where that is fastest,
            and 16 elsewhere.
        batch_wait: Longest time in seconds that a request waits for others to be predicted with.
        timeout: Time in seconds after which a request that still waits for its turn is answered with status 504, and
            one whose image has not arrived with 408; a server that is terminated answers for as long.

    Raises:
        ValueError: An option is out of range.
    """

    host: Literal["127.0.0.1", "0.0.0.0", "::"] = "127.0.0.1"
    port: int = 8000
    score: float | None = None
    max_upload_mb: float = 20.0
    max_megapixels: float = 50.0
    max_waiting: int = 256
    max_batch: int | None = None
    batch_wait: float = 0.005
    timeout: float = 60.0

    def __post_init__(self) -> None:
        if not 1024 <= self.port <= 65535:
            raise ValueError(f"serving.port: expected 1024 to 65535, got {self.port}")
        if self.score is not None and not 0 <= self.score <= 1:
            raise ValueError(f"serving.score: expected 0 to 1, got {self.score}")
        for name in ("max_upload_mb", "max_megapixels", "batch_wait", "timeout"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"serving.{name}: expected a number above 0, got {value}")
        for name in ("max_waiting", "max_batch"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"serving.{name}: expected at least 1, got {value}")

    @property
    def max_bytes(self) -> int:
        """The largest size of a request in bytes."""
        return round(self.max_upload_mb * 2**20)

    @property
    def max_pixels(self) -> int:
        """The largest number of pixels of an image."""
        return round(self.max_megapixels * 1e6)
