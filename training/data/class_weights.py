"""Weights of classes, so that rare ones count as much as common ones."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def balanced(counts: Sequence[int] | np.ndarray) -> np.ndarray:
    """Returns the weight of each class's samples: `total / (classes * count)`, float32.

    All classes then have the same sum of weights, and the mean weight of a sample is 1, so that
    the learning rate keeps its meaning. A class without samples gets 0: it cannot occur.

    Args:
        counts: Training samples of each class.
    """
    samples = np.asarray(counts, np.float64)
    present = samples > 0
    weights = np.zeros_like(samples)
    weights[present] = samples.sum() / (present.sum() * samples[present])
    return weights.astype(np.float32)
