"""Learning rate over time: a pure function of the optimizer step.

A schedule has no state, so a resumed run is at the right rate as soon as the optimizer's step
counter is restored, and the counter may start anywhere.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from lightnets.config.keys import OptimizerConfig


class Schedule(keras.optimizers.schedules.LearningRateSchedule):
    """Linear warm-up, then a decay that counts its steps from the end of the warm-up.

    With `t` the steps since the warm-up, `T` all steps after it and `d` the steps of
    `decay_epochs`, the rate is its peak times

    * constant: 1
    * linear: `1 - (1 - end_rate) t / T`
    * cosine: `end_rate + (1 - end_rate) (1 + cos(pi t / T)) / 2`
    * polynomial: `end_rate + (1 - end_rate) (1 - t / T) ** power`
    * exponential: `decay_rate ** (t / d)`
    * step: `decay_rate ** floor(t / d)`

    Those that use `T` stay at `end_rate` afterwards. In the warm-up the factor grows linearly
    from `warmup_start` at step 0 to 1 at its end.

    Where `extensions` has an entry it begins anew at that epoch: without warm-up, from the rate
    there, over the epochs up to the next entry or to the end.

    Attributes:
        peak: The rate at the end of the warm-up.
    """

    def __init__(
        self, options: OptimizerConfig, steps_per_epoch: int, epochs: int, global_batch: int
    ) -> None:
        """Counts in steps what the configuration counts in epochs.

        Args:
            options: Kind, peak rate, warm-up and decay.
            steps_per_epoch: Optimizer steps in an epoch.
            epochs: Length of the run, where linear, cosine and polynomial decay end.
            global_batch: Examples in an optimizer step, over all replicas and accumulated
                parts. With `scale_to_batch` the rate is multiplied by
                `global_batch / scale_to_batch` (Goyal et al., https://arxiv.org/abs/1706.02677).
        """
        scale = global_batch / options.scale_to_batch if options.scale_to_batch else 1.0
        self._options = options
        self.peak = options.learning_rate * scale
        self._warmup = round(options.warmup_epochs * steps_per_epoch)
        self._decay_steps = max(1, round(options.decay_epochs * steps_per_epoch))
        begins = sorted((int(after), rate) for after, rate in options.extensions.items())
        first, *others = (*(after for after, _ in begins), epochs)
        self._steps_to_end = max(1, first * steps_per_epoch - self._warmup)
        # Of each extension: its first step, its steps and its rate.
        self._extensions = [
            (after * steps_per_epoch, (end - after) * steps_per_epoch, rate * scale)
            for (after, rate), end in zip(begins, others, strict=True)
        ]

    def __call__(self, step: Any) -> tf.Tensor:
        """Returns the float32 rate of a step (an int or an integer tensor), counted from 0."""
        # float32 holds whole numbers up to 2**24 exactly, three times the longest published run.
        step = tf.cast(step, tf.float32)
        factor = self._decay(tf.maximum(step - self._warmup, 0.0), self._steps_to_end)
        if self._warmup:
            start = self._options.warmup_start
            warmup = start + (1.0 - start) * step / self._warmup
            factor = tf.where(step < self._warmup, warmup, factor)
        rate = self.peak * factor
        for first, steps, peak in self._extensions:
            decay = self._decay(tf.maximum(step - first, 0.0), steps)
            rate = tf.where(step < first, rate, peak * decay)
        return rate

    def _decay(self, t: tf.Tensor, steps: int) -> tf.Tensor:
        options = self._options
        if options.schedule == "constant":
            return tf.ones_like(t)
        if options.schedule == "exponential":
            return tf.pow(options.decay_rate, t / self._decay_steps)
        if options.schedule == "step":
            return options.decay_rate ** tf.floor(t / self._decay_steps)
        done = tf.minimum(t / steps, 1.0)
        if options.schedule == "cosine":
            # (1 + cos x) / 2, without the cancellation near the end
            left = tf.cos(0.5 * np.pi * done) ** 2
        else:
            left = (1.0 - done) ** (options.power if options.schedule == "polynomial" else 1.0)
        return options.end_rate + (1.0 - options.end_rate) * left
