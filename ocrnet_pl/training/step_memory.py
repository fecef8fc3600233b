"""How much memory a training step takes, and how many images fit."""

from __future__ import annotations

import contextlib
import ctypes
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ocrnet_pl.structures import Batch, Placement, Taxonomy

if TYPE_CHECKING:
    from ocrnet_pl.training.task import OCRNetTask

MIB = 2**20
_MOST = 4096
_BOXES = 20
_CLOSE = 16
"""The search ends when it is exact to a share of 1 / 16."""

Size = tuple[int, int]


def out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that there is no memory left, on a GPU or in the machine."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    )


def advice(size: Size | None, count: int | None) -> str:
    """Return in one line what to do about it.

    Args:
        size: (height, width) of the batch that did not fit, if it is known.
        count: Number of images of that batch, if it is known.
    """
    batch = "" if size is None else f" at {count} images of {size[0]} x {size[1]}"
    return (
        f"out of memory{batch}; lower data.batch_size (`train.py memory --config ...` finds the largest that fits), or "
        "data.scales, or set trainer.precision to bf16-mixed, or checkpointing of model.encoder to true"
    )


def ram_peak_mb() -> float | None:
    """Return the largest memory of this process, or since :func:`reset_peak`, in MiB, on Linux."""
    status = Path("/proc/self/status")
    # Not the resource module's: that starts at the memory of the process that started this one.
    lines = status.read_text().splitlines() if status.is_file() else []
    return next((int(line.split()[1]) / 2**10 for line in lines if line.startswith("VmHWM:")), None)


def peak_memory_mb() -> dict[str, float | None]:
    """Return the largest memory of this process in MiB: ``ram``, and ``gpu`` if there is one."""
    gpu = torch.cuda.max_memory_allocated() / MIB if torch.cuda.is_available() else None
    ram = ram_peak_mb()
    return {"ram": None if ram is None else round(ram, 1), "gpu": None if gpu is None else round(gpu, 1)}


def reset_peak(device: torch.device) -> None:
    """Start to measure the peak again."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    else:
        # What earlier, larger steps have freed is still the process's, and would count as this one's.
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)
        # 5 resets the peak and nothing else.
        Path("/proc/self/clear_refs").write_text("5")


def peak_mb(device: torch.device) -> float:
    """Return the peak since :func:`reset_peak`, in MiB: allocated on a GPU, of the whole process on the CPU.

    Raises:
        OSError: The system does not provide it.
    """
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device)) / MIB
    peak = ram_peak_mb()
    if peak is None:
        raise OSError("memory: only Linux reports a process's peak memory; measure on a GPU instead")
    return peak


def available_mb(device: torch.device) -> float:
    """Return the memory that a process may use, in MiB: 90 % of the GPU, or of the available memory of the machine."""
    if device.type == "cuda":
        return 0.9 * torch.cuda.get_device_properties(device).total_memory / MIB
    lines = Path("/proc/meminfo").read_text().splitlines()
    spare = next(int(line.split()[1]) / 2**10 for line in lines if line.startswith("MemAvailable:"))
    return 0.9 * (spare + (ram_peak_mb() or 0.0))


def random_batch(
    taxonomy: Taxonomy, size: Size, count: int, channels: int, device: torch.device, boxes: int = _BOXES
) -> Batch:
    """Return a batch of noise with ``boxes`` boxes per image, with the shapes of training batches."""
    random = torch.Generator().manual_seed(0)
    height, width = size
    scale = torch.tensor([width, height, width, height])
    corners = torch.rand(count, boxes, 2, 2, generator=random).sort(2).values.flatten(2) * scale
    batch = Batch(
        images=torch.randint(0, 256, (count, channels, height, width), generator=random, dtype=torch.uint8),
        boxes=corners,
        labels=torch.randint(0, max(1, taxonomy.num_detection), (count, boxes), generator=random),
        valid=torch.full((count, boxes), taxonomy.num_detection > 0),
        crowd=torch.zeros(count, boxes, dtype=torch.bool),
        semantic=torch.randint(0, max(1, taxonomy.num_semantic), (count, height, width), generator=random),
        detection_classes=torch.ones(count, taxonomy.num_detection, dtype=torch.bool),
        semantic_classes=torch.ones(count, taxonomy.num_semantic, dtype=torch.bool),
        placements=[Placement.identity(size)] * count,
        image_ids=list(range(count)),
        paths=[""] * count,
    )
    return batch.to(device)


class StepMemory:
    """Measures memory and time of training steps of a task: forward, losses, backward and optimiser.

    Args:
        task: The task, which is moved to the device; its weights are changed.
        device: Device to measure on.
        context: Returns the context manager of the precision for a forward pass.
    """

    def __init__(
        self,
        task: OCRNetTask,
        device: torch.device,
        context: Callable[[], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext,
    ) -> None:
        self.task = task.to(device).train()
        self.device = device
        self.context = context
        self.optimizer = task.make_optimizer()

    def peak(self, size: Size, count: int) -> float | None:
        """Return the peak of a step in MiB, or None if it does not fit."""
        try:
            batch = random_batch(self.task.taxonomy, size, count, self.task.network.in_channels, self.device)
            reset_peak(self.device)
            for _ in range(2):
                self._step(batch)
            return peak_mb(self.device)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            return None
        finally:
            self.optimizer.zero_grad(set_to_none=True)

    def seconds(self, size: Size, count: int, steps: int = 3) -> float:
        """Return the seconds of the fastest step, after one that is not counted: other programs slow down the others.

        Args:
            size: (height, width) of the images.
            count: Number of images per step.
            steps: Number of steps to measure.
        """
        batch = random_batch(self.task.taxonomy, size, count, self.task.network.in_channels, self.device)
        times = []
        for _ in range(1 + steps):
            start = time.perf_counter()
            self._step(batch)
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
            times.append(time.perf_counter() - start)
        self.optimizer.zero_grad(set_to_none=True)
        return min(times[1:])

    def _step(self, batch: Batch) -> None:
        total: Tensor
        with self.context():
            total, _ = self.task.losses(self.task(batch.images), batch)
        self.task.on_before_zero_grad(self.optimizer)
        self.optimizer.zero_grad()
        total.backward()
        self.optimizer.step()


class MemoryGuard:
    """Raises torch's own error of a full memory before a batch on the CPU that would fill it.

    Without it, Linux would end the process, or another one. It is a forward pre-hook of a network. The memory of a
    batch is extrapolated from those before, in proportion to their images.

    Args:
        limit: Memory that this process may take, in MiB; None for 90 % of what is available.

    Raises:
        OSError: The system does not say what it has.
    """

    def __init__(self, limit: float | None = None) -> None:
        cpu = torch.device("cpu")
        self._limit = available_mb(cpu) if limit is None else limit
        reset_peak(cpu)
        self._peaks = {0: peak_mb(cpu)}
        self._last = 0

    def __call__(self, network: torch.nn.Module, arguments: tuple[Tensor, ...]) -> None:
        """Note the peak since the batch before, and raise an error if this one will not fit."""
        count = len(arguments[0])
        if self._last:
            self._peaks[self._last] = peak_mb(torch.device("cpu"))
        most = max(self._peaks)
        if count > most > 0:
            each = (self._peaks[most] - self._peaks[0]) / most
            if self._peaks[most] + each * (count - most) > self._limit:
                self._last = 0
                raise RuntimeError(f"DefaultCPUAllocator: can't allocate memory for a step of {count} images")
        self._last = count


def largest_that_fits(peak: Callable[[int], float | None], limit: float, most: int = _MOST) -> int:
    """Return the largest number of images whose step stays below a limit, to a sixteenth; 0 if the fewest are too many.

    The fewest are one, or two for a network that does not train on a single image.

    Memory grows nearly linearly with the images: each next size is extrapolated from two measurements and then
    measured, so that the limit is approached but not exceeded.

    Args:
        peak: Returns the peak of a step with a number of images; None if it does not fit. It may raise ValueError for
            one image.
        limit: The limit, in the unit of ``peak``.
        most: Largest number of images to try.
    """

    def fits(count: int) -> float | None:
        found = peak(count)
        return found if found is not None and found <= limit else None

    fewest = 1
    try:
        first = fits(fewest)
    except ValueError:
        # Batch normalisation refuses a single value, which is what remains in decoders that pool a whole image.
        fewest = 2
        first = fits(fewest)
    if first is None:
        return 0
    low, low_peak, high = fewest, first, most + 1
    tried = fewest + 1
    while high - low > max(1, low // _CLOSE):
        found = fits(tried)
        if found is None:
            high = tried
            tried = (low + high) // 2
            continue
        slope = (found - first) / (tried - fewest)
        low, low_peak = tried, found
        # Below the extrapolation, since the measurements are not exact; at most eight times as many at once.
        foretold = high if slope <= 0 else low + int((limit - low_peak) / slope * 0.95)
        tried = min(max(foretold, low + 1), high - 1, 8 * low)
    return low


def by_size(sizes: Sequence[Size]) -> list[Size]:
    """Return the sizes without repetition, the largest area first."""
    return sorted(set(sizes), key=lambda size: size[0] * size[1], reverse=True)
