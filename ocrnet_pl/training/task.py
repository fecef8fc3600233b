"""The LightningModule: steps, optimiser and logging; the mathematics is in the parts it is given."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, Literal, get_args

import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from ocrnet_pl.balancing.methods import Balancing, FixedWeights
from ocrnet_pl.distributed.buffers import share_buffers
from ocrnet_pl.distributed.global_batch import StepExchange
from ocrnet_pl.inference.batch_prediction import detection_limits, predict_batch
from ocrnet_pl.inference.fusion import FusionPostProcess
from ocrnet_pl.inference.multiscale import MultiScale
from ocrnet_pl.inference.tiled_inference import Tiling
from ocrnet_pl.losses.base import Loss, Measure, compiled_measure, joint_terms, measure_all
from ocrnet_pl.losses.detection import QualityDetectionLoss
from ocrnet_pl.losses.segmentation import SegmentationLoss
from ocrnet_pl.metrics.base import MetricFactory
from ocrnet_pl.metrics.evaluation import EvaluationMetrics
from ocrnet_pl.metrics.figures import FUSED, Figure, Place, shown_in
from ocrnet_pl.models.base import Encoder, PostProcess
from ocrnet_pl.models.detection import AnchorFreeDecoder
from ocrnet_pl.models.encoder import TimmEncoder
from ocrnet_pl.models.necks import PathAggregationNeck
from ocrnet_pl.models.network_parts import DetectionFactory, NeckFactory, SegmentationFactory
from ocrnet_pl.models.ocrnet import OCRNet
from ocrnet_pl.models.predict_options import ONE_WAY
from ocrnet_pl.models.segmentation import SubPixelDecoder
from ocrnet_pl.structures import Batch, Output, Predictions, Taxonomy
from ocrnet_pl.training.continuing import Continuing
from ocrnet_pl.training.hyperparameters import keep_arguments
from ocrnet_pl.training.muon import Muon
from ocrnet_pl.training.optimizers import EncoderRates, OptimizerFactory, SharedFactory, make_optimizer
from ocrnet_pl.training.savable_task import SavableTask
from ocrnet_pl.training.schedules import Interval, Schedule, SchedulerFactory, WarmupCosine
from ocrnet_pl.training.sharding import check_strategy, gather, is_sharded, scatter, shard
from ocrnet_pl.training.teacher import Teacher
from ocrnet_pl.training.validation_loss import ValidationLoss

MatmulPrecision = Literal["highest", "high", "medium"]


class OCRNetTask(SavableTask):
    """Trains an :class:`OCRNet` on both tasks at once with one optimiser over their joint loss.

    What its checkpoints contain stands in :class:`~ocrnet_pl.training.savable_task.SavableTask`.

    Args:
        taxonomy: The categories; the command line passes the data's.
        encoder: Turns images into feature maps; null for ``TimmEncoder``.
        neck: Makes the neck from the encoder's channels and strides.
        detection: Makes the detection decoder from the neck's channels and strides; null trains segmentation only.
        segmentation: Makes the segmentation decoder from the shapes of all maps; null trains detection only.
        postprocess: Turns outputs into predictions; null for ``FusionPostProcess``.
        detection_loss: Loss of detection, whose terms are logged as ``train/loss_<term>``; null for
            ``QualityDetectionLoss``.
        segmentation_loss: Loss of segmentation, whose terms are logged as ``train/loss_<term>``; null for
            ``SegmentationLoss``.
        balancing: Combines the two tasks' losses; null for their sum.
        optimizer: Makes the optimiser from the parameter groups; norms and biases get no weight decay.
        encoder_lr: Factor on the learning rate of a pretrained encoder.
        layer_decay: Factor, above 0 and at most 1, by which each layer of a pretrained encoder learns more slowly than
            the next one; null for one rate.
        frozen_norms: Whether batch norms keep the statistics that they start with, and normalise with them in training
            too; null does so where classes of ``init_from`` are kept (``init_keep``) and the encoder is pretrained.
        scheduler: Learning-rate schedule: any scheduler of torch that depends on the number of steps alone. Where it
            asks for its length (``total_steps``, ``T_max``, ``total_iters``), -1 stands for the whole run. By default a
            linear warm-up of 100 steps is followed by a half cosine.
        scheduler_interval: Unit in which the scheduler counts: optimiser steps (``step``) or epochs (``epoch``).
        input_size: (height, width) that prediction letterboxes into; the command line passes the data's.
        tile: How to evaluate and predict images larger than the input in tiles; null scales them down to fit.
        multiscale: How to evaluate and predict at several scales and mirrored; null for a single pass.
        compile_backend: Backend of ``torch.compile``, such as ``inductor``, with which network and losses are compiled;
            null compiles nothing.
        compile_mode: What ``inductor`` optimises for, such as ``max-autotune-no-cudagraphs``; null for its default.
        matmul_precision: Precision of products of float32 matrices on GPUs: ``highest``, or ``high`` or ``medium``,
            which are several times faster on tensor cores and round more; null leaves torch's setting.
        metrics: Additional metrics for validation and testing, each a subclass of ``ocrnet_pl.metrics.base.Metric``;
            null adds none.
        teacher: A trained network that teaches this one besides the labels; null for none.
        validation_loss: Whether validations log the losses as well, as ``val/loss_<task>`` and
            ``val/loss_<term>``; not with ``tile`` or ``multiscale``, where the network sees other images.

    Raises:
        ValueError: Both ``tile`` and ``multiscale`` are given, a number is out of range, or a metric is unusable.
    """

    def __init__(
        self,
        taxonomy: Taxonomy,
        encoder: Encoder | None = None,
        neck: NeckFactory = PathAggregationNeck,
        detection: DetectionFactory | None = AnchorFreeDecoder,
        segmentation: SegmentationFactory | None = SubPixelDecoder,
        postprocess: PostProcess | None = None,
        detection_loss: Loss | None = None,
        segmentation_loss: Loss | None = None,
        balancing: Balancing | None = None,
        optimizer: OptimizerFactory = lambda params: Muon(params, lr=3e-3, weight_decay=0.05),
        encoder_lr: float = 0.1,
        layer_decay: float | None = None,
        frozen_norms: bool | None = None,
        scheduler: SchedulerFactory = WarmupCosine,
        scheduler_interval: Interval = "step",
        input_size: tuple[int, int] = (512, 512),
        tile: Tiling | None = None,
        multiscale: MultiScale | None = None,
        compile_backend: str | None = None,
        compile_mode: str | None = None,
        matmul_precision: MatmulPrecision | None = None,
        metrics: list[MetricFactory] | None = None,
        teacher: Teacher | None = None,
        validation_loss: bool = True,
    ) -> None:
        super().__init__()
        if tile is not None and multiscale is not None:
            raise ValueError(ONE_WAY)
        if scheduler_interval not in get_args(Interval):
            raise ValueError(f"model.scheduler_interval: expected 'step' or 'epoch', got {scheduler_interval!r}")
        if matmul_precision is not None and matmul_precision not in get_args(MatmulPrecision):
            raise ValueError(
                f"model.matmul_precision: expected one of {', '.join(get_args(MatmulPrecision))}, got "
                f"{matmul_precision!r}"
            )
        self.network = OCRNet(
            taxonomy,
            encoder or TimmEncoder(),
            neck,
            detection,
            segmentation,
            postprocess or FusionPostProcess(),
            input_size,
        )
        self.exchange = StepExchange()
        self._matmul_precision = matmul_precision
        self._measure: Measure = measure_all
        if compile_backend is not None:
            self.network.compile_parts(compile_backend, compile_mode)
            self._measure = compiled_measure(compile_backend, compile_mode)
        self.detection_loss = detection_loss or QualityDetectionLoss()
        self.segmentation_loss = segmentation_loss or SegmentationLoss()
        one_pass = tile is None and multiscale is None
        self.validation_loss: ValidationLoss | None = None
        if validation_loss and one_pass:
            self.validation_loss = ValidationLoss(self.detection_loss, self.segmentation_loss)
        balancing = balancing or FixedWeights()
        joint = detection is not None and segmentation is not None
        self.balancing = balancing if joint else balancing.single()
        self.network.split.rule = self.balancing.rule
        self.network.split.measuring = self.balancing.measures_gradients
        self._optimizer = SharedFactory(optimizer)
        self._unfused: tuple[OCRNet] | None = None
        self._rates = EncoderRates(self.network.encoder, encoder_lr, layer_decay)
        self._frozen_norms = frozen_norms
        self.schedule = Schedule(scheduler, scheduler_interval)
        self._continuing = Continuing(self.schedule)
        self.origin = None
        self.terms: dict[str, dict[str, Tensor]] = {}
        self._shown: Tensor | None = None
        self.tile = tile
        self.multiscale = multiscale
        self.teacher = teacher
        has_boxes, has_pixels = detection is not None, segmentation is not None
        self.val_metrics = EvaluationMetrics(taxonomy, has_boxes, has_pixels, metrics or ())
        self.test_metrics = EvaluationMetrics(taxonomy, has_boxes, has_pixels, metrics or ())
        self._unrecorded = keep_arguments(self, inspect.currentframe(), self.network, self.val_metrics.own)

    @property
    def taxonomy(self) -> Taxonomy:
        """The categories."""
        return self.network.taxonomy

    @property
    def figures(self) -> tuple[Figure, ...]:
        """The figures that its evaluations may log, with their titles."""
        return self.val_metrics.figures

    def setup(self, stage: str) -> None:
        """Raise an error for a strategy that could not make a step, or a teacher that could not teach."""
        # An interrupted prediction left the folded copy here.
        self._unfuse()
        check_strategy(self.trainer)
        if self._matmul_precision is not None:
            torch.set_float32_matmul_precision(self._matmul_precision)
        if self.teacher is not None and stage == "fit":
            self.teacher.load(self.network)

    def configure_model(self) -> None:
        """Shard the network if the strategy requires it."""
        if self._trainer is not None:
            shard(self.network, self._trainer, self.balancing)

    def forward(self, images: Tensor) -> Output:
        """Return the network's raw output for uint8 or float images [B, C, H, W], 0 to 255."""
        output: Output = self.network(images)
        return output

    def losses(self, output: Output, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the joint loss and its terms by name; :attr:`terms` keeps them by task."""
        losses = (self.detection_loss, self.segmentation_loss)
        boxes, pixels = ({}, {}) if self.teacher is None else self.teacher(self.network, output, batch)
        taught = (*boxes.values(), *pixels.values())
        detection, segmentation = joint_terms(losses, output, batch, self._measure, self.exchange, taught)
        detection, segmentation = detection | boxes, segmentation | pixels
        total = self.balancing(sum(detection.values()), sum(segmentation.values()))
        named = {"detection": detection, "segmentation": segmentation}
        self.terms = {task: {name: term.detach() for name, term in own.items()} for task, own in named.items()}
        return total, detection | segmentation

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Let stages train that were frozen until now."""
        self.network.begin_step(self.current_epoch, self.global_step)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the joint loss."""
        total, terms = self.losses(self(batch.images), batch)
        size = len(batch)
        self.log("train/loss", total.detach(), batch_size=size)
        # Whatever the bar shows is fetched from the device at every step: it gets a copy that is seldom renewed.
        every = self.trainer.log_every_n_steps or 50  # type: ignore[attr-defined]
        if self._shown is None or self.trainer.global_step % every == 0:
            self._shown = total.detach().cpu()
        self.log("loss", self._shown, prog_bar=True, logger=False, batch_size=size)
        self.log_dict({f"train/loss_{name}": term.detach() for name, term in terms.items()}, batch_size=size)
        return total

    def on_before_zero_grad(self, optimizer: Optimizer) -> None:
        """Start to measure again with the gradients."""
        self.network.split.reset()

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Pass the measured gradients of the tasks to the balancing, and let what is frozen for now stay."""
        self.balancing.update(self.network.split.products)
        self.network.encoder.hold_still()

    def on_validation_start(self) -> None:
        """Gather sharded weights."""
        gather(self.network)

    def on_validation_end(self) -> None:
        """Release the gathered weights."""
        scatter(self.network)

    def on_validation_epoch_start(self) -> None:
        """Give all processes the statistics of the first one, which checkpoints contain.

        By now the averaged weights, if there are any, have replaced the live ones.
        """
        share_buffers(self.buffers())

    on_test_epoch_start = on_train_end = on_validation_epoch_start
    on_test_start = on_validation_start
    on_test_end = on_validation_end

    def on_predict_start(self) -> None:
        """Make the weights of a sharded network whole, or fold the batch norms of one that is not compiled."""
        self.on_validation_start()
        compiled = any(module._compiled_call_impl for module in self.network.modules())
        if not (compiled or is_sharded(self.network)):
            # In a tuple, so that its weights do not count twice.
            self._unfused = (self.network,)
            self.network = self.network.fuse()

    def on_predict_end(self) -> None:
        """Put the network back that can be trained."""
        self._unfuse()
        self.on_validation_end()

    def _unfuse(self) -> None:
        if self._unfused is not None:
            (self.network,), self._unfused = self._unfused, None

    def _evaluate(
        self, batch: Batch, metrics: EvaluationMetrics, see: Callable[[Output], None] | None = None
    ) -> Predictions:
        predictions = predict_batch(self.network, batch, self.tile, self.multiscale, see)
        for group in (predictions.raw, predictions.best):
            for prediction, image_id, path in zip(group, batch.image_ids, batch.paths, strict=True):
                prediction.image_id, prediction.path, prediction.taxonomy = image_id, path, self.taxonomy
        # The trial batches before training must not count.
        if not self.trainer.sanity_checking and not self.trainer.predicting:
            metrics.update(predictions, batch, detection_limits(self.network, batch, self.tile))
        return predictions

    def _log_metrics(self, stage: str, metrics: EvaluationMetrics) -> None:
        if self.trainer.sanity_checking:
            return
        values = metrics.compute()
        if (line := metrics.over_limit()) is not None:
            rank_zero_warn(f"{stage}: {line}")
        shown = {figure.name for figure in shown_in(Place.BAR, metrics.figures)}
        for name, value in values.items():
            # Every process computed the same figure from all processes' images: nothing is left to synchronise.
            in_bar = name.removeprefix(FUSED) in shown
            self.log(f"{stage}/{name}", value, prog_bar=in_bar, sync_dist=False, rank_zero_only=False)

    def validation_step(self, batch: Batch, batch_idx: int) -> Predictions:  # type: ignore[override]
        """Return the batch's predictions, for the callbacks."""
        loss = None if self.trainer.sanity_checking else self.validation_loss
        see = None if loss is None else functools.partial(loss.update, batch)
        return self._evaluate(batch, self.val_metrics, see)

    def on_validation_epoch_end(self) -> None:
        """Log the figures of the whole set."""
        self._log_metrics("val", self.val_metrics)
        if self.validation_loss is not None:
            for name, value in self.validation_loss.compute().items():
                self.log(f"val/{name}", value, sync_dist=False)

    def test_step(self, batch: Batch, batch_idx: int) -> Predictions:  # type: ignore[override]
        """Return the batch's predictions, for the callbacks."""
        return self._evaluate(batch, self.test_metrics)

    def on_test_epoch_end(self) -> None:
        """Log the figures of the whole set."""
        self._log_metrics("test", self.test_metrics)

    def predict_step(self, batch: Batch, batch_idx: int) -> Predictions:
        """Return the batch's predictions, for the writers."""
        return self._evaluate(batch, self.val_metrics)

    @property
    def confusion(self) -> Tensor | None:
        """The last evaluation's confusion matrix [S, S], rows true; None without a segmentation decoder."""
        metrics = self.test_metrics if self.trainer.testing else self.val_metrics
        return metrics.confusion()

    def make_optimizer(self) -> Optimizer:
        """Return the optimiser over all parameter groups."""
        return make_optimizer(self._optimizer.factory, self.network, self.balancing, self._rates)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Return the optimiser over all parameter groups and its schedule.

        Raises:
            ValueError: The run cannot have this schedule, such as one that needs the end of a run without one.
        """
        optimizer = self.make_optimizer()
        scheduler = self._continuing.begin(self.trainer, optimizer)
        # Lightning would take a schedule by epochs on only after the epoch's checkpoint is written.
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def lr_scheduler_step(self, scheduler: LRScheduler, metric: Any) -> None:  # type: ignore[override]
        """Take the schedule on."""
        self._continuing.advance(self.trainer, scheduler)

    def on_fit_start(self) -> None:
        """Let the optimiser take over a checkpoint's state as far as it fits."""
        self._continuing.prepare(self, self.trainer.optimizers[0])

    def on_train_start(self) -> None:
        """Let a run that continues follow its own settings from the first step on, and freeze norms."""
        self._continuing.start(self.trainer)
        keeps = self._keeps_classes and self.network.encoder.pretrained
        self.network.frozen_norms = keeps if self._frozen_norms is None else self._frozen_norms
        if self.network.frozen_norms:
            self.network.train(self.network.training)
