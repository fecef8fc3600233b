"""A trained network that teaches another one: how it is loaded, and what it says of a batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ocrnet_pl.errors import CheckpointError
from ocrnet_pl.losses.distillation import SharedClasses, distil_boxes, distil_pixels
from ocrnet_pl.models.base import ClassKind
from ocrnet_pl.models.class_map import ClassMap, classes
from ocrnet_pl.models.detection import OneToOneDecoder
from ocrnet_pl.models.ocrnet import OCRNet
from ocrnet_pl.storage.initial_weights import check_finite
from ocrnet_pl.storage.trusted_classes import trusted_packages
from ocrnet_pl.structures import Batch, DetectionOutput, Output

_SIDES: tuple[tuple[ClassKind, str, str], ...] = (
    ("detection", "detection", "box_weight"),
    ("semantic", "segmentation", "pixel_weight"),
)
"""The kind of classes, the decoder and the weight of boxes and of pixels."""


class Teacher:
    """A frozen network from a checkpoint that teaches the one in training, on the same images, besides the labels.

    It teaches the classes that both have, by their names, whatever its encoder and decoders are. It keeps a network
    from forgetting classes that the new data does not label, and lets a small network learn from a large one. It is no
    part of the network that it teaches: no checkpoint, average or optimiser contains it, and only training needs its
    file.

    Args:
        checkpoint: Path of the network that teaches: a checkpoint that training wrote, or the folder of a network that
            was saved.
        box_weight: Factor of what the boxes are taught, logged as ``train/loss_teacher_boxes``, at least 0; 0 teaches
            none.
        pixel_weight: Factor of what the pixels are taught, logged as ``train/loss_teacher_pixels``, at least 0; 0
            teaches none.
        temperature: Divisor of the logits of both networks before they are compared, above 0; the larger it is, the
            more the small differences between unlikely answers count.
        unlabelled_only: Whether each image is taught only the classes that it is not labelled for. By default all
            classes that both networks have are taught.
        trust: Packages of your own whose classes the checkpoint may name: they can run any code. Null trusts none.

    Raises:
        ValueError: A number is out of range, both weights are 0, or ``trust`` names something that is not a package.
    """

    def __init__(
        self,
        checkpoint: str,
        box_weight: float = 1.0,
        pixel_weight: float = 1.0,
        temperature: float = 2.0,
        unlabelled_only: bool = False,
        trust: list[str] | None = None,
    ) -> None:
        for name, weight in (("box_weight", box_weight), ("pixel_weight", pixel_weight)):
            if not weight >= 0:
                raise ValueError(f"model.teacher.{name}: expected 0 or more, got {weight}")
        if not temperature > 0:
            raise ValueError(f"model.teacher.temperature: expected a number above 0, got {temperature}")
        if box_weight == pixel_weight == 0:
            raise ValueError("model.teacher: box_weight and pixel_weight are both 0; set model.teacher to null instead")
        self.checkpoint = checkpoint
        self.weights: dict[str, float] = {"box_weight": box_weight, "pixel_weight": pixel_weight}
        self.temperature = temperature
        self.unlabelled_only = unlabelled_only
        self.trust = list(trusted_packages(trust or ()))[1:]
        self.network: OCRNet | None = None
        self._shared: dict[str, SharedClasses] = {}
        self._device = torch.device("cpu")

    def __deepcopy__(self, memo: dict[int, Any]) -> Teacher:
        """Return itself: an average of the weights copies the task, and the teacher never changes."""
        return self

    def load(self, student: OCRNet, device: torch.device | str = "cpu") -> OCRNet:
        """Return the network that teaches, read from its checkpoint when this is called for the first time.

        Args:
            student: The network that learns.
            device: Device of the network that learns.

        Raises:
            CheckpointError: The file is gone or not a checkpoint of this project, names a class that is not trusted, or
                its network takes other images or has nothing to teach this one.
        """
        device = torch.device(device)
        if self.network is None or self._device != device:
            network = self.network or self._reduced(student)
            self._shared = {
                weight: self._relate(network, student, kind, device) for kind, weight in self._taught(student)
            }
            self.network, self._device = network.to(device), device
        return self.network

    def __call__(self, student: OCRNet, output: Output, batch: Batch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return the terms of detection and those of segmentation.

        Args:
            student: The network that learns.
            output: Its output on the batch.
            batch: The images and their labels.
        """
        network = self.load(student, batch.images.device)
        with torch.no_grad():
            told = network(batch.images)
        options: dict[str, Any] = {"temperature": self.temperature, "unlabelled_only": self.unlabelled_only}
        detection, segmentation = {}, {}
        if (shared := self._shared.get("box_weight")) is not None:
            assert student.detection is not None and network.detection is not None
            options["exclusive"] = (student.detection.exclusive_classes, network.detection.exclusive_classes)
            taught = [
                distil_boxes(own, other, batch, shared, **options)
                for own, other in _branches(output.detection, told.detection)
            ]
            detection["teacher_boxes"] = self.weights["box_weight"] * torch.stack(taught).sum()
            del options["exclusive"]
        if (shared := self._shared.get("pixel_weight")) is not None:
            pixels = distil_pixels(output, told, batch, shared, **options)
            segmentation["teacher_pixels"] = self.weights["pixel_weight"] * pixels
        return detection, segmentation

    def _taught(self, student: OCRNet) -> list[tuple[ClassKind, str]]:
        """Return the kinds of classes that are taught, each with the name of its weight."""
        return [
            (kind, weight)
            for kind, decoder, weight in _SIDES
            if self.weights[weight] > 0 and getattr(student, decoder) is not None
        ]

    @property
    def _where(self) -> str:
        return f"model.teacher: checkpoint {self.checkpoint!r}"

    def read(self) -> OCRNet:
        """Return the network of the checkpoint.

        Raises:
            CheckpointError: The file is gone or not a checkpoint of this project, or names a class that is not trusted.
        """
        try:
            read = OCRNet.load if Path(self.checkpoint).is_dir() else OCRNet.from_checkpoint
            network = read(self.checkpoint, trust=self.trust)
        except FileNotFoundError as error:
            if Path(self.checkpoint).exists():
                raise CheckpointError(f"model.teacher: {error}") from error
            raise CheckpointError(
                f"{self._where}: there is no such file; training needs it, also to continue. Give its path, or set "
                "model.teacher to null"
            ) from error
        except CheckpointError as error:
            raise CheckpointError(f"model.teacher: {error}") from error
        check_finite(network.state_dict(), self._where)
        return network

    def _reduced(self, student: OCRNet) -> OCRNet:
        """Return the network from the checkpoint, reduced to what is taught."""
        where, network = self._where, self.read()
        if network.in_channels != student.in_channels:
            raise CheckpointError(
                f"{where}: it takes images of {network.in_channels} channels, the network in training of "
                f"{student.in_channels}; take a teacher of the same images"
            )
        taught = [weight for _, weight in self._taught(student)]
        for _, decoder, weight in _SIDES:
            if weight in taught and getattr(network, decoder) is None:
                raise CheckpointError(f"{where}: it has no {decoder} decoder; set {weight} to 0")
        if not taught:
            one = next(weight for weight, value in self.weights.items() if value > 0)
            raise CheckpointError(
                f"{where}: only {one} is above 0, and the network in training has nothing to learn from it"
            )
        if "pixel_weight" not in taught:
            network.segmentation = None
        if isinstance(network.detection, OneToOneDecoder):
            # Both of its branches, as in training; its layers stay as they are in evaluation.
            network.detection.training = True
        return network.requires_grad_(False)

    def _relate(self, network: OCRNet, student: OCRNet, kind: ClassKind, device: torch.device) -> SharedClasses:
        """Return the classes of a kind that both networks have."""
        rows = ClassMap.make(network.taxonomy, student.taxonomy).rows(kind)
        pairs = [(own, old[0]) for own, old in enumerate(rows) if old]
        known, own = classes(network.taxonomy, kind), classes(student.taxonomy, kind)
        if not pairs:
            decoder, weight = next((decoder, weight) for each, decoder, weight in _SIDES if each == kind)
            names = ", ".join(repr(each.name) for each in known[:5]) + (", ..." if len(known) > 5 else "")
            raise CheckpointError(
                f"{self._where}: none of its classes of {decoder} ({names}) is one of the network's; set {weight} to 0"
            )
        rest = [position for position, (_, old) in enumerate(pairs) if not known[old].is_thing]
        return SharedClasses.make(pairs, (len(own), len(known)), rest, device)


def _branches(
    student: DetectionOutput | None, teacher: DetectionOutput | None
) -> list[tuple[DetectionOutput, DetectionOutput]]:
    """Return which branch of the student learns from which one of the teacher: one or many candidates per box."""
    assert student is not None and teacher is not None
    many = (student.one_to_many or student, teacher.one_to_many or teacher)
    if student.one_to_many is None or teacher.one_to_many is None:
        return [many]
    return [many, (student, teacher)]
