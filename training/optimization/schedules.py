"""Learning-rate schedules: pure functions of the optimizer step.

A schedule has no state, so a resumed run is at the right rate as soon as the optimizer's step
counter is restored, and the counter may start anywhere.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from lightnets.config.keys import OptimizerConfig

# The kinds that end at a given step; the others decay for as long as they are asked.
_ENDING = ("linear", "cosine", "polynomial")
_KINDS = ("constant", *_ENDING, "exponential", "step")


def build(
    config: OptimizerConfig, steps_per_epoch: int, epochs: int, global_batch: int
) -> Schedule:
    """Returns the schedule of a run.

    Args:
        config: Kind, peak rate, warm-up and decay; lengths are in epochs.
        steps_per_epoch: Optimizer steps in an epoch.
        epochs: Length of the run; where linear, cosine and polynomial decay end.
        global_batch: Examples in an optimizer step, over all replicas and accumulated parts.
            With `config.scale_to_batch` the rate is multiplied by
            `global_batch / scale_to_batch` (Goyal et al., https://arxiv.org/abs/1706.02677).
    """
    scale = global_batch / config.scale_to_batch if config.scale_to_batch else 1.0
    return Schedule(
        config.schedule,
        config.learning_rate * scale,
        total_steps=epochs * steps_per_epoch,
        warmup_steps=round(config.warmup_epochs * steps_per_epoch),
        warmup_start=config.warmup_start,
        end_rate=config.end_rate,
        power=config.power,
        decay_rate=config.decay_rate,
        decay_steps=max(1, round(config.decay_epochs * steps_per_epoch)),
    )


@keras.saving.register_keras_serializable(package="lightnets")
class Schedule(keras.optimizers.schedules.LearningRateSchedule):
    """Linear warm-up, then a decay that counts its steps from the end of the warm-up.

    With `t` the steps since the warm-up and `T = total_steps - warmup_steps`, the rate is `peak`
    times

    * constant: 1
    * linear: `1 - (1 - end_rate) t / T`
    * cosine: `end_rate + (1 - end_rate) (1 + cos(pi t / T)) / 2`
    * polynomial: `end_rate + (1 - end_rate) (1 - t / T) ** power`
    * exponential: `decay_rate ** (t / decay_steps)`
    * step: `decay_rate ** floor(t / decay_steps)`

    Those that use `T` stay at `end_rate` afterwards. In the warm-up the factor grows
    linearly from `warmup_start` at step 0 to 1 at step `warmup_steps`.

    Args:
        kind: One of the names above.
        peak: Learning rate at the end of the warm-up.
        total_steps: Optimizer steps of the run.
        warmup_steps: Steps of the warm-up, within `total_steps`.
        warmup_start: Share of `peak` at step 0.
        end_rate: Share of `peak` at the end, for linear, cosine and polynomial.
        power: Exponent, for polynomial.
        decay_rate: Factor, for exponential and step.
        decay_steps: Steps between two such factors.
    """

    def __init__(
        self,
        kind: str,
        peak: float,
        *,
        total_steps: int,
        warmup_steps: int = 0,
        warmup_start: float = 0.0,
        end_rate: float = 0.0,
        power: float = 1.0,
        decay_rate: float = 0.98,
        decay_steps: int = 1,
    ) -> None:
        if kind not in _KINDS:
            raise ValueError(f"`kind` must be one of {', '.join(_KINDS)}. Received: {kind!r}")
        if kind in _ENDING and warmup_steps >= total_steps:
            raise ValueError(
                f"The warm-up (={warmup_steps} steps) must be shorter than the run "
                f"(={total_steps} steps), or nothing is left to decay."
            )
        self.kind = kind
        self.peak = peak
        self.total_steps = total_steps
        self.warmup_steps = warmup_steps
        self.warmup_start = warmup_start
        self.end_rate = end_rate
        self.power = power
        self.decay_rate = decay_rate
        self.decay_steps = decay_steps

    def __call__(self, step: Any) -> tf.Tensor:
        """Returns the float32 rate of a step (an int or an integer tensor), counted from 0."""
        # float32 holds whole numbers up to 2**24 exactly, three times the longest published run.
        step = tf.cast(step, tf.float32)
        factor = self._decay(tf.maximum(step - self.warmup_steps, 0.0))
        if self.warmup_steps:
            start = self.warmup_start
            warmup = start + (1.0 - start) * step / self.warmup_steps
            factor = tf.where(step < self.warmup_steps, warmup, factor)
        return self.peak * factor

    def _decay(self, t: tf.Tensor) -> tf.Tensor:
        if self.kind == "constant":
            return tf.ones_like(t)
        if self.kind == "exponential":
            return tf.pow(self.decay_rate, t / self.decay_steps)
        if self.kind == "step":
            return self.decay_rate ** tf.floor(t / self.decay_steps)
        done = tf.minimum(t / (self.total_steps - self.warmup_steps), 1.0)
        if self.kind == "cosine":
            # (1 + cos x) / 2, without the cancellation near the end
            left = tf.cos(0.5 * np.pi * done) ** 2
        else:
            left = (1.0 - done) ** (self.power if self.kind == "polynomial" else 1.0)
        return self.end_rate + (1.0 - self.end_rate) * left

    def get_config(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "peak": self.peak,
            "total_steps": self.total_steps,
            "warmup_steps": self.warmup_steps,
            "warmup_start": self.warmup_start,
            "end_rate": self.end_rate,
            "power": self.power,
            "decay_rate": self.decay_rate,
            "decay_steps": self.decay_steps,
        }
