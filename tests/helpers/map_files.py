"""Images and maps: written as files, damaged, and taken out of samples."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from ocrnet_pl.structures import Sample


def save(path: Path, values: np.ndarray) -> None:
    """Write an image, and its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)


def replaced_by(content: bytes) -> Callable[[Path], None]:
    """Return a function that replaces the content of a file."""
    return lambda path: path.write_bytes(content) and None


def semantic_of(sample: Sample) -> np.ndarray:
    """Return the semantic map."""
    assert sample.semantic is not None
    result: np.ndarray = sample.semantic.as_subclass(Tensor).numpy()
    return result


def instances_of(sample: Sample) -> np.ndarray:
    """Return the instance map."""
    assert sample.instances is not None
    result: np.ndarray = sample.instances.as_subclass(Tensor).numpy()
    return result


def maps(sample: Sample) -> tuple[np.ndarray, np.ndarray]:
    """Return the instance and the semantic map."""
    return instances_of(sample), semantic_of(sample)
