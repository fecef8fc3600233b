"""What a data set format has to provide."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import suppress
from os import PathLike
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from ocrnet_pl.data.records import Blocks, Part, RawBoxes
from ocrnet_pl.errors import DataError
from ocrnet_pl.imaging.images import upright_size
from ocrnet_pl.structures import Sample, Taxonomy

S = TypeVar("S", bound="Source")


def at_equal_distances(length: int, most: int) -> list[int]:
    """Return the indices of at most so many elements of a sequence, at equal distances, the ends among them."""
    indices: list[int] = np.unique(np.linspace(0, length - 1, min(most, length)).astype(int)).tolist()
    return indices


class Source(Dataset[Sample], ABC):
    """A labelled data set: a taxonomy, a length, and samples as they are stored, untransformed.

    A new format is one subclass. Problems of the whole data set raise :class:`~ocrnet_pl.errors.DataError` in the
    constructor, before training starts; problems of one file raise it when its sample is read.
    """

    def __new__(cls: type[S], *args: Any, **kwargs: Any) -> S:
        """Refuse empty paths among the arguments, which would silently be the folder that they start from.

        Raises:
            DataError: An argument that is a path is an empty text.
        """
        signature = inspect.signature(cls.__init__)
        with suppress(TypeError):
            # If the arguments do not fit, the constructor itself says so.
            for name, value in signature.bind(None, *args, **kwargs).arguments.items():
                if value == "" and "PathLike" in str(signature.parameters[name].annotation):
                    folder = "current folder" if name == "root" else "folder that paths start from"
                    raise DataError.at(
                        cls.__name__, "expected a path, got ''", field=name, advice=f"write '.' for the {folder}"
                    )
        return super().__new__(cls)

    @property
    @abstractmethod
    def taxonomy(self) -> Taxonomy:
        """The categories that the samples' labels refer to."""

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of samples."""

    @abstractmethod
    def __getitem__(self, index: int) -> Sample:
        """Return one sample, whose tensors must not be changed in place."""

    def image_path(self, index: int) -> str | PathLike[str] | None:
        """Return a sample's image file; None if there is none or the format does not say."""
        return None

    def image_size(self, index: int) -> tuple[int, int]:
        """Return the (height, width) of a sample, without decoding if the format or the file's header gives it.

        Raises:
            DataError: The file is missing or not an image.
        """
        path = self.image_path(index)
        return self[index].size if path is None else upright_size(path)

    def image_boxes(self, index: int) -> NDArray[np.float32]:
        """Return the boxes of a sample, xyxy [N, 4]; a format that knows them without decoding overrides this.

        Raises:
            DataError: The sample cannot be read.
        """
        boxes: NDArray[np.float32] = self[index].boxes.as_subclass(Tensor).numpy()
        return boxes

    def image_categories(self, index: int) -> NDArray[np.int64]:
        """Return which categories a sample has boxes or pixels of, as indices into ``taxonomy.categories``.

        Crowds count by their pixels only. A format that knows them without decoding overrides this, and may then leave
        out the background.

        Raises:
            DataError: The sample cannot be read.
        """
        taxonomy = self.taxonomy
        raw = None if taxonomy.num_semantic else self.raw_boxes(index)
        sample = self[index] if raw is None else None
        if sample is not None:
            classes = sample.labels[~sample.crowd].numpy()
        else:
            assert raw is not None
            classes = raw.labels[~raw.crowd & (raw.rows >= 0)]
        detected = np.isin(np.arange(taxonomy.num_detection), classes)
        drawn = np.zeros(taxonomy.num_semantic, dtype=np.bool_)
        if sample is not None and sample.semantic is not None:
            values = np.bincount(sample.semantic.as_subclass(Tensor).numpy().reshape(-1), minlength=len(drawn))
            drawn = values[: len(drawn)] > 0
        present = [
            (category.detection is not None and detected[category.detection])
            or (category.semantic is not None and drawn[category.semantic])
            for category in taxonomy.categories
        ]
        return np.flatnonzero(present)

    def raw_boxes(self, index: int) -> RawBoxes | None:
        """Return an image's boxes as they are stored, for the data check; None if they equal the sample's own."""
        return None

    def identity(self, index: int) -> tuple[int | str, str]:
        """Return a sample's id and path; a format that knows them without reading the image overrides this."""
        sample = self[index]
        return sample.image_id, sample.path

    @property
    def sizes(self) -> NDArray[np.int32] | None:
        """Every image's (height, width), [N, 2], if the format gives them without opening images; else None."""
        return None

    @property
    def parts(self) -> tuple[Part, ...]:
        """The parts that share each batch, in the order of the samples and without gaps; empty for a single part."""
        return ()

    @property
    def blocks(self) -> Blocks | None:
        """How the samples are stored, for an order that reads in runs; None if any order is as good."""
        return None

    def expect(self, index: int) -> None:
        """Announce that a sample will soon be requested; a source that fetches its files may start now."""

    def files(self, index: int) -> Sequence[str]:
        """Return the files that a sample is read from; a cached sample is outdated when one of them changes.

        Args:
            index: Index of the sample.

        Returns:
            The paths; by default none, and the sample's ``path`` is used instead.
        """
        return ()
