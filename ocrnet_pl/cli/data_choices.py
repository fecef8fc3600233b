"""The settings that follow from a data set's statistics, for ``init`` and for ``auto``."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ocrnet_pl.data.sources.base import Source, at_equal_distances
from ocrnet_pl.errors import DataError
from ocrnet_pl.imaging.geometry import Size, letterbox_placement
from ocrnet_pl.report.search_space import RATE

_LOOKED_AT = 200
_LEAST_OBJECT = 16.0
"""Sides of the small objects in the network's input, in pixels: two cells of a grid of stride 8."""
_LARGE_OBJECT = 64.0
"""Sides of large objects in the network's input, in pixels: four cells of a grid of stride 16."""
_SMALLEST, _LARGEST = 256, 1024
_USUAL = 512
_ASPECT = 1.3
_CROP = 0.75
_WHOLE_IN_CROP, _WHOLE_IN_CHEAP_CROP = 0.25, 0.5
_SPREAD = 4.0
_STEPS = 6000
_CPU_BATCH = 4
_BYTES_PER_PIXEL = 8
"""Of a decoded sample: its colours, its classes and its instances."""
_MOST_CACHED = 1.0
"""Gigabytes of decoded images that any machine has to spare."""
_SHORT_BUDGET = 3600.0
_MANY_EPOCHS = 30
"""Number of times that an image may be seen before the network learns it by heart."""
_FINE_STRIDE = 4
_SHORT_RUN = 1000
_SHORT_RATE, _LEAST_RATE = 0.008, 0.001
MOST_EPOCHS = 300
"""Largest number of epochs that is chosen."""
_FEWEST_EPOCHS = 20
_VALIDATIONS = 30


class Statistics(NamedTuple):
    """What the settings depend on.

    Attributes:
        images: Number of images.
        size: Median (height, width).
        same_shape: Whether all images have about the same shape.
        object_side: Side of the small objects in pixels, the first quartile; None without boxes.
        most_boxes: Largest number of boxes of an image.
        large_side: Longer side of the large objects in pixels, which one in twenty exceeds; None without boxes.
        outlined: Whether objects have masks.
    """

    images: int
    size: tuple[int, int]
    same_shape: bool
    object_side: float | None
    most_boxes: int
    large_side: float | None = None
    outlined: bool = False


class Choice(NamedTuple):
    """One chosen setting.

    Attributes:
        key: Dotted key of the config.
        value: Value, as YAML has it.
        reason: Why, in a few words.
    """

    key: str
    value: Any
    reason: str


def measure(source: Source) -> Statistics:
    """Return the statistics of a source, from at most 200 images at equal distances.

    Raises:
        DataError: None of them can be read.
    """
    chosen = at_equal_distances(len(source), _LOOKED_AT)
    sizes: list[tuple[int, int]] = []
    sides: list[float] = []
    longer: list[float] = []
    most = 0
    broken: DataError | None = None
    outlined = False
    for index in chosen:
        try:
            size = source.image_size(index)
            boxes = source.image_boxes(index)
            # All images of a source are labelled alike.
            outlined = outlined if sizes else source[index].instances is not None
        except DataError as error:  # the check that follows names every one
            broken = error
            continue
        sizes.append(size)
        own = boxes[:, 2:] - boxes[:, :2]
        sides += np.sqrt(own.prod(1)).tolist()
        longer += own.max(1).tolist()
        most = max(most, len(boxes))
    if broken is not None and not sizes:
        raise broken
    shapes = np.array(sizes, dtype=np.float64)
    ratios = shapes[:, 1] / shapes[:, 0]
    height, width = np.median(shapes, axis=0).astype(int).tolist()
    small = float(np.percentile(sides, 25)) if sides else None
    large = float(np.percentile(longer, 95)) if longer else None
    return Statistics(len(source), (height, width), bool(np.ptp(ratios) < 0.1), small, most, large, outlined)


def input_size(statistics: Statistics) -> Choice:
    """Choose the input size.

    The images' own size is the largest that shows anything new; below it, small objects decide.
    """
    height, width = statistics.size
    longest = max(height, width)
    wanted: float = min(_USUAL, longest)
    why = "the images' own size" if longest <= _USUAL else "enough for the objects"
    if statistics.object_side is not None:
        needed = longest * _LEAST_OBJECT / max(statistics.object_side, 1e-3)
        if needed > wanted and longest > wanted:
            wanted = min(needed, longest, _LARGEST)
            why = f"a quarter of the objects has sides below {statistics.object_side:.0f} pixels"
    # The smallest multiple of the coarsest grid, in which the images' own pixels fit.
    side = max(_SMALLEST, 32 * math.ceil(wanted / 32))
    if side - longest >= 32:
        why = "the least from which the networks begin"
    value: int | list[int] = side
    if statistics.same_shape and max(height, width) / min(height, width) >= _ASPECT:
        scale = side / longest
        value = [max(64, 32 * math.ceil(part * scale / 32 - 1e-6)) for part in (height, width)]
    return Choice("data.size", value, why)


def levels(statistics: Statistics, size: Size) -> list[Choice]:
    """Choose the finest and the coarsest grid of the detection decoder.

    Args:
        statistics: Statistics of the training set; without boxes nothing is chosen.
        size: (height, width) of the input.
    """
    if statistics.object_side is None or statistics.large_side is None:
        return []
    scale = _scale(statistics, size)
    small, large = statistics.object_side * scale, statistics.large_side * scale
    fine, coarse = small < _LEAST_OBJECT, large >= _LARGE_OBJECT
    return [
        Choice(
            "model.detection.init_args.min_stride",
            4 if fine else 8,
            f"a quarter of the objects is smaller than {small:.0f} pixels in the input",
        ),
        Choice(
            "model.detection.init_args.max_stride",
            32 if coarse else 16,
            f"one object in twenty is larger than {large:.0f} pixels in the input",
        ),
    ]


def short(budget: float | None, accelerated: bool) -> bool:
    """Return whether a run is so short that cheaper steps teach more, since there are more of them.

    Args:
        budget: Seconds of the run; None for no limit.
        accelerated: Whether the run has a GPU.
    """
    return budget is not None and budget <= _SHORT_BUDGET and not accelerated


def scales(statistics: Statistics, size: Size, *, crops: bool = True, cheap: bool = False) -> list[Choice]:
    """Choose the sizes of training batches and, where they are crops, the transforms that cut them.

    Args:
        statistics: Statistics of the training set.
        size: (height, width) of the input.
        crops: Whether the transforms may be chosen, which crops need.
        cheap: Whether steps should be cheap: crops then also show objects that they cut at times.
    """
    if statistics.object_side is None or statistics.large_side is None:
        return [Choice("data.scales", [0.75, 1.0, 1.25], "there are no boxes to say how much sizes vary")]
    scale = _scale(statistics, size)
    share = statistics.large_side / min(statistics.size)
    if crops and share <= (_WHOLE_IN_CHEAP_CROP if cheap else _WHOLE_IN_CROP):
        # Pixels of images that are not scaled down stay as sharp as in validation.
        transforms = _transforms(_zooms(varied=scale < 1))
        small = "objects are small in the image: crops of 3/4 show them whole, at 0.56 of the cost"
        why = small if share <= _WHOLE_IN_CROP else "a short run on a CPU: crops of 3/4 take 0.56 of the time"
        return [Choice("data.scales", [_CROP], why), Choice("data.train_transforms", transforms, "the crops' own")]
    if statistics.large_side / max(statistics.object_side, 1e-3) > _SPREAD:
        return [Choice("data.scales", [0.75, 1.0, 1.25], "the sizes of objects vary much")]
    return [Choice("data.scales", [1.0], "objects are of similar size")]


def augmentation(statistics: Statistics, epochs: float, crops: bool, any_way_up: Callable[[], bool]) -> Choice | None:
    """Choose transforms that show other images each time, where a run sees each image often; None for the usual ones.

    Args:
        statistics: Statistics of the training set.
        epochs: Number of times that the run sees each image.
        crops: Whether batches are crops.
        any_way_up: Finds out whether images may be turned by quarters, for which it decodes some.
    """
    if epochs <= _MANY_EPOCHS:
        return None
    turned, pasted = any_way_up(), statistics.outlined
    changes = [
        # The usual transforms of whole images vary their sizes as it is.
        *["sizes vary more"] * crops,
        *["images are turned, since they have no up"] * turned,
        *["objects of other images are pasted"] * pasted,
    ]
    if not changes:
        return None
    transforms = _transforms(_zooms(varied=True) if crops else {}, turned=turned, pasted=pasted)
    why = f"each image is seen {epochs:.0f} times: {'; '.join(changes)}"
    return Choice("data.train_transforms", transforms, why)


def _zooms(varied: bool) -> dict[str, float]:
    """Return arguments of the scale jitter with which crops show objects at the size that they have in whole images.

    Args:
        varied: Whether it may also be up to a quarter larger, or a fifth smaller.
    """
    least, most = (0.8, 1.25) if varied else (1.0, 1.0)
    return {"minimum": round(least / _CROP, 4), "maximum": round(most / _CROP, 4)}


def _transforms(sizes: dict[str, float], *, turned: bool = False, pasted: bool = False) -> list[dict[str, Any]]:
    """Return the transforms of training images.

    Args:
        sizes: Arguments of the scale jitter.
        turned: Whether images are turned by quarters.
        pasted: Whether objects of other images are pasted.
    """
    turn = [{"class_path": "RandomRotate90"}] if turned else []
    jitter, flip = {"class_path": "RandomScaleJitter", "init_args": sizes}, {"class_path": "RandomFlip"}
    paste = {"class_path": "CopyPaste", "init_args": {"partner_transforms": [*turn, jitter, flip]}}
    return [*turn, jitter, *([paste] if pasted else []), flip, {"class_path": "ColorJitter"}]


def frozen_stages(strides: Sequence[int]) -> Choice | None:
    """Choose the stages of a pretrained encoder that a short run on a CPU does not train; None for none.

    The finest maps take most of the time and show edges and blobs, which are the same in any image.

    Args:
        strides: Strides of the encoder's maps, finest first.
    """
    count = sum(stride <= _FINE_STRIDE for stride in strides)
    why = "a short run on a CPU: what sees edges is pretrained, and training it takes time"
    return Choice("model.encoder.init_args.frozen_stages", count, why) if count else None


def cache(statistics: Statistics) -> Choice | None:
    """Choose to keep the decoded images of a short run on a CPU in memory; None where they are too large for that."""
    height, width = statistics.size
    gigabytes = statistics.images * height * width * _BYTES_PER_PIXEL / 1e9
    if gigabytes > _MOST_CACHED:
        return None
    return Choice("data.cache", True, f"a short run on a CPU: each image is decoded once, into {gigabytes:.2g} GB")


def batch_size(statistics: Statistics, size: Size, accelerated: bool = True) -> Choice:
    """Choose the number of images per step, from the input size and the number of images.

    Args:
        statistics: Statistics of the training set.
        size: (height, width) of the input.
        accelerated: Whether the run has a GPU. A CPU takes no longer for the same images in more steps.
    """
    longest = max(size)
    usual = 16 if longest <= _USUAL else 8 if longest <= 768 else 4
    where = f"at {size[0]} x {size[1]}"
    if not accelerated:
        usual, where = min(usual, _CPU_BATCH), "on a CPU"
    value = max(1, min(usual, statistics.images // 2 or 1))
    why = f"usual {where}" if value == usual else f"there are only {statistics.images} images"
    return Choice("data.batch_size", value, why)


def epochs(statistics: Statistics, batch: int) -> Choice:
    """Choose the number of epochs without a limit of time: about 6000 steps.

    Args:
        statistics: Statistics of the training set.
        batch: Number of images per step, of all processes.
    """
    steps = max(1, statistics.images // batch)
    value = int(min(MOST_EPOCHS, max(_FEWEST_EPOCHS, math.ceil(_STEPS / steps))))
    # The last epoch is one that is validated.
    value -= value % max(1, value // _VALIDATIONS)
    return Choice("trainer.max_epochs", value, f"{value * steps} steps of {batch} images")


def learning_rate(steps: int) -> Choice:
    """Choose the learning rate: a short run learns more at a high one.

    It falls with the root of the number of steps, to the default of 0.003 at the usual 6000.

    Args:
        steps: Number of steps of the run.
    """
    rate = _SHORT_RATE * math.sqrt(min(1.0, _SHORT_RUN / steps))
    return Choice(RATE, max(_LEAST_RATE, round(rate, 4)), f"for a run of {steps} steps")


def validations(epochs: int) -> Choice:
    """Choose how many epochs lie between two validations, of a run with so many epochs."""
    every = max(1, epochs // _VALIDATIONS)
    return Choice("trainer.check_val_every_n_epoch", every, f"{epochs // every} validations")


def _scale(statistics: Statistics, size: Size) -> float:
    return min(letterbox_placement(statistics.size, size).scale)
