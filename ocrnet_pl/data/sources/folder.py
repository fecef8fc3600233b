"""A folder of images without labels, to predict on."""

from __future__ import annotations

from collections.abc import Collection
from os import PathLike
from pathlib import Path

import numpy as np

from ocrnet_pl.data.records import make_sample
from ocrnet_pl.data.sources.base import Source
from ocrnet_pl.errors import DataError
from ocrnet_pl.imaging.folders import find_images
from ocrnet_pl.imaging.images import read_image
from ocrnet_pl.structures import Sample, Supervision, Taxonomy


class ImageFolder(Source):
    """The images of a folder and its subfolders by name, or one image; links to folders are followed.

    Every file is expected to be an image, except those whose name begins with a dot; files that are not images are
    listed in ``skipped``. Only the headers are read here; a file that turns out to be broken later raises an error when
    it is read.

    Args:
        path: Path of the folder or file.
        taxonomy: Categories of the network that predicts; null for none, since the samples have no labels.
        channels: Number of channels of the images; three makes all RGB.
        leave_out: Ids of images that are left out.

    Attributes:
        skipped: Path and reason of each file that is not an image.

    Raises:
        DataError: There is no such folder or file, or no image in it.
    """

    def __init__(
        self,
        path: str | PathLike[str],
        taxonomy: Taxonomy | None = None,
        channels: int = 3,
        leave_out: Collection[str] = (),
    ) -> None:
        root = Path(path).expanduser()
        self.channels = channels
        self._taxonomy = taxonomy or Taxonomy(())
        self._root = root if root.is_dir() else root.parent
        found, self.skipped = find_images(path)
        self._paths = [path for path in found if self._id(path) not in leave_out]

    def refuse_equal_stems(self, what: str) -> None:
        """Refuse images whose names differ in their ending alone, where each has a file of its name without it.

        Args:
            what: What the files are, in the plural.

        Raises:
            DataError: There are such images.
        """
        seen: dict[Path, Path] = {}
        for path in self._paths:
            other = seen.setdefault(path.with_suffix(""), path)
            if other is not path:
                raise DataError.at(
                    path, f"the {what} would be those of {other.name!r} as well", advice="rename one of the images"
                )

    @property
    def taxonomy(self) -> Taxonomy:
        """The given categories."""
        return self._taxonomy

    def __len__(self) -> int:
        return len(self._paths)

    def image_path(self, index: int) -> Path:
        """Return the image's file."""
        return self._paths[index]

    def identity(self, index: int) -> tuple[int | str, str]:
        """Return the path below the folder, and the whole path."""
        path = self._paths[index]
        return self._id(path), str(path)

    def _id(self, path: Path) -> str:
        return path.relative_to(self._root).as_posix()

    def __getitem__(self, index: int) -> Sample:
        path = self._paths[index]
        return make_sample(
            read_image(path, channels=self.channels),
            boxes=np.zeros((0, 4)),
            labels=(),
            crowd=(),
            supervision=Supervision.full(self._taxonomy, detection=False, semantic=False),
            image_id=self._id(path),
            path=str(path),
        )
