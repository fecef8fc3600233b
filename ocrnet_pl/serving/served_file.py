"""An exported file as it is served, without torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ocrnet_pl.errors import UsageError
from ocrnet_pl.imaging.image_files import Encoded, check_size, open_with_pillow, opened
from ocrnet_pl.runtime import Model, Prediction
from ocrnet_pl.runtime.images import as_pixels


@dataclass(frozen=True)
class ServedFile:
    """Says which file is served; each process opens its own.

    Attributes:
        path: Path of the file.
        classes: Names of the classes whose boxes are given out; empty for all.
        threads: Number of threads that a prediction uses; 0 for one on each core.
    """

    path: str
    classes: tuple[str, ...] = ()
    threads: int = 0

    @property
    def operating_point(self) -> str:
        """Which boxes of each class count: those of the thresholds in the file."""
        return "none"

    def load(self, device: str = "cpu") -> LoadedFile:
        """Open the file.

        Args:
            device: Not used: the file runs on the CPU.

        Raises:
            FileNotFoundError: There is no such file.
            ModelFileError: The file cannot be used.
            UsageError: There is no such class.
            ValueError: onnxruntime, or OpenVINO for a file of its own, is not installed.
        """
        model = Model(self.path, self.threads)
        for name in self.classes:
            if name not in model.class_names:
                known = ", ".join(model.class_names)
                raise UsageError(f"classes: there is no class {name!r} with boxes; the file knows {known:.300}")
        return LoadedFile(self, model)


@dataclass(frozen=True)
class LoadedFile:
    """A file that is ready to predict.

    Attributes:
        how: What was opened.
        model: The file.
        notes: Empty.
    """

    how: ServedFile
    model: Model
    notes: tuple[str, ...] = ()

    def read(self, data: bytes, name: str, max_pixels: int) -> NDArray[np.uint8]:
        """Decode an image file whose content may be anything.

        Args:
            data: Content of the file.
            name: Name of the image for messages.
            max_pixels: Number of pixels above which an image is refused by its header.

        Returns:
            uint8 [H, W, C].

        Raises:
            DataError: It is not an image, or is damaged, too large, or has another number of channels.
        """
        encoded = Encoded(data, name)
        with opened(encoded) as file, open_with_pillow(file) as image:
            check_size(encoded, (image.height, image.width), max_pixels)
            return as_pixels(image, self.model.description.channels, name)

    def predict(self, images: Sequence[NDArray[np.uint8]]) -> list[Prediction]:
        """Return one prediction per image, each with its image.

        Args:
            images: uint8 [H, W, C], of any sizes.
        """
        found, names, classes = self.model.predict(images), self.model.class_names, self.how.classes
        if not classes:
            return found
        wanted = [row for row, name in enumerate(names) if name in classes]
        return [each.with_boxes(np.isin(each.labels, wanted)) for each in found]

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all classes."""
        return tuple(category.name for category in self.model.description.taxonomy.categories)

    @property
    def input_size(self) -> tuple[int, int]:
        """(height, width) to which images are scaled."""
        return self.model.description.input_size

    @property
    def default_score(self) -> float:
        """The score from which boxes are shown unless another is asked for."""
        return 0.3
