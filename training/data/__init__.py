"""From a data set name or folder to batches."""

from training.data.load import evaluation_transform, load
from training.data.splits import Splits

__all__ = ["Splits", "evaluation_transform", "load"]
