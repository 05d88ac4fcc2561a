"""From a data set name or folder to batches."""

from training.data.arrays import from_arrays, from_dataset
from training.data.load import evaluation_transform, load
from training.data.splits import Splits

__all__ = ["Splits", "evaluation_transform", "from_arrays", "from_dataset", "load"]
