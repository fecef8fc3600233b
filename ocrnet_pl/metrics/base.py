"""The base of all metrics, the package's and yours."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torchmetrics
from torch import Tensor

from ocrnet_pl.distributed.gather import gather_tensors
from ocrnet_pl.metrics.figures import Figure
from ocrnet_pl.storage.recording import Recorded
from ocrnet_pl.structures import Prediction, Sample, Taxonomy


class Metric(Recorded, torchmetrics.Metric):
    """A torchmetrics metric of whole predictions, whose figures have names and titles.

    States that are declared with ``add_state`` are joined over all processes before :meth:`compute`, also where a
    process had no image. An evaluation has one metric for the raw predictions and one for the fused ones.

    Attributes:
        figures: What :meth:`compute` returns; set in the class, or in the constructor where it depends on options.

    Args:
        taxonomy: Categories of the data.
    """

    full_state_update = False
    figures: Sequence[Figure] = ()

    def __init__(self, taxonomy: Taxonomy) -> None:
        super().__init__(dist_sync_fn=gather_tensors)
        self.taxonomy = taxonomy

    def add_state(
        self,
        name: str,
        default: list[Any] | Tensor,
        dist_reduce_fx: str | Callable[..., Any] | None = None,
        persistent: bool = False,
    ) -> None:
        """Declare a state, as torchmetrics does.

        Args:
            name: Name of the attribute that holds the state.
            default: Value before the first update: a tensor, or an empty list to append tensors to.
            dist_reduce_fx: How the states of several processes are joined, for example "sum"; for a list always "cat".
            persistent: Whether checkpoints contain the state.

        Raises:
            ValueError: A list is not joined by "cat", so that processes with fewer items would wait forever.
        """
        if isinstance(default, list) and dist_reduce_fx != "cat":
            raise ValueError(f"{type(self).__name__}: state {name!r} is a list, which needs dist_reduce_fx='cat'")
        super().add_state(name, default, dist_reduce_fx, persistent)

    @abstractmethod
    def update(self, predictions: list[Prediction], truths: list[Sample]) -> None:
        """Take in one batch, in a thread of the metrics' own.

        Args:
            predictions: One per image, in the truth's frame: boxes [N, 4] as x1, y1, x2, y2 in pixels, best first;
                ``semantic`` [H, W] is None where the network does not segment, and so is ``instances``.
            truths: The sample of each image: ``boxes`` alike, ``crowd`` [N], ``semantic`` [H, W] with 255 where no
                class is known, and ``supervision``, the classes that the image was labelled for. Everything is on the
                CPU.
        """

    @abstractmethod
    def compute(self) -> dict[str, Tensor] | Tensor:
        """Return the figures of the whole set by name, or the figure itself if there is one.

        One that there is nothing to measure for, as before the first update, is NaN.
        """

    def computed(self) -> dict[str, Tensor]:
        """Return what :meth:`compute` returns by name.

        Raises:
            ValueError: These are not the :attr:`figures`.
        """
        found: Any = self.compute()
        if not isinstance(found, dict):
            found = {figure.name: found for figure in self.figures}
            if len(found) != 1:
                raise ValueError(f"compute returns one figure, and figures names {len(found)}")
        kinds = {figure.name: figure.per_class for figure in self.figures}
        for key in found:
            name, slash, _ = key.partition("/")
            if kinds.get(name) is not bool(slash):
                raise ValueError(f"compute returns {key!r}, which is none of its figures ({', '.join(kinds)})")
        for name, per_class in kinds.items():
            if not per_class and name not in found:
                raise ValueError(f"compute returns no {name!r}, which is one of its figures")
        values = {key: torch.as_tensor(value) for key, value in found.items()}
        for key, value in values.items():
            if value.numel() != 1:
                raise ValueError(f"compute returns {tuple(value.shape)} values for {key!r}; one was expected")
        return values


MetricFactory = Callable[[Taxonomy], Metric]
