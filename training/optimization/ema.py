"""Exponential moving average of the weights, evaluated and saved in their place."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import tensorflow as tf


class WeightAverage:
    """The average of trainable variables over the steps.

    As in `tf.train.ExponentialMovingAverage(num_updates=...)`, with which the MobileNets were
    trained, the decay starts low, `(1 + updates) / (10 + updates)`, so that a short run is
    not dominated by its initial weights. Batch-norm statistics are averages already.

    The average is never swapped into the trained model: it is copied to the model that is
    evaluated and saved, so that training cannot lose a bit by it.

    Attributes:
        variables: Float32 `tf.Variable`s, in the order of those averaged.
    """

    def __init__(self, averaged: Sequence[keras.Variable], decay: float):
        """Starts from the present values; call inside the scope of the strategy."""
        self.decay = decay
        self.variables = [
            tf.Variable(variable.value, trainable=False, name=f"average_{index}")
            for index, variable in enumerate(averaged)
        ]
        self._averaged = list(averaged)

    def update(self, updates: tf.Tensor, applied: tf.Tensor) -> None:
        """Takes the new weights in, in a replica; nothing happens unless `applied`.

        Args:
            updates: Steps taken before this one, int64 scalar.
            applied: Whether the step was applied (float16 may skip one), bool scalar.
        """
        count = tf.cast(updates, tf.float32)
        decay = tf.minimum(self.decay, (1.0 + count) / (10.0 + count))
        share = tf.where(applied, 1.0 - decay, 0.0)
        for average, variable in zip(self.variables, self._averaged, strict=True):
            average.assign_add(share * (variable.value - average))

    def by_path(self) -> dict[str, tf.Variable]:
        """Returns the average of each variable by its path."""
        pairs = zip(self._averaged, self.variables, strict=True)
        return {variable.path: average for variable, average in pairs}
