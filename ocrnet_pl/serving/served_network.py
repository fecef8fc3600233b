"""A trained network as it is served: how it is loaded, what it reads, and what it answers with."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from ocrnet_pl.imaging.image_files import Encoded
from ocrnet_pl.imaging.images import read_image
from ocrnet_pl.inference.multiscale import MultiScale
from ocrnet_pl.inference.operating_points import NO_POINT
from ocrnet_pl.inference.tiled_inference import Tiling
from ocrnet_pl.models.base import PostProcess
from ocrnet_pl.models.ocrnet import OCRNet
from ocrnet_pl.models.rebuilding import load_calibrated
from ocrnet_pl.storage.checkpoints import read_checkpoint
from ocrnet_pl.structures import Prediction


def checkpoint_network(path: str, device: str, trust: Sequence[str], postprocess: PostProcess | None) -> OCRNet:
    """Load a network that predicts as the predict command does.

    Args:
        path: Path of the checkpoint.
        device: Device to predict on.
        trust: Packages whose classes the checkpoint may name.
        postprocess: What turns outputs into predictions; None for the checkpoint's own. What ``calibrate`` wrote into
            the checkpoint is applied to either.

    Raises:
        FileNotFoundError: There is no such checkpoint.
        CheckpointError: The checkpoint cannot be used, or its calibration is of another post-processing.
    """
    if postprocess is None:
        return OCRNet.from_checkpoint(path, device, trust)
    network = OCRNet.from_checkpoint(path, device, trust, postprocess=copy.deepcopy(postprocess))
    load_calibrated(network, read_checkpoint(path, mmap=True), f"checkpoint {path!r}")
    return network


@dataclass(frozen=True)
class ServedNetwork:
    """Says which network is served and how it predicts; each process loads its own.

    Attributes:
        ckpt_path: Path of the checkpoint.
        trust: Packages whose classes the checkpoint may name.
        postprocess: What turns outputs into predictions, before calibrated settings; None for the checkpoint's own.
        tile: How to predict images larger than the input in tiles; None scales them down to fit.
        multiscale: How to predict at several scales; None for a single pass.
        operating_point: Which boxes of each class count.
        classes: Names of the classes whose boxes are given out; empty for all.
    """

    ckpt_path: str
    trust: tuple[str, ...] = ()
    postprocess: PostProcess | None = None
    tile: Tiling | None = None
    multiscale: MultiScale | None = None
    operating_point: str = NO_POINT
    classes: tuple[str, ...] = ()

    def load(self, device: str = "cpu") -> LoadedNetwork:
        """Load the network.

        Args:
            device: Device to predict on.

        Raises:
            FileNotFoundError: There is no such checkpoint.
            CheckpointError: The checkpoint cannot be used, or was not calibrated for the operating point.
            UsageError: There is no such operating point or class.
        """
        network = checkpoint_network(self.ckpt_path, device, self.trust, self.postprocess).fuse()
        notes = network.choose(self.operating_point, self.classes)
        other = network.postprocess.passes_note(self.tile or self.multiscale)
        return LoadedNetwork(self, network, notes if other is None else (*notes, other))


@dataclass(frozen=True)
class LoadedNetwork:
    """A network that is ready to predict.

    Attributes:
        how: What was loaded, and how it predicts.
        network: The network.
        notes: One line for each class for which the operating point cannot be had, and where it is of other passes.
    """

    how: ServedNetwork
    network: OCRNet
    notes: tuple[str, ...] = ()

    def read(self, data: bytes, name: str, max_pixels: int) -> Tensor:
        """Decode an image file whose content may be anything.

        Args:
            data: Content of the file.
            name: Name of the image for messages.
            max_pixels: Number of pixels above which an image is refused by its header.

        Returns:
            uint8 [C, H, W].

        Raises:
            DataError: It is not an image, or is damaged, too large, or has another number of channels.
        """
        return read_image(Encoded(data, name), channels=self.network.in_channels, max_pixels=max_pixels)

    def predict(self, images: Sequence[Tensor]) -> list[Prediction]:
        """Return one prediction per image, each with its image.

        Args:
            images: uint8 [C, H, W], of any sizes.
        """
        how = self.how
        return self.network.predict(
            list(images),
            how.tile,
            how.multiscale,
            operating_point=how.operating_point,
            classes=how.classes,
        )

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all classes."""
        return tuple(category.name for category in self.network.taxonomy.categories)

    @property
    def input_size(self) -> tuple[int, int]:
        """(height, width) to which images are scaled."""
        return self.network.input_size

    @property
    def default_score(self) -> float:
        """The score from which boxes are shown unless another is asked for; an operating point decides by itself."""
        return 0.3 if self.how.operating_point == NO_POINT else 0.0
