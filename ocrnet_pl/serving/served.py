"""What serving needs of a network, whichever runtime it predicts with."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from PIL import Image


class Result(Protocol):
    """A prediction, with its image and its taxonomy."""

    def filter(self, classes: str | Iterable[str] | None = None, score: float = 0.0) -> Result:
        """Return a prediction with some of the objects only."""

    def plot(self, *, score: float = 0.3) -> Image.Image:
        """Return the drawn image."""

    def to_dict(self, masks: bool = False) -> dict[str, Any]:
        """Return plain values for JSON."""


class Loaded(Protocol):
    """A network that is ready to predict."""

    @property
    def how(self) -> Served:
        """What was loaded, and how it predicts."""

    @property
    def notes(self) -> tuple[str, ...]:
        """Lines to show before it predicts."""

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all classes."""

    @property
    def input_size(self) -> tuple[int, int]:
        """(height, width) to which images are scaled."""

    @property
    def default_score(self) -> float:
        """The score from which boxes are shown unless another is asked for."""

    def read(self, data: bytes, name: str, max_pixels: int) -> Any:
        """Decode an image file whose content may be anything.

        Args:
            data: Content of the file.
            name: Name of the image for messages.
            max_pixels: Number of pixels above which an image is refused by its header.

        Raises:
            DataError: It is not an image, or is damaged, too large, or has another number of channels.
        """

    def predict(self, images: Sequence[Any]) -> Sequence[Result]:
        """Return one prediction per image that was read."""


class Served(Protocol):
    """Says which network is served and how it predicts; each process loads its own."""

    @property
    def operating_point(self) -> str:
        """Which boxes of each class count."""

    def load(self, device: str = "cpu") -> Loaded:
        """Load the network onto a device."""
