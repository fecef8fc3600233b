"""The LightningDataModule: from sources to batches."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from lightning.pytorch import LightningDataModule
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.rank_zero import rank_zero_info

from ocrnet_pl.data.cache.content_hash import source_digest
from ocrnet_pl.data.cache.shared_cache import Cached, CacheOptions
from ocrnet_pl.data.loading.batch_loader import BatchLoader, PredictionLoader, TrainingLoader
from ocrnet_pl.data.loading.batch_shapes import BatchShapes
from ocrnet_pl.data.loading.dataset import Frame, PreparedDataset
from ocrnet_pl.data.loading.loader_options import LoaderOptions, check_at_least
from ocrnet_pl.data.loading.repeat_factors import image_weights, present_categories, repeat_factors, repeated_parts
from ocrnet_pl.data.loading.samplers import EvaluationSampler, MultiScaleSampler
from ocrnet_pl.data.records import Part
from ocrnet_pl.data.sources.base import Source
from ocrnet_pl.data.sources.folder import ImageFolder
from ocrnet_pl.data.sources.wrappers.widened import Widened
from ocrnet_pl.data.splits import check_splits
from ocrnet_pl.data.transforms import Compose, Transform, default_train_transforms
from ocrnet_pl.errors import DataError
from ocrnet_pl.imaging.folders import require_images
from ocrnet_pl.imaging.geometry import Size
from ocrnet_pl.structures import Taxonomy


class JointDataModule(LightningDataModule):
    """Provides batches for one network from labelled sources.

    All images of a training batch have one size, drawn from a fixed set; evaluation images are scaled and padded to the
    base size. All randomness depends only on the seed, the epoch and the image, never on the number of workers.

    The options are in the order in which they act: the sources and what is done with their files, the shapes of images
    and their augmentation, and the batches and the processes that load them.

    Args:
        train: Source of the training set; null for none.
        val: Source of the validation set; null for none.
        test: Source of the test set; null for the validation set.
        predict_path: Path of a folder of images, or of one image, to predict on; null for none.
        predict_channels: Number of channels of the images to predict on, if the network takes another number than
            three.
        root: Folder that the sources' paths start from; null leaves it to each source's own ``root``. The command line
            passes it to every source that has a ``root``.
        cache: Whether the decoded samples are kept in memory that all processes of the machine share: true or false, or
            ``CacheOptions`` that say where and how many.
        on_error: What happens to a file that cannot be read: "raise" ends the run; "skip" replaces it in training by
            another one of the same source, leaves it out in evaluation, and lists it at the end.
        size: Base input size in pixels, (height, width) or one side for both.
        scales: Factors of the base size for training batches; the sides are rounded to multiples of 32.
        aspect_ratios: Ratios of width to height of the groups from which training batches are made, with each image in
            the nearest group; the sizes of each group have about the area of ``size``. Null brings all images to one
            shape. Images of sources that do not know their sizes count as the base ratio.
        evaluate_at: Size at which metrics are computed: "original" for the images' own size, "input" for the network's
            input size in the letterboxed frame.
        train_transforms: Augmentations of the training images, applied in this order; null for scale jitter, left-right
            flip and colors.
        plain_epochs: Number of epochs at the end of training without ``train_transforms``, in which images are only
            scaled and padded as in evaluation; 0 for none.
        repeat_rare: Share of the training images, above 0 and at most 1, below which a class is rare: images with its
            boxes or pixels come more often, sqrt(repeat_rare / share of the class) times as often as the others, for
            the rarest class in the image. An epoch has as many images as without it. Null for equally often.
        batch_size: Number of training images per step and process, at least 1.
        eval_batch_size: Number of evaluation images per step and process, at least 1; null for ``batch_size``.
        num_workers: Number of loading processes per training process; 0 loads in the training process itself.
        worker_timeout: Longest time to wait for a batch, in seconds, before the loading processes are considered lost
            and replaced.
        prefetch_factor: Number of batches that each loading process prepares in advance, at least 1; more even out
            images that take long, and take more memory.
        seed: Seed of the order, the sizes and the transforms; null for the run's seed (``seed_everything``), or 0
            without one.

    Attributes:
        skipped: Path and reason of each file that was left out, on this process.
        predicted: Ids of the images that are not predicted on again, because an earlier start has done it.

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
        predict_channels: int = 3,
        root: str | None = None,
        cache: bool | CacheOptions = False,
        on_error: Literal["raise", "skip"] = "raise",
        size: int | tuple[int, int] = 256,
        scales: Sequence[float] = (0.75, 1.0, 1.25),
        aspect_ratios: Sequence[float] | None = None,
        evaluate_at: Frame = "original",
        train_transforms: list[Transform] | None = None,
        plain_epochs: int = 0,
        repeat_rare: float | None = None,
        batch_size: int = 16,
        eval_batch_size: int | None = None,
        num_workers: int = 2,
        worker_timeout: float = 600.0,
        prefetch_factor: int = 2,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        check_at_least("predict_channels", predict_channels, 1)
        check_at_least("plain_epochs", plain_epochs, 0)
        for name, value, choices in (
            ("on_error", on_error, ("raise", "skip")),
            ("evaluate_at", evaluate_at, ("original", "input")),
        ):
            if value not in choices:
                raise ValueError(f"data.{name}: expected {choices[0]!r} or {choices[1]!r}, got {value!r}")
        if repeat_rare is not None and not 0 < repeat_rare <= 1:
            raise ValueError(f"data.repeat_rare: expected a share above 0 and at most 1, got {repeat_rare}")
        in_evaluation = batch_size if eval_batch_size is None else eval_batch_size
        self.loading = LoaderOptions(batch_size, in_evaluation, num_workers, worker_timeout, prefetch_factor)
        self.seed = int(os.environ.get("PL_GLOBAL_SEED") or 0) if seed is None else seed
        check_splits({"train": train, "val": val, "test": test}, root)
        self.shapes = BatchShapes(size, scales, aspect_ratios)
        self.evaluate_at: Frame = evaluate_at
        self.train_transforms = default_train_transforms() if train_transforms is None else train_transforms
        self.plain_epochs = plain_epochs
        self._parts = () if train is None else train.parts
        self._rare, self._labels = repeat_rare, train
        self._root, self._uncached = root, {"train": train, "val": val, "test": test}
        self._repeated: Sequence[Part] | None = None
        self._image_sizes = None if train is None or aspect_ratios is None else train.sizes
        self.train, self.val, self.test = _cached(train, val, test, cache)
        self.predict_path, self.predict_channels = predict_path, predict_channels
        self.predicted: frozenset[str] = frozenset()
        self.widened = False
        self.tolerant = on_error == "skip"
        self.skipped: list[tuple[str, str]] = []
        self._resume: dict[str, int] | None = None
        self._train_loader: TrainingLoader | None = None

    @classmethod
    def load_from_checkpoint(cls, *arguments: Any, **options: Any) -> JointDataModule:  # type: ignore[override]
        """Raise an error: a checkpoint has nothing to build the data from, and Lightning would build whatever it names.

        Raises:
            NotImplementedError: Always.
        """
        raise NotImplementedError("a checkpoint does not contain a data module; build it from the config")

    @property
    def batch_size(self) -> int:
        """Number of training images per step and process."""
        return self.loading.batch_size

    @batch_size.setter
    def batch_size(self, images: int) -> None:
        """Set it for the loaders that are made from now on."""
        self.loading = replace(self.loading, batch_size=images)

    @property
    def size(self) -> Size:
        """Base input size, (height, width)."""
        return self.shapes.base

    @property
    def taxonomy(self) -> Taxonomy:
        """The categories of the sources.

        Raises:
            DataError: There are no sources.
        """
        for source in (self.train, self.val, self.test):
            if source is not None:
                return source.taxonomy
        raise DataError("data: there is no source, so the categories are unknown; set data.train")

    def widen(self, taxonomy: Taxonomy) -> None:
        """Give all sources more categories, for which their images are not labelled.

        Args:
            taxonomy: The categories, those of the sources among them.

        Raises:
            DataError: It lacks a category of the sources, or its boxes or pixels.
        """
        before = self.train, self.val, self.test
        self.train, self.val, self.test = (
            source if source is None or source.taxonomy == taxonomy else Widened(source, taxonomy) for source in before
        )
        self.widened = self.widened or (self.train, self.val, self.test) != before

    def fingerprints(self) -> dict[str, str]:
        """Return a hash of each source: of its labels, its options and the names of its files, not of their pixels.

        It does not depend on where ``root`` is.
        """
        root = None if self._root is None else str(Path(self._root))
        return {name: source_digest(source, root=root) for name, source in self._uncached.items() if source is not None}

    @property
    def training_sizes(self) -> list[Size]:
        """Every (height, width) that training batches may have."""
        return self.shapes.all

    def train_dataloader(self) -> TrainingLoader:
        """Return the loader of the training batches."""
        source = _given(self.train, "train")
        replicas, rank = self._share()
        sizes, aspects = self.shapes.choices(self._image_sizes)
        sampler = MultiScaleSampler(
            source,
            self.batch_size,
            sizes,
            num_replicas=replicas,
            rank=rank,
            seed=self.seed,
            parts=self._parts if self._rare is None else self._repeated_parts(self._rare),
            aspects=aspects,
            blocks=source.blocks,
        )
        sampler.plain_from = self._plain_from(-(-len(sampler) // self.batch_size))
        dataset = PreparedDataset(
            source, self.size, transforms=Compose(self.train_transforms), tolerant=self.tolerant, parts=self._parts
        )
        completed = None if self.trainer is None else self._completed
        loader = TrainingLoader(
            dataset,
            completed,
            replicas,
            skipped=self.skipped,
            sampler=sampler,
            **self.loading.of_loader(training=True),
        )
        if self._resume is not None:
            loader.load_state_dict(self._resume)
            self._resume = None
        self._train_loader = loader
        return loader

    def __getstate__(self) -> dict[str, Any]:
        """Pickle without the loader, which has its own processes."""
        return self.__dict__ | {"_train_loader": None}

    @property
    def shift(self) -> int:
        """How many more batches of the epoch are done than the run before counted, whose batches had another size."""
        return 0 if self._train_loader is None else self._train_loader.shift

    def state_dict(self) -> dict[str, Any]:
        """Return the position in the training epoch, for a checkpoint in the middle of one."""
        if self.trainer is None or self._train_loader is None or self.trainer.state.fn != TrainerFn.FITTING:
            return {}
        return self._train_loader.state_dict() | {"epoch": self.trainer.current_epoch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Let the training epoch continue at the position in a checkpoint.

        Lightning gives a loader its state too late: the length of the schedule is requested before, and with it the
        loader is set up.
        """
        if self.trainer is not None and self.trainer.state.fn == TrainerFn.FITTING:
            self._resume = dict(state_dict) or None

    def _repeated_parts(self, threshold: float) -> Sequence[Part]:
        """Return the parts of the training set with the repeat factors of their images; the first time, read them."""
        if self._repeated is None:
            labels = _given(self._labels, "train")
            parts = self._parts or (Part("train", 0, len(labels), float(len(labels)), labels.blocks),)
            present = present_categories(labels, workers=self.loading.num_workers, tolerant=self.tolerant)
            categories = labels.taxonomy.categories
            weights = image_weights(parts) if self._parts else None
            repeats = repeat_factors(present, len(categories), threshold, weights)
            rare = [row for row in np.argsort(repeats.shares, kind="stable") if repeats.categories[row] > 1]
            named = [f"{categories[r].name} {repeats.categories[r]:.2f} times" for r in rare[:8]]
            if named:
                more = f", and {len(rare) - len(named)} more" if len(rare) > len(named) else ""
                line = f"images with rare classes are repeated: {', '.join(named)}{more}"
            else:
                line = f"no class is in less than {threshold:g} of the images, so none is repeated"
            rank_zero_info(f"data.repeat_rare: {line}")
            self._repeated = repeated_parts(parts, repeats.images)
        return self._repeated

    def _completed(self) -> int:
        """Return how many batches of the epoch were trained on, as Lightning counts them when it continues."""
        assert self.trainer is not None
        progress: Any = self.trainer.fit_loop.epoch_loop.batch_progress.current
        return int(progress.processed)

    def _plain_from(self, steps: int) -> int | None:
        """Return the epoch from which there is no augmentation; None if there always is.

        Args:
            steps: Number of batches per epoch.
        """
        if not self.plain_epochs or self.trainer is None:
            return None
        lengths = []
        if self.trainer.max_epochs is not None and self.trainer.max_epochs >= 0:
            lengths.append(self.trainer.max_epochs)
        if self.trainer.max_steps >= 0:
            limit = self.trainer.limit_train_batches
            steps = min(steps, limit) if isinstance(limit, int) else max(1, int(steps * limit))
            lengths.append(math.ceil(self.trainer.max_steps * self.trainer.accumulate_grad_batches / steps))
        if not lengths:
            raise ValueError("data.plain_epochs: the run has no planned end; set trainer.max_epochs")
        return max(0, min(lengths) - self.plain_epochs)

    def val_dataloader(self) -> BatchLoader:
        """Return the loader of the validation batches."""
        return self._evaluation_loader(_given(self.val, "val"))

    def test_dataloader(self) -> BatchLoader:
        """Return the loader of the test batches."""
        return self._evaluation_loader(_given(self.test or self.val, "test"))

    def images_to_predict(self) -> str:
        """Return the path of the images to predict on.

        Raises:
            DataError: None is given, or there is nothing at the path.
        """
        # An empty text, such as that of a variable of the shell that is not set, would be the current folder.
        if not self.predict_path:
            raise DataError("data: there is nothing to predict on; set data.predict_path to a folder of images")
        require_images(self.predict_path)
        return self.predict_path

    def predict_dataloader(self) -> BatchLoader:
        """Return the loader of the images to predict on; their truths are the unlabelled originals."""
        path = self.images_to_predict()
        has_source = any(source is not None for source in (self.train, self.val, self.test))
        taxonomy = self.taxonomy if has_source else None
        folder = ImageFolder(path, taxonomy, self.predict_channels, self.predicted)
        self.skipped[:] = folder.skipped
        dataset = PreparedDataset(folder, self.size, frame="original", tolerant=True)
        replicas, rank = self._share()
        sampler = EvaluationSampler(folder, self.size, num_replicas=replicas, rank=rank, fill=False)
        return self._loader(dataset, sampler, PredictionLoader)

    def validation_sample(self, images: int) -> BatchLoader:
        """Return a loader of at most ``images`` validation images, spread evenly over the set, for one process."""
        source = _given(self.val, "val")
        return self._evaluation_loader(source, (-(-len(source) // images), 0))

    def _evaluation_loader(self, source: Source, share: tuple[int, int] | None = None) -> BatchLoader:
        replicas, rank = share or self._share()
        sampler = EvaluationSampler(source, self.size, num_replicas=replicas, rank=rank, blocks=source.blocks)
        dataset = PreparedDataset(source, self.size, frame=self.evaluate_at, tolerant=self.tolerant)
        return self._loader(dataset, sampler)

    def _loader(
        self, dataset: PreparedDataset, sampler: EvaluationSampler, kind: type[BatchLoader] = BatchLoader
    ) -> BatchLoader:
        options = self.loading.of_loader(training=False)
        return kind(dataset, skipped=self.skipped, sampler=sampler, **options)

    def _share(self) -> tuple[int, int]:
        """Return the number of processes and the rank of this one."""
        if self.trainer is None:
            return 1, 0
        return self.trainer.world_size, self.trainer.global_rank


def _cached(
    train: Source | None, val: Source | None, test: Source | None, cache: bool | CacheOptions
) -> tuple[Source | None, Source | None, Source | None]:
    """Return the sources, each in a cache of its own if there shall be one; evaluation needs images in full size."""
    if not cache:
        return train, val, test
    options = cache if isinstance(cache, CacheOptions) else CacheOptions()
    whole = replace(options, max_side=None)
    chosen = ((train, options), (val, whole), (test, whole))
    cached = [None if source is None else Cached(source, own) for source, own in chosen]
    return cached[0], cached[1], cached[2]


def _given(source: Source | None, name: str) -> Source:
    if source is None:
        raise DataError(f"data.{name}: there is no source; set data.{name}.class_path")
    return source
