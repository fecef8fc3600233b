"""Prediction on images much larger than the input: tile by tile, combined to one result."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ocrnet_pl.errors import DataError
from ocrnet_pl.imaging.geometry import letterbox_image
from ocrnet_pl.imaging.tile_grid import overlap_pixels, tile_counts, tile_starts
from ocrnet_pl.inference.decode import Detections
from ocrnet_pl.inference.fusion import FusionPostProcess, SemanticMap
from ocrnet_pl.inference.geometry import boxes_to_original, maps_to_original
from ocrnet_pl.inference.tile_merging import join_tiles
from ocrnet_pl.models.ocrnet import OCRNet
from ocrnet_pl.models.predict_options import check_count
from ocrnet_pl.structures import Placement, Predictions

_OVERLAP = 0.6
"""IoU above which boxes of two tiles are one object, for decoding without suppression."""

_TOUCH = 0.02
"""The share of a tile's side within which a box counts as touching its border; predicted boxes are a little off."""
_BAND = 2**22
"""Number of values of the blended logits that are turned into probabilities at a time."""

Window = tuple[int, int, int, int]
"""Top, left, height and width in the image's pixels."""


_LEAST_SCALE, _MOST_SCALE = 0.01, 10.0
"""The range of the factors: beyond it, tiles are of a few pixels, or scaled to nothing."""


@dataclass(frozen=True)
class Tiling:
    """Predicts a large image by overlapping tiles of the network's input size, then fuses the image as a whole.

    Each tile is cut at the image's own scale, so that small objects are as large as in training. The tiles' logits are
    blended with weights that fall to zero towards the tiles' inner borders, where the network lacks context; the boxes
    are joined as :mod:`ocrnet_pl.inference.tile_merging` explains. An image no larger than a tile is predicted without
    tiling.

    The blended logits take the most memory: number of classes x height x width values, kept on the CPU.
    ``Decode.max_detections`` limits the boxes of each tile, not those of the image.

    Attributes:
        overlap: Share of a tile's side that neighbouring tiles have in common, from 0 to below 1; choose it so that the
            overlap is as large as the largest usual object.
        batch_size: Number of tiles per pass, at least 1.
        scale: Factor by which the image is scaled before it is cut, 0.01 to 10; use 0.5 if the network saw the training
            images at half size.
        half: Whether the blended logits are kept in half precision, which halves their memory.
        folder: Folder for a temporary file that holds the blended logits; null keeps them in memory.

    Raises:
        ValueError: An option is out of range.
    """

    overlap: float = 0.25
    batch_size: int = 4
    scale: float = 1.0
    half: bool = False
    folder: str | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.overlap < 1:
            raise ValueError(f"tile.overlap: expected a share of the tile's side, 0 to under 1, got {self.overlap}")
        check_count("tile.batch_size", self.batch_size)
        if not _LEAST_SCALE <= self.scale <= _MOST_SCALE:
            raise ValueError(
                f"tile.scale: expected a factor from {_LEAST_SCALE:g} to {_MOST_SCALE:g}, got {self.scale:g}"
            )

    def sides(self, input_size: tuple[int, int]) -> tuple[int, int]:
        """Return the (height, width) of a tile in the image's pixels, for a network of this input size."""
        height, width = (max(1, round(side / self.scale)) for side in input_size)
        return height, width

    def count(self, size: tuple[int, int], input_size: tuple[int, int]) -> int:
        """Return the number of tiles of an image of this (height, width)."""
        sides = self.sides(input_size)
        shared = [overlap_pixels(side, self.overlap) for side in sides]
        return math.prod(int(tile_counts(*each)) for each in zip(size, sides, shared, strict=True))

    def __str__(self) -> str:
        """Describe what decides about the scores, for people and to tell ways of prediction apart."""
        return f"tiles that overlap by {self.overlap:g} at scale {self.scale:g}"

    @torch.inference_mode()
    def __call__(self, network: OCRNet, image: Tensor) -> Predictions:
        """Return the prediction for one image, raw and fused.

        Args:
            network: The network, in evaluation mode.
            image: uint8 [C, H, W], on the CPU.

        Returns:
            One prediction at the image's size; on the CPU if there was more than one tile.

        Raises:
            ValueError: The network's postprocess is not a ``FusionPostProcess``, whose parts tiling uses.
            DataError: There is no folder for the logits.
        """
        if self._is_tile(network, image):
            boxed, placement = letterbox_image(image, network.input_size)
            return network.postprocessed(network(boxed[None].to(network.mean.device)), [placement])
        postprocess = _joining(network)
        with self._blended(network, image) as (boxes, logits):
            semantic = None if logits is None else SemanticMap.of(_softmax(logits, postprocess.settings.temperature))
            return postprocess.join(boxes, semantic, network.taxonomy)

    @torch.inference_mode()
    def found(self, network: OCRNet, images: Sequence[Tensor]) -> list[tuple[Detections | None, Tensor | None]]:
        """Return for each image its joined boxes, and the blended logits [S, H, W] in half precision, at its size.

        Without one of the decoders there is None in its place.

        Args:
            network: The network, in evaluation mode.
            images: One uint8 tensor [C, H, W] per image, on the CPU.

        Raises:
            ValueError: The network's postprocess is not a ``FusionPostProcess``.
        """
        found = []
        for image in images:
            if self._is_tile(network, image):
                boxed, placement = letterbox_image(image, network.input_size)
                output = network(boxed[None].to(network.mean.device))
                boxes, logits = None, None
                if output.detection is not None:
                    boxes = _joining(network).decode(output.detection, [placement])[0]
                    boxes = boxes._replace(boxes=boxes_to_original(boxes.boxes, placement))
                if output.semantic is not None:
                    logits = maps_to_original(output.semantic[0].float(), output.stride, placement).half()
                found.append((boxes, logits))
                continue
            with self._blended(network, image) as (boxes, logits):
                # A copy, since they may be in a file that is gone afterwards.
                found.append((boxes, None if logits is None else logits.to(torch.float16, copy=True)))
        return found

    def _is_tile(self, network: OCRNet, image: Tensor) -> bool:
        """Return whether an image is no larger than a tile."""
        sides = self.sides(network.input_size)
        return image.shape[-2] <= sides[0] and image.shape[-1] <= sides[1]

    @contextmanager
    def _blended(self, network: OCRNet, image: Tensor) -> Iterator[tuple[Detections | None, Tensor | None]]:
        """Yield the joined boxes of all tiles, and the blended logits [S, H, W]."""
        postprocess = _joining(network)
        size = (int(image.shape[-2]), int(image.shape[-1]))
        sides = self.sides(network.input_size)
        device = network.mean.device
        axes = [_Axis.over(size[i], sides[i], self.overlap) for i in (0, 1)]
        windows = [
            (int(top), int(left), axes[0].length, axes[1].length) for top in axes[0].starts for left in axes[1].starts
        ]
        classes = 0 if network.segmentation is None else network.taxonomy.num_semantic
        found: list[Detections] = []
        with self._map((classes, *size)) as logits:
            for first in range(0, len(windows), self.batch_size):
                batch = windows[first : first + self.batch_size]
                parts = [letterbox_image(_cut(image, window), network.input_size) for window in batch]
                output = network(torch.stack([part for part, _ in parts]).to(device))
                placements = [placement for _, placement in parts]
                if output.detection is not None:
                    detections = postprocess.decode(output.detection, placements)
                    found += map(_shift, detections, placements, batch)
                if output.semantic is not None:
                    for number, (maps, placement) in enumerate(zip(output.semantic, placements, strict=True), first):
                        row, column = divmod(number, len(axes[1].starts))
                        top, left, height, width = windows[number]
                        tile = maps_to_original(maps.float(), output.stride, placement)
                        tile *= axes[0].shares[row].to(device)[:, None] * axes[1].shares[column].to(device)
                        logits[:, top : top + height, left : left + width] += tile.to(logits)
            boxes = None
            if network.detection is not None:
                corners = torch.tensor([(left, top, left + w, top + h) for top, left, h, w in windows]).float()
                touch = _TOUCH * min(axis.length for axis in axes)
                # Tiles overlap: two of them find the same object even where the decoder emits it once.
                threshold = postprocess.decode.iou_threshold
                boxes = join_tiles(found, corners, size, touch, _OVERLAP if threshold is None else threshold)
            yield boxes, None if network.segmentation is None else logits

    @contextmanager
    def _map(self, shape: tuple[int, int, int]) -> Iterator[Tensor]:
        """Return zeros [S, H, W], in memory or in a file that is removed afterwards."""
        dtype = torch.float16 if self.half else torch.float32
        count = math.prod(shape)
        if self.folder is None or not count:
            yield torch.zeros(shape, dtype=dtype)
            return
        if not os.path.isdir(self.folder):
            raise DataError.at(
                self.folder,
                "there is no such folder for the blended logits",
                field="tile.folder",
                advice="make it, or set tile.folder to null",
            )
        # The file never has a name, so that nothing is left behind however the process ends.
        with tempfile.TemporaryFile(dir=self.folder) as file:
            file.truncate(count * dtype.itemsize)
            array: NDArray[np.generic] = np.memmap(file, dtype=np.float16 if self.half else np.float32, shape=shape)
            yield torch.from_numpy(array)


@dataclass(frozen=True)
class _Axis:
    """The tiles along one side of the image.

    Attributes:
        starts: Start of each tile, in the image's pixels.
        length: Length of a tile, in the image's pixels.
        shares: float32 [T, length], each tile's share in the blended values; at every pixel they sum to 1.
    """

    starts: NDArray[np.int64]
    length: int
    shares: Tensor

    @classmethod
    def over(cls, size: int, side: int, overlap: float) -> _Axis:
        shared = overlap_pixels(side, overlap)
        starts, length = tile_starts(size, side, shared), min(side, size)
        # A raised cosine over the overlap, or over half of the tile where neighbours share more than that; at the
        # image's own border there is no neighbour that could take over the pixels.
        width = min(shared, length // 2)
        rise = 0.5 - 0.5 * np.cos(np.pi * (np.arange(width) + 0.5) / max(width, 1))
        weights = np.ones((len(starts), length))
        weights[1:, :width] = rise
        weights[:-1, length - width :] = rise[::-1]
        total = np.zeros(size)
        for start, weight in zip(starts, weights, strict=True):
            total[start : start + length] += weight
        for start, weight in zip(starts, weights, strict=True):
            weight /= total[start : start + length]
        return cls(starts, length, torch.from_numpy(weights).float())


def _joining(network: OCRNet) -> FusionPostProcess:
    postprocess = network.postprocess
    if not isinstance(postprocess, FusionPostProcess):
        raise ValueError(f"tile: {type(postprocess).__name__} cannot join tiles; extend FusionPostProcess")
    return postprocess


def _cut(image: Tensor, window: Window) -> Tensor:
    top, left, height, width = window
    return image[:, top : top + height, left : left + width]


def _shift(detections: Detections, placement: Placement, window: Window) -> Detections:
    """Return a tile's boxes in the image's pixels, on the CPU."""
    top, left, _, _ = window
    boxes, scores, labels = (part.cpu() for part in detections)
    boxes = boxes_to_original(boxes, placement)
    return Detections(boxes + boxes.new_tensor((left, top, left, top)), scores, labels)


def _softmax(logits: Tensor, temperature: float) -> Tensor:
    """Turn logits [S, H, W], divided by a temperature, into probabilities in place, some rows at a time."""
    rows = max(1, _BAND // max(1, logits.shape[0] * logits.shape[2]))
    for band in logits.split(rows, 1):
        band.copy_((band.float() / temperature).softmax(0))
    return logits
