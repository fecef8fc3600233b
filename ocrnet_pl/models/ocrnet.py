"""The whole network: encoder, neck, decoders, and what turns their output into predictions."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from os import PathLike
from typing import TYPE_CHECKING, Any, Literal, Self, TypeAlias, overload

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from ocrnet_pl.balancing.task_split import TaskSplit
from ocrnet_pl.errors import DataError, UsageError
from ocrnet_pl.imaging.arrays import Color, PixelFormat
from ocrnet_pl.models.base import Encoder, Features, PostProcess, Shapes
from ocrnet_pl.models.compilation import check_backend
from ocrnet_pl.models.folding import fold_norms
from ocrnet_pl.models.network_parts import DetectionFactory, NeckFactory, Parts, SegmentationFactory
from ocrnet_pl.models.pieces import joined, pieces
from ocrnet_pl.models.predict_options import boxes_asked_for, check_count, one_way
from ocrnet_pl.models.savable_network import SavableNetwork
from ocrnet_pl.models.subsampling import subsample_first
from ocrnet_pl.models.unread import Unread, find_unread, tie
from ocrnet_pl.structures import Output, Placement, Prediction, Predictions, Taxonomy

if TYPE_CHECKING:
    from ocrnet_pl.imaging.inputs import InputImage

Images: TypeAlias = str | PathLike[str] | Tensor | Iterable[Any]
"""What :meth:`OCRNet.predict` takes; arrays and Pillow's images are iterable or array-like as well."""
Way: TypeAlias = "Callable[[OCRNet, Tensor], Predictions]"
"""How to predict one image in several passes."""
_BATCH_SIZE = 16
"""Number of images per pass on an accelerator."""


class OCRNet(SavableNetwork):
    """One encoder and neck, a detection and a segmentation decoder on the same maps.

    How it is saved, shared and loaded stands in :class:`~ocrnet_pl.models.savable_network.SavableNetwork`.

    Args:
        taxonomy: The categories; class counts come from here.
        encoder: Turns images into feature maps.
        neck: Makes the neck from the encoder's channels and strides.
        detection: Makes the detection decoder from the neck's channels and strides and the taxonomy; null for
            segmentation only.
        segmentation: Makes the segmentation decoder from the shapes of all maps and the taxonomy; null for detection
            only.
        postprocess: Turns outputs into predictions.
        input_size: (height, width) in pixels to which :meth:`predict` scales and pads images.

    Raises:
        ValueError: Both decoders are None, or the encoder does not take images of ``input_size``.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        taxonomy: Taxonomy,
        encoder: Encoder,
        neck: NeckFactory,
        detection: DetectionFactory | None,
        segmentation: SegmentationFactory | None,
        postprocess: PostProcess,
        input_size: tuple[int, int] = (512, 512),
    ) -> None:
        super().__init__()
        if detection is None and segmentation is None:
            raise ValueError("model: detection and segmentation are both null; give at least one decoder")
        self.taxonomy = taxonomy
        self.input_size = input_size
        self.encoder = encoder
        self.neck = neck(encoder.channels, encoder.strides)
        channels, strides = self.neck.channels, self.neck.strides
        self._shapes = shapes = Shapes(channels, strides, encoder.channels, encoder.strides)
        self._neck_made = Parts.of(neck=(self.neck, (encoder.channels, encoder.strides)))
        self.detection = None if detection is None else detection(channels, strides, taxonomy)
        self.segmentation = None if segmentation is None else segmentation(shapes, taxonomy)
        if self.detection is None and self.segmentation is not None and not self.segmentation.reads_neck:
            # Weights without a gradient would abort a run on several GPUs.
            self.neck = None
        self._unread: Unread | None = None
        self.frozen_norms = False
        self.split = TaskSplit()
        self._splits_neck = self.segmentation is not None and self.segmentation.reads_neck
        self.postprocess = postprocess
        self.divisor = max(*encoder.strides, *strides)
        if (refusal := self.size_refusal(input_size)) is not None:
            raise ValueError(refusal)
        scale = torch.tensor(255.0)
        self.register_buffer("mean", torch.tensor(encoder.mean).view(1, -1, 1, 1) * scale, persistent=False)
        self.register_buffer("std", torch.tensor(encoder.std).view(1, -1, 1, 1) * scale, persistent=False)
        subsample_first(self)
        for tensor in (*self.parameters(), *self.buffers()):
            # ``to`` would try the weights of 3-D convolutions as well.
            if tensor.ndim == 4:
                # ``contiguous`` would leave depthwise weights their strides, and DDP then warns of each gradient's.
                tensor.data = tensor.data.clone(memory_format=torch.channels_last)

    @property
    def in_channels(self) -> int:
        """The number of channels of the images."""
        return self.mean.shape[1]

    def padding(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return the rows and columns that are added to images of this (height, width)."""
        return -size[0] % self.divisor, -size[1] % self.divisor

    def check_channels(self, count: int) -> None:
        """Raise DataError if the encoder does not take images of so many channels."""
        if count != self.in_channels:
            raise DataError(
                f"the images have {count} channels, the encoder takes {self.in_channels}; set `channels` of "
                "the sources (`data.predict_channels` to predict) or `in_channels` of the encoder"
            )

    def size_refusal(self, size: tuple[int, int]) -> str | None:
        """Return why the network takes no images of this (height, width), and what to do; None if it does."""
        only = self.encoder.fixed_size
        below, right = self.padding(size)
        if only is None or only == (size[0] + below, size[1] + right):
            return None
        return (
            f"model.encoder: {getattr(self.encoder, 'name', type(self.encoder).__name__)!r} takes images of "
            f"{only[0]}x{only[1]} only, not {size[0]}x{size[1]}; set data.size to "
            f"{only[0] if only[0] == only[1] else list(only)}, data.scales to [1.0] and model.multiscale to null, or "
            "take a model for any size (docs/encoders.md)"
        )

    def forward(self, images: Tensor) -> Output:
        """Map images to the decoders' raw output.

        Args:
            images: uint8 or float [B, C, H, W], 0 to 255, of any size. They are padded here to a whole number of cells,
                with the value that the encoder sees as its mean.

        Returns:
            Boxes in the pixels of ``images``; logits over the padded images. On a CPU that predicts, the images are not
            all computed together (:func:`~ocrnet_pl.models.pieces.pieces`), which gives the same.

        Raises:
            DataError: The images do not have the number of channels, or the size, that the encoder takes.
        """
        return joined([self._computed(piece) for piece in pieces(images, self)])

    def _computed(self, images: Tensor) -> Output:
        """Return the output for images that are computed together."""
        self.check_channels(images.shape[1])
        normalised = (images - self.mean) / self.std
        size = (images.shape[-2], images.shape[-1])
        if (refusal := self.size_refusal(size)) is not None:
            raise DataError(refusal)
        pad_y, pad_x = self.padding(size)
        if pad_y or pad_x:
            normalised = F.pad(normalised, (0, pad_x, 0, pad_y))
        encoder_maps = self.encoder(normalised.contiguous(memory_format=torch.channels_last))
        maps_of_encoder = segmented_encoder_maps = encoder_maps
        if not self._splits_neck:
            encoder_maps, segmented_encoder_maps = self.split(encoder_maps)
        maps = [] if self.neck is None else self.neck(encoder_maps)
        maps_of_neck = segmented_maps = maps
        if self._splits_neck:
            maps, segmented_maps = self.split(maps)
        detection = None if self.detection is None else self.detection(maps)
        if self.segmentation is None:
            output = Output(detection, None)
        else:
            semantic, *auxiliary = self.segmentation(Features(segmented_maps, segmented_encoder_maps, detection))
            output = Output(detection, semantic, self.segmentation.stride, tuple(auxiliary))
        if not (self.training and torch.is_grad_enabled()):
            return output
        trunk = [*maps_of_encoder, *maps_of_neck]
        if self._unread is None and not torch.compiler.is_compiling():
            self._unread = find_unread(output, trunk, dict(self.named_parameters()))
        return output if self._unread is None else tie(output, self._unread.of(trunk, self))

    def train(self, mode: bool = True) -> Self:
        """Set the mode; with :attr:`frozen_norms`, batch norms stay in evaluation mode and keep their statistics."""
        super().train(mode)
        if self.frozen_norms:
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self

    def begin_step(self, epoch: int, step: int) -> None:
        """Prepare for a training step, from which on frozen stages of the encoder may train.

        Args:
            epoch: Number of epochs of the run that are done.
            step: Number of optimiser steps of the run that are done.
        """
        if self.encoder.begin_step(epoch, step):
            self._unread = None
            self.train(self.training)

    def compile_parts(
        self, backend: str | Callable[..., Any] = "inductor", mode: str | None = None, sizes: int = 16
    ) -> None:
        """Compile encoder, neck and decoders in place, once for each input size.

        The names of the weights do not change. The split between the tasks is not compiled, because it changes while
        training.

        Args:
            backend: Name of a backend of :func:`torch.compile`, or a function that is one.
            mode: What the backend ``inductor`` optimises for; None for its default.
            sizes: Largest number of input shapes (size and batch) that will occur; each has its own graphs.

        Raises:
            ValueError: There is no such backend or mode, or it lacks the compiler that it needs.
        """
        if isinstance(backend, str):
            check_backend(backend, mode)
        parts = [p for p in (self.encoder, self.neck, self.detection, self.segmentation) if p is not None]
        # Modules compiled in place share one code object, which the limit counts; training and evaluation are separate.
        limit = 2 * len(parts) * sizes
        config: Any = torch._dynamo.config
        config.recompile_limit = max(config.recompile_limit, limit)
        config.accumulated_recompile_limit = max(config.accumulated_recompile_limit, limit)
        for part in parts:
            part.compile(backend=backend, mode=mode, dynamic=False, fullgraph=True)

    @torch.no_grad()
    def fuse(self) -> OCRNet:
        """Return a copy that is faster and cannot be trained: batch norms are folded into the convolutions before them.

        Its outputs are the same up to rounding. A copy in which nothing can be folded, or whose outputs would differ,
        is one of the network as it is; so is one that does not compute in float32.

        Returns:
            The copy, in evaluation mode, on the same device.
        """
        plain = copy.deepcopy(self).eval()
        if self.mean.dtype != torch.float32:
            return plain
        folded = copy.deepcopy(plain)
        generator = torch.Generator().manual_seed(0)
        images = torch.randint(0, 256, (1, self.in_channels, *self.input_size), dtype=torch.uint8, generator=generator)
        images = images.to(self.mean.device)
        fold_norms(folded, images)
        return folded if _same(plain(images), folded(images)) else plain

    def postprocessed(self, output: Output, placements: Sequence[Placement]) -> Predictions:
        """Turn an output into predictions, raw and fused, in the frame that the placements map to."""
        predictions: Predictions = self.postprocess(output, placements, self.taxonomy)
        return predictions

    def choose(self, operating_point: str, classes: Sequence[str] = ()) -> tuple[str, ...]:
        """Give out only some of the boxes from now on; :meth:`predict` chooses anew in each call.

        Args:
            operating_point: Which boxes of each class count, as in :meth:`predict`.
            classes: Names of the classes whose boxes are given out; empty for all.

        Returns:
            One line for each class for which the wish cannot be met.

        Raises:
            CheckpointError: The network has no operating points, because it was not calibrated.
            UsageError: There is no such operating point or class, or the network detects nothing.
        """
        if self.detection is None and (operating_point != "none" or classes):
            raise UsageError("operating_point, classes: the network has no detection decoder, and so no boxes")
        return self.postprocess.choose(operating_point, classes, self.taxonomy)

    @overload
    def predict(
        self,
        images: Images,
        tile: Way | None = ...,
        multiscale: Way | None = ...,
        *,
        stream: Literal[False] = ...,
        batch_size: int | None = ...,
        color: Color = ...,
        max_value: float | None = ...,
        operating_point: str = ...,
        classes: str | Sequence[str] = ...,
    ) -> list[Prediction]: ...

    @overload
    def predict(
        self,
        images: Images,
        tile: Way | None = ...,
        multiscale: Way | None = ...,
        *,
        stream: Literal[True],
        batch_size: int | None = ...,
        color: Color = ...,
        max_value: float | None = ...,
        operating_point: str = ...,
        classes: str | Sequence[str] = ...,
    ) -> Iterator[Prediction]: ...

    def predict(
        self,
        images: Images,
        tile: Way | None = None,
        multiscale: Way | None = None,
        *,
        stream: bool = False,
        batch_size: int | None = None,
        color: Color = "rgb",
        max_value: float | None = None,
        operating_point: str = "none",
        classes: str | Sequence[str] = (),
    ) -> list[Prediction] | Iterator[Prediction]:
        """Return the predictions for images of any size, each at its original size.

        Args:
            images: One image or several, also mixed: paths, folders, patterns such as ``photos/*.jpg``, addresses that
                begin with ``http://`` or ``https://``, Pillow's images, arrays [H, W, C] or [H, W], tensors [C, H, W],
                and batches of arrays or tensors with one more dimension in front. Arrays and tensors are uint8, 0 to
                255.
            tile: How to predict images that are larger than the input, such as
                :class:`~ocrnet_pl.inference.tiled_inference.Tiling`; None scales them down to fit.
            multiscale: How to predict in several passes, such as :class:`~ocrnet_pl.inference.multiscale.MultiScale`;
                None for one pass.
            stream: Whether to return an iterator, which reads images and predicts as it goes, so that the memory that
                it takes does not grow with the number of images.
            batch_size: Number of images per pass, at least 1; None for 1 on a CPU, where that is fastest, and 16
                elsewhere. With ``tile`` or ``multiscale`` each image is predicted alone.
            color: Order of the channels of arrays and tensors, "rgb" or "bgr".
            max_value: The value of white in arrays and tensors of floating-point numbers, such as 1.0; None refuses
                these.
            operating_point: Which boxes of each class count, by what ``calibrate`` found on labelled images:
                ``best_f1``, ``precision=0.95``, ``recall=0.99``, ``bound``, or ``none`` for all. A class for which that
                cannot be had is named in a warning.
            classes: Name of the class whose boxes are given out, or several; empty for all.

        Returns:
            One prediction per image, fused where the network has both tasks. The ``image_id`` of a file is its path
            below the folder that holds all files of the call, as the predict command writes it, or its path as given
            where ``images`` is an iterator, whose end is not known; the one of an address is the address, and the one
            of an image in memory is its position among the images.

        Raises:
            DataError: Something cannot be read as an image, or is none; the message names it.
            CheckpointError: The network has no operating points, because it was not calibrated.
            UsageError: There is no such operating point or class.
            ValueError: Both ``tile`` and ``multiscale`` are given, or an option is not what it should be.
        """
        from ocrnet_pl.imaging.inputs import input_images

        way: Way | None = one_way(tile, multiscale)
        if batch_size is not None:
            check_count("batch_size", batch_size)
        choice = boxes_asked_for(operating_point, classes)
        lines = self.choose(*choice)
        note = self.postprocess.passes_note(way)
        for line in lines if note is None else (*lines, note):
            warnings.warn(line, stacklevel=2)
        self.choose("none")
        inputs = input_images(images, PixelFormat(self.in_channels, color, max_value))
        size = batch_size or (1 if self.mean.device.type == "cpu" else _BATCH_SIZE)
        batches = iter(lambda: list(islice(inputs, size)), [])
        found = (each for batch in batches for each in self._predict_batch(batch, way, choice))
        return found if stream else list(found)

    @torch.inference_mode()
    def _predict_batch(
        self, inputs: Sequence[InputImage], way: Way | None, choice: tuple[str, tuple[str, ...]]
    ) -> list[Prediction]:
        """Return the prediction for each image; mode and choice of boxes are as before when the next one is read."""
        from ocrnet_pl.imaging.geometry import letterbox_image

        was_training = self.training
        self.eval()
        try:
            self.choose(*choice)
            if way is None:
                boxed, placements = zip(*(letterbox_image(each.image, self.input_size) for each in inputs), strict=True)
                found = self.postprocessed(self(torch.stack(boxed).to(self.mean.device)), placements).best
            else:
                found = [way(self, each.image).best[0] for each in inputs]
        finally:
            self.choose("none")
            self.train(was_training)
        for prediction, each in zip(found, inputs, strict=True):
            prediction.image_id, prediction.path, prediction.taxonomy = each.image_id, each.path, self.taxonomy
            prediction.size = (int(each.image.shape[-2]), int(each.image.shape[-1]))
            # A copy: whoever gave the array may reuse it.
            prediction.image = None if each.is_file else each.image.clone()
        return found


def _same(one: Output, other: Output) -> bool:
    """Return whether two outputs differ by rounding only."""
    pairs = [(one.semantic, other.semantic)]
    if one.detection is not None and other.detection is not None:
        pairs += [(one.detection.boxes, other.detection.boxes), (one.detection.scores, other.detection.scores)]
    return all(
        torch.allclose(a, b, rtol=1e-3, atol=1e-4 * max(1.0, float(a.abs().max())))
        for a, b in pairs
        if a is not None and b is not None
    )
