"""The LightningDataModule: sources in, batches out."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import torch
from lightning.pytorch import LightningDataModule

from ocrnet_pl.data.errors import DataError
from ocrnet_pl.data.geometry import Size
from ocrnet_pl.data.loading import BatchLoader, Frame, PreparedDataset
from ocrnet_pl.data.samplers import EvaluationSampler, MultiScaleSampler, scaled_sizes
from ocrnet_pl.data.sources.base import Cached, Source
from ocrnet_pl.data.sources.folder import ImageFolder
from ocrnet_pl.data.transforms import Compose, Transform, default_train_transforms
from ocrnet_pl.structures import Taxonomy


class JointDataModule(LightningDataModule):
    """Feeds one network from labelled sources.

    Training batches have one size each, drawn from a fixed set; evaluation images are letterboxed to the base size.
    Everything random depends on the seed, the epoch and the image alone, never on the number of workers.

    Args:
        train: Training set.
        val: Validation set.
        test: Test set; by default the validation set.
        predict_path: Folder of images, or one image, to predict on.
        root: Folder that the sources' paths start from. The command line hands it to every source that has a root.
        size: Base input size, (height, width) or one side for both.
        scales: Factors of the base size for training batches; the sides are rounded to multiples of 32.
        batch_size: Training images a step and process.
        eval_batch_size: Evaluation images a step and process; by default as in training.
        train_transforms: In order; by default scale jitter, left-right flip and colors.
        num_workers: Loading processes per training process.
        seed: Of the order, the sizes and the transforms; by default the run's (``seed_everything``), or 0.
        evaluate_at: Where metrics are computed: at the images' "original" size, or at the network's "input" size
            in the letterboxed frame.
        cache: Whether every loading process keeps the decoded samples in memory; for small sets.

    Attributes:
        skipped: Path and reason of each file that predict left out, on this process.

    Raises:
        ValueError: An option is out of range.
        DataError: A source is empty, or the sources disagree on the categories.
    """

    def __init__(
        self,
        train: Source | None = None,
        val: Source | None = None,
        test: Source | None = None,
        predict_path: str | None = None,
        root: str | None = None,
        size: int | tuple[int, int] = 256,
        scales: Sequence[float] = (0.75, 1.0, 1.25),
        batch_size: int = 16,
        eval_batch_size: int | None = None,
        train_transforms: list[Transform] | None = None,
        num_workers: int = 2,
        seed: int | None = None,
        evaluate_at: Frame = "original",
        cache: bool = False,
    ) -> None:
        super().__init__()
        # A process without a share of the images to predict on waits for the others.
        self.allow_zero_length_dataloader_with_multiple_devices = True
        sides = (size, size) if isinstance(size, int) else tuple(size)
        if len(sides) != 2 or min(sides) < 1:
            raise ValueError(f"data.size: expected one side or (height, width), both at least 1, got {size}")
        for name, value, least in (
            ("batch_size", batch_size, 1),
            ("eval_batch_size", batch_size if eval_batch_size is None else eval_batch_size, 1),
            ("num_workers", num_workers, 0),
        ):
            if value < least:
                raise ValueError(f"data.{name}: expected at least {least}, got {value}")
        if evaluate_at not in ("original", "input"):
            raise ValueError(f"data.evaluate_at: expected 'original' or 'input', got {evaluate_at!r}")
        self.size: Size = (sides[0], sides[1])
        self.sizes = scaled_sizes(self.size, scales)
        self.train = train
        self.val = val
        self.test = test
        self._check_sources()
        if root is not None and all(getattr(source, "root", None) != root for source in (train, val, test)):
            raise ValueError("data.root is set, but no source starts its paths from it; set the sources' own paths")
        if cache:
            self.train, self.val, self.test = (
                None if source is None else Cached(source) for source in (train, val, test)
            )
        self.predict_path = predict_path
        self.batch_size = batch_size
        self.eval_batch_size = batch_size if eval_batch_size is None else eval_batch_size
        self.train_transforms = default_train_transforms() if train_transforms is None else train_transforms
        self.num_workers = num_workers
        self.seed = int(os.environ.get("PL_GLOBAL_SEED") or 0) if seed is None else seed
        self.evaluate_at: Frame = evaluate_at
        self.skipped: list[tuple[str, str]] = []

    @property
    def taxonomy(self) -> Taxonomy:
        """The categories of the sources.

        Raises:
            DataError: There is no source.
        """
        for source in (self.train, self.val, self.test):
            if source is not None:
                return source.taxonomy
        raise DataError("data: there is no source, so the categories are unknown; set data.train")

    def train_dataloader(self) -> BatchLoader:
        """Return the loader of the training batches."""
        source = _given(self.train, "train")
        replicas, rank = self._share()
        sampler = MultiScaleSampler(
            source, self.batch_size, self.sizes, num_replicas=replicas, rank=rank, seed=self.seed
        )
        dataset = PreparedDataset(source, self.size, transforms=Compose(self.train_transforms))
        return self._loader(dataset, sampler, self.batch_size)

    def val_dataloader(self) -> BatchLoader:
        """Return the loader of the validation batches."""
        return self._evaluation_loader(_given(self.val, "val"))

    def test_dataloader(self) -> BatchLoader:
        """Return the loader of the test batches."""
        return self._evaluation_loader(_given(self.test or self.val, "test"))

    def predict_dataloader(self) -> BatchLoader:
        """Return the loader of the images to predict on; their truths are the unlabelled originals."""
        if self.predict_path is None:
            raise DataError("data: there is nothing to predict on; set data.predict_path to a folder of images")
        has_source = any(source is not None for source in (self.train, self.val, self.test))
        folder = ImageFolder(self.predict_path, self.taxonomy if has_source else None)
        self.skipped[:] = folder.skipped
        dataset = PreparedDataset(folder, self.size, frame="original", tolerant=True)
        replicas, rank = self._share()
        sampler = EvaluationSampler(folder, self.size, num_replicas=replicas, rank=rank, fill=False)
        return self._loader(dataset, sampler, self.eval_batch_size, skipped=self.skipped)

    def _evaluation_loader(self, source: Source) -> BatchLoader:
        replicas, rank = self._share()
        sampler = EvaluationSampler(source, self.size, num_replicas=replicas, rank=rank)
        return self._loader(PreparedDataset(source, self.size, frame=self.evaluate_at), sampler, self.eval_batch_size)

    def _loader(self, dataset: PreparedDataset, sampler: Any, batch_size: int, **kwargs: Any) -> BatchLoader:
        return BatchLoader(
            dataset,
            sampler=sampler,
            batch_size=batch_size,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
            **kwargs,
        )

    def _share(self) -> tuple[int, int]:
        """Return the number of processes and the number of this one."""
        if self.trainer is None:
            return 1, 0
        return self.trainer.world_size, self.trainer.global_rank

    def _check_sources(self) -> None:
        reference: tuple[str, Taxonomy] | None = None
        for name, source in (("train", self.train), ("val", self.val), ("test", self.test)):
            if source is None:
                continue
            if len(source) == 0:
                raise DataError(f"data.{name}: the source has no images")
            if reference is None:
                reference = (name, source.taxonomy)
            elif source.taxonomy != reference[1]:
                raise DataError(
                    f"data.{name}: its categories differ from those of data.{reference[0]}: "
                    f"{_difference(reference[1], source.taxonomy)}; use annotations with the same categories in the "
                    "same order"
                )


def _given(source: Source | None, name: str) -> Source:
    if source is None:
        raise DataError(f"data.{name}: there is no source; set data.{name}.class_path")
    return source


def _difference(first: Taxonomy, second: Taxonomy) -> str:
    if len(first.categories) != len(second.categories):
        return f"{len(first.categories)} categories against {len(second.categories)}"
    position, (one, two) = next(
        (i, pair) for i, pair in enumerate(zip(first.categories, second.categories, strict=True)) if pair[0] != pair[1]
    )
    return f"category {position} is {one} against {two}"
