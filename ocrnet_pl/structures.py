"""The contracts between the stages: the input and output of each stage.

Data flows one way through these types::

    source -> Sample -> transforms -> Sample -> collate -> Batch -> OCRNet -> Output
        -> losses, or -> PostProcess -> Prediction -> metrics, writers

Of the package it imports the colours of categories only.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torchvision import tv_tensors

from ocrnet_pl.colors import distinct_color

IGNORE_INDEX = 255
"""The value of a pixel without a label in every semantic map."""
_WAITED_FOR = ("cpu", "mps")
"""Kinds of devices to which tensors are not copied asynchronously."""
FUSION_KEY = "fusion"
"""Key under which a calibrated checkpoint keeps the settings of its post-processing."""
CALIBRATION_KEY = "calibration"
"""Key under which a calibrated checkpoint keeps what is known of the scores of its boxes."""


@dataclass(frozen=True)
class Category:
    """One category of a taxonomy.

    Attributes:
        name: Unique name.
        is_thing: Whether the category has countable instances.
        color: RGB, 0 to 255; categories that differ in it only are equal.
        detection: Index among the detection classes; None if the category has no boxes.
        semantic: Index among the segmentation classes; None if the category has no pixels.
    """

    name: str
    is_thing: bool
    color: tuple[int, int, int] = field(compare=False)
    detection: int | None
    semantic: int | None


@dataclass(frozen=True)
class Taxonomy:
    """The ordered categories of a data set; every class count comes from here.

    Attributes:
        categories: The categories in order; detection and semantic indices each run 0, 1, 2, ... without gaps.

    Raises:
        ValueError: A name occurs twice, an index has a gap, or there are more than 255 segmentation classes.
    """

    categories: tuple[Category, ...]

    def __post_init__(self) -> None:
        names = [category.name for category in self.categories]
        for name, count in Counter(names).items():
            if count > 1:
                raise ValueError(f"taxonomy: the category name {name!r} occurs more than once")
        for kind in ("detection", "semantic"):
            indices = [getattr(c, kind) for c in self.categories if getattr(c, kind) is not None]
            if sorted(indices) != list(range(len(indices))):
                text = f"{indices[:20]}"[:100]
                raise ValueError(f"taxonomy: the {kind} indices {text} are not 0 to {len(indices) - 1}")
        if self.num_semantic > IGNORE_INDEX:
            raise ValueError(f"taxonomy: {self.num_semantic} segmentation classes, at most {IGNORE_INDEX} fit")

    @classmethod
    def build(
        cls,
        things: Sequence[str] = (),
        stuff: Sequence[str] = (),
        *,
        detected: Iterable[str] | None = None,
        segmented: Iterable[str] | None = None,
        colors: Mapping[str, tuple[int, int, int]] | None = None,
    ) -> Taxonomy:
        """Build a taxonomy from names, stuff first, so that a background class gets segmentation index 0.

        Args:
            things: Names of the countable categories.
            stuff: Names of the uncountable categories.
            detected: The names that have boxes; None for the things.
            segmented: The names that have pixels; None for all.
            colors: RGB by name; a category that is missing gets a distinct colour.

        Returns:
            The taxonomy, with indices in the given order.
        """
        names = [*stuff, *things]
        detected = set(things if detected is None else detected)
        segmented = set(names if segmented is None else segmented)
        categories: list[Category] = []
        next_detection = next_semantic = 0
        for position, name in enumerate(names):
            detection = semantic = None
            if name in detected:
                detection, next_detection = next_detection, next_detection + 1
            if name in segmented:
                semantic, next_semantic = next_semantic, next_semantic + 1
            color = (colors or {}).get(name, distinct_color(position))
            categories.append(Category(name, position >= len(stuff), color, detection, semantic))
        return cls(tuple(categories))

    @cached_property
    def detection_categories(self) -> tuple[Category, ...]:
        """The categories that have boxes, by detection index."""
        chosen = [c for c in self.categories if c.detection is not None]
        return tuple(sorted(chosen, key=lambda c: c.detection or 0))

    @cached_property
    def semantic_categories(self) -> tuple[Category, ...]:
        """The categories that have pixels, by segmentation index."""
        chosen = [c for c in self.categories if c.semantic is not None]
        return tuple(sorted(chosen, key=lambda c: c.semantic or 0))

    @property
    def num_detection(self) -> int:
        """The number of detection classes."""
        return len(self.detection_categories)

    @property
    def num_semantic(self) -> int:
        """The number of segmentation classes."""
        return len(self.semantic_categories)

    @cached_property
    def detection_to_semantic(self) -> tuple[int, ...]:
        """The segmentation class of each detection class, -1 if it has none."""
        return tuple(-1 if c.semantic is None else c.semantic for c in self.detection_categories)

    @cached_property
    def positions_of_detection(self) -> tuple[int, ...]:
        """The place of each detection class among the categories."""
        return tuple(
            index
            for _, index in sorted((c.detection, i) for i, c in enumerate(self.categories) if c.detection is not None)
        )

    @cached_property
    def positions_of_semantic(self) -> tuple[int, ...]:
        """The place of each segmentation class among the categories."""
        return tuple(
            index
            for _, index in sorted((c.semantic, i) for i, c in enumerate(self.categories) if c.semantic is not None)
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain lists and dicts, for a checkpoint or JSON."""
        return {
            "categories": [
                {
                    "name": c.name,
                    "is_thing": c.is_thing,
                    "color": list(c.color),
                    "detection": c.detection,
                    "semantic": c.semantic,
                }
                for c in self.categories
            ]
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Taxonomy:
        """Rebuild a taxonomy from :meth:`to_dict`.

        Raises:
            ValueError: An entry is missing or wrong.
        """
        try:
            return cls(tuple(_category(entry) for entry in data["categories"]))
        except (LookupError, TypeError, AttributeError) as error:
            raise ValueError(f"taxonomy: an entry is missing or wrong ({error})") from error


def _category(entry: Mapping[str, Any]) -> Category:
    """Return a category from a file, which may contain anything."""
    name, color = entry["name"], tuple(entry["color"])
    if not isinstance(name, str) or not name:
        raise ValueError("taxonomy: a category has no name")
    if len(color) != 3 or not all(type(value) is int and 0 <= value < 256 for value in color):
        raise ValueError(f"taxonomy: the color of {name!r:.60} is not three numbers from 0 to 255")
    indices = entry["detection"], entry["semantic"]
    if not all(index is None or type(index) is int for index in indices):
        raise ValueError(f"taxonomy: an index of {name!r:.60} is not an integer")
    return Category(name, bool(entry["is_thing"]), (color[0], color[1], color[2]), *indices)


@dataclass(frozen=True)
class Supervision:
    """The classes that an image was labelled for, per task.

    A class that was not labelled gives no signal: neither its presence nor its absence is known.

    Attributes:
        detection: bool [num_detection], the labelled detection classes.
        semantic: bool [num_semantic], the labelled segmentation classes.
    """

    detection: Tensor
    semantic: Tensor

    @classmethod
    def full(cls, taxonomy: Taxonomy, *, detection: bool = True, semantic: bool = True) -> Supervision:
        """Return the supervision of an image labelled for all classes of the tasks that are True."""
        return cls(
            torch.full((taxonomy.num_detection,), detection, dtype=torch.bool),
            torch.full((taxonomy.num_semantic,), semantic, dtype=torch.bool),
        )


@dataclass(frozen=True)
class Placement:
    """The position of an original image in the network's input: ``input = original * scale + offset``.

    Coordinates are continuous pixel edges: a pixel (i, j) covers [j, j + 1) x [i, i + 1).

    Attributes:
        original_size: (height, width) of the original image.
        input_size: (height, width) of the network's input, including padding.
        scale: (y, x), exact: resized side divided by original side.
        offset: (y, x) in input pixels.
    """

    original_size: tuple[int, int]
    input_size: tuple[int, int]
    scale: tuple[float, float] = (1.0, 1.0)
    offset: tuple[float, float] = (0.0, 0.0)

    @classmethod
    def identity(cls, size: tuple[int, int]) -> Placement:
        """Return the placement of an image that was not moved."""
        return cls(size, size)


@dataclass
class Sample:
    """One labelled image.

    Attributes:
        image: uint8 [C, H, W].
        boxes: float32 [N, 4], xyxy in pixels.
        labels: int64 [N], detection classes.
        crowd: bool [N]; a crowd is neither a target nor a false alarm.
        semantic: uint8 [H, W] of segmentation classes, 255 = ignore; None if the image has no such map.
        instances: int32 [H, W], the index of a box plus one, 0 = none; None if the image has no such map.
        supervision: What the image was labelled for.
        image_id: Id of the image in the data set.
        path: Path of the image file, or a description of a generated image.
        placement: Position and scale of the original image in ``image``; None before any transform.
    """

    image: tv_tensors.Image
    boxes: tv_tensors.BoundingBoxes
    labels: Tensor
    crowd: Tensor
    supervision: Supervision
    semantic: tv_tensors.Mask | None = None
    instances: tv_tensors.Mask | None = None
    image_id: int | str = 0
    path: str = ""
    placement: Placement | None = None

    @property
    def size(self) -> tuple[int, int]:
        """The image's (height, width)."""
        return int(self.image.shape[-2]), int(self.image.shape[-1])

    def replace(self, **changes: Any) -> Sample:
        """Return a copy with the fields changed."""
        return replace(self, **changes)


@dataclass
class Batch:
    """Images of one size with padded targets.

    Attributes:
        images: uint8 [B, C, H, W].
        boxes: float32 [B, M, 4], xyxy in input pixels; rows beyond an image's own are zero.
        labels: int64 [B, M].
        valid: bool [B, M], whether the row is a target box (neither padding, nor a crowd, nor degenerate).
        crowd: bool [B, M], whether the row is a crowd region.
        semantic: uint8 [B, H, W], 255 = ignore.
        detection_classes: bool [B, num_detection], the detection supervision.
        semantic_classes: bool [B, num_semantic], the segmentation supervision.
        placements: One placement per image.
        truths: The samples to evaluate against, in the frame to which predictions are mapped; empty in training.
        image_ids: One id per image.
        paths: One path per image.
        has_crowds: Whether any row may be a crowd region, known on the host so that no loss has to ask the device.
    """

    images: Tensor
    boxes: Tensor
    labels: Tensor
    valid: Tensor
    crowd: Tensor
    semantic: Tensor
    detection_classes: Tensor
    semantic_classes: Tensor
    placements: list[Placement] = field(default_factory=list)
    truths: list[Sample] = field(default_factory=list)
    image_ids: list[int | str] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    has_crowds: bool = True

    def __len__(self) -> int:
        return int(self.images.shape[0])

    def _map_tensors(self, function: Callable[[Tensor], Tensor]) -> Batch:
        tensors = {f.name: getattr(self, f.name) for f in fields(self) if isinstance(getattr(self, f.name), Tensor)}
        changed: dict[str, Any] = {name: function(tensor) for name, tensor in tensors.items()}
        if all(changed[name] is tensor for name, tensor in tensors.items()):
            return self
        return replace(self, **changed)

    def to(self, device: torch.device | str, non_blocking: bool | None = None) -> Batch:
        """Return the batch with its tensors on ``device``; the truths are not moved.

        While a copy is waited for, everything queued behind it waits as well, and a device would run out of work at
        each step. Lightning copies plain tensors asynchronously, but calls this method without saying so.

        Args:
            device: Target device; a batch that is already there is returned itself.
            non_blocking: Whether to continue before the copies have arrived, which happens only if they come from
                pinned memory. None means true for accelerators other than Apple's, where torch has lost data that way,
                and false for the CPU, which would read the values before they are there.
        """
        if non_blocking is None:
            non_blocking = torch.device(device).type not in _WAITED_FOR
        return self._map_tensors(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Batch:
        """Return the batch in pinned memory; the DataLoader calls this."""
        return self._map_tensors(lambda tensor: tensor.pin_memory())


class DetectionOutput(NamedTuple):
    """The output of the detection decoder, all levels joined: A candidates per image, in float32 at any precision.

    Attributes:
        boxes: float32 [B, A, 4], xyxy in input pixels.
        confidence: float32 [B, A], logits.
        classes: float32 [B, A, K], logits.
        scores: float32 [B, A, K], 0 to 1: confidence and class combined; candidates are ranked by them.
        points: float32 [A, 2], the candidates' (x, y) centres in input pixels.
        strides: float32 [A], the stride of each candidate's level in input pixels.
        grids: (height, width, stride) of each level; its candidates are row by row, with the levels in this order.
        distribution: float32 [B, A, 4, bins], logits over the distance from the point to the left, top, right and
            bottom side, 0 to ``bins - 1`` strides, whose mean gives ``boxes``; None if sides are regressed directly.
        one_to_many: Additional output in training of a decoder without suppression, to learn from many candidates per
            box; None otherwise.
    """

    boxes: Tensor
    confidence: Tensor
    classes: Tensor
    scores: Tensor
    points: Tensor
    strides: Tensor
    grids: tuple[tuple[int, int, int], ...]
    distribution: Tensor | None = None
    one_to_many: DetectionOutput | None = None


class Output(NamedTuple):
    """The output of the network, before any suppression.

    Attributes:
        detection: Output of the detection decoder; None if the network has none.
        semantic: float [B, S, h, w], logits over the padded input at the decoder's stride; None if the
            network has no segmentation decoder.
        stride: Distance of neighbouring logits in input pixels, ``H_padded / h``.
        auxiliary: Further logits of the segmentation decoder, each [B, S, h', w'], for its auxiliary losses.
    """

    detection: DetectionOutput | None
    semantic: Tensor | None
    stride: int = 1
    auxiliary: tuple[Tensor, ...] = ()


@dataclass(frozen=True)
class Segment:
    """One segment of a panoptic map.

    Attributes:
        id: Value of its pixels in the map, from 1.
        category: Index into ``taxonomy.categories``.
        score: Score of the segment, 0 to 1; 1 for stuff.
        area: Number of pixels.
        instance: Row of the prediction's boxes; None for stuff.
    """

    id: int
    category: int
    score: float
    area: int
    instance: int | None = None


@dataclass
class Prediction:
    """The result for one image, at its original size, on the CPU.

    Attributes:
        boxes: float32 [N, 4], xyxy in pixels, best first.
        scores: float32 [N], 0 to 1.
        labels: int64 [N], detection classes.
        semantic: uint8 [H, W] of segmentation classes; None without a segmentation decoder.
        instances: int32 [H, W], the row of a box plus one, 0 = none; None if there is nothing to make masks of.
        panoptic: int32 [H, W], segment ids, 0 = void; None if there is no panoptic map.
        segments: Segments of the panoptic map.
        image_id: Id of the image in the data set.
        path: Path of the image file.
        certainty: float [H, W], the probability of each pixel's class; None except in raw predictions of both tasks.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    semantic: Tensor | None = None
    instances: Tensor | None = None
    panoptic: Tensor | None = None
    segments: list[Segment] = field(default_factory=list)
    image_id: int | str = 0
    path: str = ""
    certainty: Tensor | None = None

    @property
    def masks(self) -> Tensor | None:
        """Masks, bool [N, H, W], which do not overlap; None without an instance map."""
        if self.instances is None:
            return None
        rows = torch.arange(1, len(self.scores) + 1, device=self.instances.device, dtype=self.instances.dtype)
        return self.instances[None] == rows[:, None, None]


@dataclass
class Predictions:
    """The predictions of a batch: each image before and after fusion, in the same order.

    Attributes:
        raw: The decoders' own results: boxes after suppression, the semantic arg max, and the plain merge of both.
        fused: Predictions after fusion; None if the network has only one task.
    """

    raw: list[Prediction]
    fused: list[Prediction] | None = None

    @property
    def best(self) -> list[Prediction]:
        """The fused predictions if there are any, else the raw ones."""
        return self.raw if self.fused is None else self.fused
