"""From a data set name or folder to batches."""

from lightnets.data.arrays import from_arrays, from_dataset
from lightnets.data.load import evaluation_transform, load
from lightnets.data.splits import Splits

__all__ = ["Splits", "evaluation_transform", "from_arrays", "from_dataset", "load"]
