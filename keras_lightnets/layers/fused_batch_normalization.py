"""Batch normalization by TensorFlow's fused operation."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from keras_lightnets.layers import recomputation, wide_channels
from keras_lightnets.layers.graphs import in_cpu_graph
from keras_lightnets.layers.replicas import mean_over_replicas

_FUSED_DTYPES = ("float32", "bfloat16", "float16")


@keras.saving.register_keras_serializable(package="keras_lightnets")
class FusedBatchNormalization(keras.layers.BatchNormalization):
    """`keras.layers.BatchNormalization` computed by one operation instead of a dozen.

    A drop-in replacement: same arguments, config, weights and numbers (a `.weights.h5` file names
    layers by their class, so weights move between the two by `set_weights`). Keras 3 computes the
    moments, the normalization and their gradients by separate operations, which read and write
    the whole feature map each time; on a CPU they take more than half of a light network's
    training step. This layer calls `FusedBatchNormV3` in training and in inference.

    Inputs of rank 4, normalized over the last axis, in float32, bfloat16 or float16 take the
    fused path (statistics and scale are always float32). With `synchronized=True` the statistics
    of training span the replicas, whose batches must be equally large. Everything else takes
    Keras' own path: another axis, rank or dtype, a mask, and `renorm=True`.

    In training, in a graph on a CPU, a number of channels that oneDNN is slow for is brought up to
    the next multiple of 16 where the convolutions before can do so (`wide_channels.widen`): with
    58 and 116 channels ShuffleNet v2 trains 1.4 times as fast. The gradient of what is between
    such a convolution and the batch norm is then not to be had.

    The fused operation reports the variance with Bessel's correction, `n / (n - 1)`. The moving
    variance here is kept without it, as in Keras: the mean of the batches' own variances.

    Second derivatives in training are those of finite differences. Keras' differ, here too where
    its own path is taken: its variance lets no gradient through the mean, which is right once
    only.

    Ioffe and Szegedy, ICML 2015, https://arxiv.org/abs/1502.03167.
    """

    def call(
        self, inputs: tf.Tensor, training: bool | None = None, mask: Any | None = None
    ) -> tf.Tensor:
        if mask is not None or not self._can_fuse(inputs):
            return super().call(inputs, training=training, mask=mask)
        if training and self.trainable:
            outputs = (
                self._normalize_by_all_replicas(inputs)
                if self.synchronized
                else self._normalize_by_batch(inputs)
            )
        else:
            outputs = self._fused_op(
                inputs,
                mean=_float32(self.moving_mean),
                variance=_float32(self.moving_variance),
                is_training=False,
            ).y
        return tf.cast(outputs, self.compute_dtype)

    def _can_fuse(self, inputs: tf.Tensor) -> bool:
        rank = len(inputs.shape)
        return (
            rank == 4
            and self.axis in (-1, rank - 1)
            and keras.backend.standardize_dtype(inputs.dtype) in _FUSED_DTYPES
            and not self.renorm
        )

    def _normalize_by_batch(self, inputs: tf.Tensor) -> tf.Tensor:
        """Normalizes by the statistics of this batch and updates the moving ones."""
        wide = _widen(inputs)
        channels = inputs.shape[-1]
        nothing = tf.zeros((0,))  # the operation wants empty statistics in training
        fused = self._fused_op(
            inputs if wide is None else wide, mean=nothing, variance=nothing, is_training=True
        )
        self._update_moving(
            fused.batch_mean[:channels],
            fused.batch_variance[:channels] * recomputation.undo_bessel(inputs),
        )
        return fused.y if wide is None else wide_channels.narrow(fused.y, channels)

    def _normalize_by_all_replicas(self, inputs: tf.Tensor) -> tf.Tensor:
        """Normalizes by the statistics of all replicas' batches, which must be equally large."""
        inputs = tf.cast(inputs, tf.float32)
        moments = tf.stack([tf.reduce_mean(x, (0, 1, 2)) for x in (inputs, tf.square(inputs))])
        mean, square = tf.unstack(mean_over_replicas(moments))
        variance = tf.maximum(square - tf.square(mean), 0.0)
        self._update_moving(mean, variance)
        return tf.nn.batch_normalization(
            inputs,
            mean,
            variance,
            _float32(self.beta) if self.center else None,
            _float32(self.gamma) if self.scale else None,
            self.epsilon,
        )

    def _update_moving(self, mean: tf.Tensor, variance: tf.Tensor) -> None:
        for moving, batch in ((self.moving_mean, mean), (self.moving_variance, variance)):
            updated = _float32(moving) * self.momentum + batch * (1.0 - self.momentum)
            moving.assign(tf.cast(updated, moving.dtype))

    def _fused_op(
        self, inputs: tf.Tensor, *, mean: tf.Tensor, variance: tf.Tensor, is_training: bool
    ) -> Any:
        channels = inputs.shape[-1]
        scale = _float32(self.gamma) if self.scale else tf.ones((channels,))
        offset = _float32(self.beta) if self.center else tf.zeros((channels,))
        # The raw operation, because `tf.nn.fused_batch_norm` raises epsilon to 1.001e-5.
        return tf.raw_ops.FusedBatchNormV3(
            x=inputs,
            scale=wide_channels.fill_up(scale, channels),
            offset=wide_channels.fill_up(offset, channels),
            mean=mean,
            variance=variance,
            epsilon=self.epsilon,
            is_training=is_training,
        )


def _float32(variable: keras.Variable) -> tf.Tensor:
    return tf.cast(keras.ops.convert_to_tensor(variable), tf.float32)


def _widen(inputs: tf.Tensor) -> tf.Tensor | None:
    """The same with more channels, where that is the faster way: on CPUs, in a graph."""
    if not in_cpu_graph(inputs) or recomputation.recomputes():
        return None
    return wide_channels.widen(inputs)
