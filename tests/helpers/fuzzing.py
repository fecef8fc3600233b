"""Damaging the files of a small data set, and judging what comes of reading it."""

from __future__ import annotations

import faulthandler
import math
import random
import resource
import shutil
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ocrnet_pl.data.loading.dataset import Prepared, PreparedDataset, Skipped
from ocrnet_pl.data.sources.base import Source
from ocrnet_pl.errors import DataError
from ocrnet_pl.structures import IGNORE_INDEX, Sample, Taxonomy
from tests.helpers.mutations import mutate, replace_file
from tests.helpers.small_sets import SETS, SmallSet

SECONDS = 10
"""For opening a damaged set and reading all of it."""

MEMORY = 2 << 30
"""Bytes that it may take beside what the process has."""


class Verdict(NamedTuple):
    """What came of an attack.

    Attributes:
        kind: ``read``, ``refused`` or ``fault``.
        text: The error, or what is wrong.
    """

    kind: str
    text: str = ""


class LateError(BaseException):
    """It took too long; nobody who handles errors should catch it."""


@contextmanager
def bounded(seconds: float = SECONDS, memory: int = MEMORY) -> Iterator[None]:
    """Raise LateError after a time, and let more memory than that be refused; end the process if neither helps."""

    def late(*_: Any) -> None:
        raise LateError(f"it took more than {seconds} seconds")

    with open("/proc/self/statm", encoding="ascii") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    limits = resource.getrlimit(resource.RLIMIT_AS)
    before = signal.signal(signal.SIGALRM, late)
    resource.setrlimit(resource.RLIMIT_AS, (used + memory, limits[1]))
    # Code outside of Python that hangs does not notice the alarm.
    faulthandler.dump_traceback_later(12 * seconds, exit=True, file=sys.__stderr__)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        faulthandler.cancel_dump_traceback_later()
        resource.setrlimit(resource.RLIMIT_AS, limits)
        signal.signal(signal.SIGALRM, before)


def faults_of(sample: Sample, taxonomy: Taxonomy) -> str:
    """Return what is wrong with a sample, or nothing."""
    size, count = sample.size, len(sample.labels)
    boxes = sample.boxes.as_subclass(Tensor)
    if boxes.shape != (count, 4) or sample.crowd.shape != (count,) or boxes.dtype != torch.float32:
        return "boxes, labels and crowd do not fit"
    if not boxes.isfinite().all():
        return f"a box is not finite: {boxes.tolist()}"
    if count and not 0 <= int(sample.labels.min()) <= int(sample.labels.max()) < taxonomy.num_detection:
        return f"a label is out of range: {sample.labels.tolist()}"
    if sample.supervision.detection.shape != (taxonomy.num_detection,):
        return "the detection supervision does not fit"
    if sample.supervision.semantic.shape != (taxonomy.num_semantic,):
        return "the segmentation supervision does not fit"
    for name in ("semantic", "instances"):
        plane = getattr(sample, name)
        if plane is None:
            continue
        values = plane.as_subclass(Tensor)
        most = taxonomy.num_semantic - 1 if name == "semantic" else count
        known = values[values != IGNORE_INDEX] if name == "semantic" else values
        if values.shape != size or (known.numel() and not 0 <= int(known.min()) <= int(known.max()) <= most):
            return f"the {name} map does not fit"
    scale = () if sample.placement is None else sample.placement.scale
    return "" if all(map(math.isfinite, scale)) else "the placement is not finite"


def read_all(source: Source) -> None:
    """Read what training and the check read of a source.

    Raises:
        DataError: A sample cannot be read.
        AssertionError: A sample is wrong.
    """
    refused: DataError | None = None
    source.taxonomy  # noqa: B018
    for index in range(len(source)):
        image_id, path = source.identity(index)
        assert isinstance(image_id, int | str) and isinstance(path, str)
        source.files(index)
        for look in (source.raw_boxes, source.image_boxes, source.image_size, source.__getitem__):
            try:
                found = look(index)
            except DataError as error:
                refused = error
                continue
            if isinstance(found, Sample):
                assert not (wrong := faults_of(found, source.taxonomy)), wrong
    dataset = PreparedDataset(source, (32, 32), frame="original", tolerant=True)
    for index in range(len(source)):
        try:
            assert isinstance(dataset[index], Prepared | Skipped)
        except DataError as error:
            refused = error
    if refused is not None:
        raise refused


def judge(small: SmallSet, root: Path) -> Verdict:
    """Open a set and read all of it."""
    try:
        with bounded():
            read_all(small.open(root))
    except DataError as error:
        text = str(error)
        if not text.isprintable() or len(text) > 2000:
            return Verdict("fault", f"not one readable line: {text[:300]!r}")
        if not any(Path(file).name in text for file in small.files) and str(root) not in text:
            return Verdict("fault", f"it names no file: {text}")
        return Verdict("refused", text)
    except (Exception, LateError) as error:  # the very point is to see what else is raised
        last = [f"{Path(f.filename).name}:{f.lineno}" for f in traceback.extract_tb(error.__traceback__)][-4:]
        return Verdict("fault", f"{type(error).__name__}: {str(error)[:200]!r} at {' '.join(last)}")
    return Verdict("read")


def attack(name: str, seed: int, clean: Path, scratch: Path) -> tuple[str, Verdict]:
    """Damage one file of a small set and judge what comes of it.

    Args:
        name: Name of the set.
        seed: Seed of the damage.
        clean: Where the sound set is.
        scratch: A folder for a copy of it.

    Returns:
        What was done, and what came of it.
    """
    root = damage(name, seed, clean, scratch)
    return f"{name} {seed}", judge(SETS[name], root)


def damage(name: str, seed: int, clean: Path, scratch: Path) -> Path:
    """Copy a small set, damage one of its files, and return the copy; as of :func:`attack`."""
    small = SETS[name]
    rng = random.Random(f"{name} {seed}")
    root = scratch / "set"
    shutil.rmtree(root, ignore_errors=True)
    shutil.copytree(clean, root)
    file = root / rng.choice(small.files)
    if rng.random() < 0.04 and not small.own_files:
        replace_file(file, rng)
    else:
        file.write_bytes(mutate(file.name, file.read_bytes(), rng))
    return root
