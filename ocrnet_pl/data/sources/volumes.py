"""Medical volumes, slice by slice: NIfTI and DICOM."""

from __future__ import annotations

import os
from collections.abc import Sequence
from os import PathLike
from os.path import join
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from ocrnet_pl.data.readers.class_map import Legend, SemanticNames
from ocrnet_pl.data.readers.derived_labels import boxes_from_instances
from ocrnet_pl.data.readers.folder_index import FolderIndex, pack_names
from ocrnet_pl.data.readers.label_maps import MAX_INSTANCES
from ocrnet_pl.data.readers.sample_assembly import joint_taxonomy
from ocrnet_pl.data.readers.volume_files import DICOM, NIFTI, Volume, read_volume, volume_shape, volume_stem, windowed
from ocrnet_pl.data.records import Blocks, make_sample
from ocrnet_pl.data.sources.base import Source
from ocrnet_pl.errors import DataError
from ocrnet_pl.imaging.suffixes import MASK_SUFFIXES
from ocrnet_pl.structures import Sample, Supervision, Taxonomy

_AT_A_TIME = 4
"""Number of volumes from which training draws at a time."""


class MedicalVolumes(Source):
    """Slices of NIfTI and DICOM files, with label maps of the same names.

    Each slice is a sample. A window maps the values to grey: black below ``level - width / 2``, white above ``level +
    width / 2``. Objects are the connected regions of a class in a slice. Reading is fastest where the slices of a
    volume follow each other, which training does by itself.

    NIfTI needs `pip install nibabel`, DICOM `pip install pydicom`.

    Args:
        images: Folder of the volumes: ``.nii``, ``.nii.gz``, or ``.dcm`` with one or several frames.
        semantic_names: Names of the label maps' values, as in ``LabelledFolder``.
        masks: Folder of the label maps: volumes of the same name, or PNGs for DICOM files of one frame.
        classes: Names of the classes whose regions are objects; empty for pixels only.
        window: Level and width in the units of the file, such as [40, 400] for soft tissue in CT. Null for the window
            that a DICOM file suggests, or else the range from the 0.5th to the 99.5th percentile of each volume.
        axis: Axis of a NIfTI along which the slices lie: 2 for axial ones in most files.
        image_suffix: End of the volumes' names that the label maps' names lack, such as ``_0000``.
        min_pixels: Number of pixels below which a region is no object.
        root: Folder that the paths start from; ``data.root`` on the command line.

    Raises:
        DataError: A file is missing, a library is not installed, or sizes differ.
    """

    def __init__(
        self,
        images: str | PathLike[str],
        semantic_names: SemanticNames,
        masks: str | PathLike[str],
        classes: Sequence[str] = (),
        window: tuple[float, float] | None = None,
        axis: int = 2,
        image_suffix: str = "",
        min_pixels: int = 1,
        root: str | PathLike[str] = ".",
    ) -> None:
        if axis not in (0, 1, 2):
            raise ValueError(f"MedicalVolumes: axis must be 0, 1 or 2, got {axis}")
        if window is not None and not (len(window) == 2 and window[1] > 0):
            raise DataError.at("MedicalVolumes", "the width is not above 0", field="window", advice="write [40, 400]")
        self.root, self.window, self.axis, self.min_pixels = root, window, axis, min_pixels
        self._legend = Legend(semantic_names, root=root)
        unknown = next((name for name in classes if name not in self._legend.names), None)
        if unknown is not None:
            raise DataError.at("MedicalVolumes", f"{unknown!r} is not in `semantic_names`", field="classes")
        self._taxonomy = joint_taxonomy(list(classes), self._legend, False, None)
        volumes, labels = FolderIndex(join(root, images), "volumes"), FolderIndex(join(root, masks), "label maps")
        found = {
            stem.removesuffix(image_suffix): name
            for name in volumes.walk((*NIFTI, *DICOM))
            if (stem := volume_stem(name)).endswith(image_suffix)
        }
        label_of = {volume_stem(name): name for name in labels.walk((*NIFTI, *DICOM, *MASK_SUFFIXES))}
        stems = [stem for stem in found if stem in label_of]
        if not stems:
            example = next(iter(found), None)
            problem = "there is no volume" if example is None else f"no volume has a label map of its name, {example!r}"
            raise DataError.at(volumes.root if example is None else labels.root, problem, advice="check the folders")
        self._volumes = np.array(pack_names([join(volumes.root, found[stem]) for stem in stems]))
        self._labels = np.array(pack_names([join(labels.root, label_of[stem]) for stem in stems]))
        shapes = [volume_shape(os.fsdecode(path), axis) for path in self._volumes]
        self._starts = np.cumsum([0, *(shape.slices for shape in shapes)])
        self._sizes = np.array([shape[1:] for shape in shapes], dtype=np.int32)
        self._last: tuple[int, Volume, NDArray[Any]] | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Pickle without the volume that was read last."""
        return self.__dict__ | {"_last": None}

    @property
    def taxonomy(self) -> Taxonomy:
        """The other names as stuff, then the classes of objects."""
        return self._taxonomy

    def __len__(self) -> int:
        return int(self._starts[-1])

    @property
    def blocks(self) -> Blocks:
        """The volumes: a slice costs as much to read as all of them."""
        return Blocks(self._starts, _AT_A_TIME)

    @property
    def sizes(self) -> NDArray[np.int32]:
        """The sizes, from the headers."""
        return np.repeat(self._sizes, np.diff(self._starts), axis=0)

    def image_size(self, index: int) -> tuple[int, int]:
        """Return the size from the header."""
        volume, _ = self._place(index)
        return int(self._sizes[volume, 0]), int(self._sizes[volume, 1])

    def identity(self, index: int) -> tuple[int | str, str]:
        """Return the volume's name with the number of the slice, and its file."""
        volume, number = self._place(index)
        path = os.fsdecode(self._volumes[volume])
        return f"{volume_stem(os.path.basename(path))}:{number}", path

    def files(self, index: int) -> Sequence[str]:
        """Return the paths of the volume and its label map."""
        volume, _ = self._place(index)
        return [os.fsdecode(self._volumes[volume]), os.fsdecode(self._labels[volume])]

    def __getitem__(self, index: int) -> Sample:
        number, place = self._place(index)
        volume, labels = self._read(number)
        values = volume.values[place]
        window = self.window or volume.window or _range(volume.values)
        grey = windowed(values, window)
        path = os.fsdecode(self._labels[number])
        semantic = self._legend.apply(np.ascontiguousarray(labels[place]).astype(np.int32), path, self._taxonomy)
        instances, classes = self._objects(semantic)
        image_id, image_path = self.identity(index)
        return make_sample(
            torch.from_numpy(grey)[None].repeat(3, 1, 1),
            boxes=boxes_from_instances(instances, len(classes)),
            labels=classes,
            crowd=[False] * len(classes),
            semantic=semantic,
            instances=instances if self._taxonomy.num_detection else None,
            supervision=Supervision.full(self._taxonomy),
            image_id=image_id,
            path=image_path,
        )

    def _place(self, index: int) -> tuple[int, int]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        volume = int(np.searchsorted(self._starts, index, side="right")) - 1
        return volume, index - int(self._starts[volume])

    def _read(self, number: int) -> tuple[Volume, NDArray[Any]]:
        """Return a volume and its label map, of which the last are kept."""
        if self._last is None or self._last[0] != number:
            path, label = os.fsdecode(self._volumes[number]), os.fsdecode(self._labels[number])
            volume = read_volume(path, self.axis)
            if label.lower().endswith(MASK_SUFFIXES):
                from ocrnet_pl.data.readers.class_map import read_values

                labels: NDArray[Any] = read_values(label)[None]
            else:
                labels = read_volume(label, self.axis).values
            if labels.shape != volume.values.shape:
                raise DataError.at(label, f"it is {labels.shape}, but {path} is {volume.values.shape}")
            if labels.size and (labels.min() < 0 or labels.max() >= 1 << 16 or (labels != labels.round()).any()):
                raise DataError.at(
                    label, "its values are not whole numbers from 0 to 65535", advice="is it a label map?"
                )
            self._last = (number, volume, labels)
        return self._last[1], self._last[2]

    def _objects(self, semantic: NDArray[np.uint8]) -> tuple[NDArray[np.int32], list[int]]:
        """Return the connected regions of the classes as an instance map, and the class of each."""
        instances = np.zeros(semantic.shape, dtype=np.int32)
        classes: list[int] = []
        for label, index in enumerate(self._taxonomy.detection_to_semantic):
            own = semantic == index
            if not own.any():
                continue
            count, regions, figures, _ = cv2.connectedComponentsWithStats(own.astype(np.uint8), connectivity=8)
            for region in range(1, min(count, MAX_INSTANCES)):
                if figures[region, cv2.CC_STAT_AREA] >= self.min_pixels:
                    classes.append(label)
                    instances[regions == region] = len(classes)
        return instances, classes


def _range(values: NDArray[Any]) -> tuple[float, float]:
    """Return the window of nearly all values."""
    low, high = (float(value) for value in np.percentile(values[:: max(1, len(values) // 16)], (0.5, 99.5)))
    return (low + high) / 2, max(high - low, 1e-6)
