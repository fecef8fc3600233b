"""Predictions with an exported file, without torch: numpy, Pillow and onnxruntime are all that it needs."""

from ocrnet_pl.runtime.model import Model
from ocrnet_pl.runtime.prediction import Prediction, Segment

__all__ = ["Model", "Prediction", "Segment"]
