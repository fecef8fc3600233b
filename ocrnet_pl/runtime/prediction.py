"""The prediction for one image as numpy arrays."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from os import PathLike
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ocrnet_pl.runtime.cropping import crop_windows
from ocrnet_pl.runtime.description import Description
from ocrnet_pl.runtime.images import as_pixels
from ocrnet_pl.runtime.painting import draw_boxes, enlarged, enlargement, kept_layers, tinted
from ocrnet_pl.runtime.picture_files import picture_format, write_picture
from ocrnet_pl.runtime.plain_result import check_score, coco_results, plain_result, short_text
from ocrnet_pl.runtime.run_lengths import encoded_instances
from ocrnet_pl.runtime.supervision_detections import supervision_detections
from ocrnet_pl.taxonomy import IGNORE_INDEX, Taxonomy
from ocrnet_pl.taxonomy import Segment as Segment


@dataclass(repr=False, eq=False)
class Prediction:
    """The result for one image, at its original size, with the fields of ``ocrnet_pl.Prediction``.

    Attributes:
        boxes: float32 [N, 4], xyxy in pixels, best first.
        scores: float32 [N], 0 to 1.
        labels: int64 [N], detection classes.
        semantic: uint8 [H, W] of segmentation classes; None without a segmentation decoder.
        instances: int32 [H, W], the row of a box plus one, 0 = none; None if there is nothing to make masks of.
        panoptic: int32 [H, W], segment ids, 0 = void; None if there is no panoptic map.
        segments: Segments of the panoptic map.
        image_id: Name of the file, or the place of the image among those of the call.
        path: Path of the image file; empty for an image in memory.
        size: (height, width) of the image.
        taxonomy: Categories of the network.
        image: uint8 [H, W, C], an image that cannot be read again at ``path``; None for a file.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    labels: NDArray[np.int64]
    semantic: NDArray[np.uint8] | None = None
    instances: NDArray[np.int32] | None = None
    panoptic: NDArray[np.int32] | None = None
    segments: list[Segment] = field(default_factory=list)
    image_id: int | str = 0
    path: str = ""
    size: tuple[int, int] | None = None
    taxonomy: Taxonomy | None = None
    image: NDArray[np.uint8] | None = None

    def __repr__(self) -> str:
        return short_text(self)

    @property
    def masks(self) -> NDArray[np.bool_] | None:
        """Masks, bool [N, H, W], which do not overlap; None without an instance map."""
        if self.instances is None:
            return None
        rows = np.arange(1, len(self.scores) + 1, dtype=self.instances.dtype)
        masks: NDArray[np.bool_] = self.instances[None] == rows[:, None, None]
        return masks

    @property
    def names(self) -> list[str]:
        """The name of each box's class.

        Raises:
            ValueError: The categories are not known.
        """
        categories = self._known().detection_categories
        return [categories[label].name for label in self.labels.tolist()]

    def filter(self, classes: str | Iterable[str] | None = None, score: float = 0.0) -> Prediction:
        """Return a prediction with some of the objects only.

        Args:
            classes: Name of a class, or several; None for all. Pixels and segments of the others are left out as well:
                they become 255 in the semantic map and 0 in the panoptic one.
            score: Smallest score of an object, 0 to 1; ``math.inf`` leaves out all objects.

        Raises:
            ValueError: There is no such class, the categories are not known, or ``score`` is out of range.
        """
        check_score(score)
        kept = self.scores >= score
        if classes is None:
            return self.with_boxes(kept)
        chosen = self._known().choose(classes)
        kept &= np.array(chosen.detection, bool)[self.labels] if chosen.detection else False
        semantic = self.semantic
        if semantic is not None:
            values = np.arange(IGNORE_INDEX + 1, dtype=semantic.dtype)
            values[: len(chosen.semantic)][~np.array(chosen.semantic, bool)] = IGNORE_INDEX
            semantic = values[semantic]
        return self._with(kept, semantic, chosen.positions)

    def with_boxes(self, kept: NDArray[np.bool_]) -> Prediction:
        """Return a prediction with some of the boxes, and the masks and segments of these; classes of pixels stay.

        Args:
            kept: bool [N], the boxes to keep.
        """
        return self._with(kept, self.semantic, None)

    def _with(
        self, kept: NDArray[np.bool_], semantic: NDArray[np.uint8] | None, categories: set[int] | None
    ) -> Prediction:
        """Return a prediction with the boxes that are kept, and the segments of these and of some categories only."""
        place = np.where(kept, kept.cumsum() - 1, -1).tolist()
        segments = [
            each if each.instance is None else replace(each, instance=place[each.instance])
            for each in self.segments
            if (categories is None or each.category in categories)
            and (each.instance is None or place[each.instance] >= 0)
        ]
        instances, panoptic = self.instances, self.panoptic
        if instances is not None:
            instances = np.array([0, *(row + 1 for row in place)], instances.dtype)[instances]
        if panoptic is not None and len(segments) < len(self.segments):
            panoptic = np.where(np.isin(panoptic, [each.id for each in segments]), panoptic, 0).astype(panoptic.dtype)
        return replace(
            self,
            boxes=self.boxes[kept],
            scores=self.scores[kept],
            labels=self.labels[kept],
            semantic=semantic,
            instances=instances,
            panoptic=panoptic,
            segments=segments,
        )

    def plot(self, image: NDArray[np.uint8] | None = None, score: float = 0.3, min_side: int = 0) -> Image.Image:
        """Return the image with tints, outlines, boxes, names and scores, as Pillow's, which a notebook shows.

        Args:
            image: uint8 [H, W, C]; None for the image that was predicted on, which is read again if it was a file.
            score: Score below which boxes are not drawn, 0 to 1.
            min_side: Length in pixels of the longer side up to which a smaller image is enlarged; 0 for none.

        Raises:
            DataError: The file cannot be read any more.
            ValueError: The image has another size, it or the categories are not known, or ``score`` is out of range.
        """
        check_score(score)
        pixels, taxonomy = self._image(image), self._known()
        pixels = pixels[..., :3] if pixels.shape[2] >= 3 else pixels[..., [0, 0, 0]]
        maps = self.semantic, self.instances
        layers = kept_layers(pixels, *maps, self.boxes, self.scores, self.labels, None, score, taxonomy)
        layers = enlarged(layers, enlargement(pixels.shape[:2], min_side))
        picture = Image.fromarray(tinted(layers, taxonomy))
        draw_boxes(picture, layers, taxonomy.detection_categories)
        return picture

    def save(self, path: str | PathLike[str], image: NDArray[np.uint8] | None = None, score: float = 0.3) -> None:
        """Write the picture of :meth:`plot` into a file, which appears when it is complete.

        Args:
            path: Path of the file; its ending, such as ``.png`` or ``.jpg``, decides the format.
            image: uint8 [H, W, C]; None for the image that was predicted on, which is read again if it was a file.
            score: Score below which boxes are not drawn, 0 to 1.

        Raises:
            DataError: The file cannot be read any more.
            ValueError: No pictures have such an ending, or :meth:`plot` raises it.
        """
        # Before anything is drawn.
        kind = picture_format(path)
        write_picture(self.plot(image, score), path, kind)

    def crop(self, image: NDArray[np.uint8] | None = None, margin: float = 0.0) -> list[NDArray[np.uint8]]:
        """Return each box's part of the image, uint8 [h, w, C]; pixels that a box covers in part belong to it.

        Args:
            image: uint8 [H, W, C]; None for the image that was predicted on, which is read again if it was a file.
            margin: Width of what is added around each box, as a share of its sides, at least 0.

        Raises:
            DataError: The file cannot be read any more.
            ValueError: The margin is negative, the image has another size, or is not known.
        """
        whole = self._image(image)
        windows = crop_windows(self.boxes.tolist(), (whole.shape[0], whole.shape[1]), margin)
        return [whole[rows, columns].copy() for rows, columns in windows]

    def to_dict(self, masks: bool = False) -> dict[str, Any]:
        """Return plain numbers, texts, lists and dictionaries, which JSON can hold.

        Args:
            masks: Whether each object gets its mask, as COCO's run lengths.

        Returns:
            ``image_id``, ``path``, ``size``; ``objects`` with ``name``, ``label``, ``score`` and ``box`` (xyxy), and
            ``mask`` where there are any; ``pixels``, how many each class has in the semantic map; ``segments`` of the
            panoptic map with ``id``, ``name``, ``score``, ``area`` and ``object``, the place of its object or None.

        Raises:
            ValueError: The categories are not known.
        """
        counts = None
        if self.semantic is not None:
            counts = np.bincount(self.semantic.reshape(-1), minlength=IGNORE_INDEX + 1).tolist()
        return plain_result(self, self._known(), counts, self._run_lengths() if masks else None)

    def to_coco(self, image_id: int | str | None = None) -> list[dict[str, Any]]:
        """Return the objects in COCO's results format, with run-length masks where there is an instance map.

        ``category_id`` counts the detection classes from 1, as in the files of the predict command.

        Args:
            image_id: Id of the image in the annotations to compare with; None for the prediction's own.
        """
        return coco_results(self, image_id, self._run_lengths())

    def to_supervision(self) -> Any:
        """Return the objects as ``supervision.Detections``; needs the package ``supervision``.

        Raises:
            ImportError: It is not installed.
            ValueError: The categories are not known.
        """
        return supervision_detections(self.boxes, self.scores, self.labels, self.names, self.masks)

    def _run_lengths(self) -> list[dict[str, Any]] | None:
        return None if self.instances is None else encoded_instances(self.instances, len(self.scores))

    def _known(self) -> Taxonomy:
        if self.taxonomy is None:
            raise ValueError("prediction: its taxonomy is not known; set prediction.taxonomy to that of the network")
        return self.taxonomy

    def _image(self, given: NDArray[np.uint8] | None) -> NDArray[np.uint8]:
        """Return the image of the prediction, uint8 [H, W, C]."""
        image = self.image if given is None else given
        if image is None:
            if not self.path:
                raise ValueError("prediction: its image is not known; give it as an argument")
            image = as_pixels(self.path, 3)
        if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3:
            found = f"{image.dtype} {list(image.shape)}" if isinstance(image, np.ndarray) else type(image).__name__
            raise ValueError(f"image: expected an array uint8 [H, W, C], found {found}")
        if self.size is not None and image.shape[:2] != self.size:
            expected = f"{self.size[1]} x {self.size[0]}"
            raise ValueError(
                f"image: it is {image.shape[1]} x {image.shape[0]}, the prediction is of one of {expected}"
            )
        return image


def predictions(outputs: Mapping[str, NDArray[Any]], description: Description) -> list[Prediction]:
    """Return the predictions that the arrays of a batch stand for.

    Args:
        outputs: The file's outputs by name.
        description: The file's description.
    """
    found = []
    for image in range(len(next(iter(outputs.values())))):
        own = {name: values[image] for name, values in outputs.items()}
        boxes, scores, labels = np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64)
        if description.detects:
            count = int(own["count"])
            boxes, scores, labels = own["boxes"][:count], own["scores"][:count], own["labels"][:count]
        segments = []
        if "segments" in own:
            rows = own["segments"][own["segments"][:, 0] > 0].tolist()
            segments = [
                Segment(number, category, 1.0 if row < 0 else float(scores[row]), area, None if row < 0 else row)
                for number, category, area, row in rows
            ]
        semantic, instances, merged = (own.get(name) for name in ("semantic", "instances", "panoptic"))
        taxonomy = description.taxonomy
        found.append(Prediction(boxes, scores, labels, semantic, instances, merged, segments, taxonomy=taxonomy))
    return found
