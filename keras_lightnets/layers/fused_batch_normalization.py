"""Batch normalization by TensorFlow's fused operation."""

from __future__ import annotations

from typing import Any

import keras

from keras_lightnets.layers import placement, recomputation, synchronized, wide_channels
from keras_lightnets.layers.placement import tf

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
    Keras' own path: another axis, rank or dtype, a mask, `renorm=True`, and other backends.

    Some numbers of channels are slow on CPUs. Behind `GroupedConv2D(pad_filters=True)` the layer
    computes a few more: with its 58 and 116 channels ShuffleNet v2 trains 1.4 times as fast.

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
        by_batch = bool(training and self.trainable)
        if by_batch and self.synchronized:
            outputs = self._normalize_by_all_replicas(inputs)
        elif training and not by_batch and placement.deterministic():
            # On GPUs the gradient of the fused operation then raises an error.
            outputs = self._normalize_by(inputs, *self._moving())
        else:
            outputs = self._normalize(inputs, by_batch)
        return tf.cast(outputs, self.compute_dtype)

    def _can_fuse(self, inputs: tf.Tensor) -> bool:
        rank = len(inputs.shape)
        return (
            placement.TENSORFLOW
            and rank == 4
            and self.axis in (-1, rank - 1)
            and keras.backend.standardize_dtype(inputs.dtype) in _FUSED_DTYPES
            and not self.renorm
        )

    def _normalize(self, inputs: tf.Tensor, by_batch: bool) -> tf.Tensor:
        """Normalizes by the statistics of this batch, and updates the moving ones, or by those."""
        channels, x = inputs.shape.with_rank(4)[-1], wide_channels.widen(inputs)
        values = (*self._scale_offset(channels), *(() if by_batch else self._moving()))
        values = [wide_channels.fill_up(v, x.shape.with_rank(4)[-1]) for v in values]
        if not by_batch:
            return wide_channels.narrow(self._fused_op(x, *values).y, channels)
        fused = self._fused_op(x, *values, is_training=True)
        bessel = _undo_bessel(inputs)
        self._update_moving(fused.batch_mean[:channels], fused.batch_variance[:channels] * bessel)
        if recomputation.recomputes():
            values += [fused.batch_mean, fused.batch_variance * bessel]
            recomputation.remember(fused.y, lambda *v: self._fused_op(*v).y, (x, *values))
        return wide_channels.narrow(fused.y, channels)

    def _normalize_by_all_replicas(self, inputs: tf.Tensor) -> tf.Tensor:
        """Normalizes by the statistics of all replicas' batches, which must be equally large."""
        scale, offset = self._scale_offset(inputs.shape.with_rank(4)[-1])
        outputs, mean, variance = synchronized.normalize(
            self._fused_op, inputs, scale, offset, self.epsilon
        )
        self._update_moving(mean, variance)
        return outputs

    def _normalize_by(self, inputs: tf.Tensor, mean: tf.Tensor, variance: tf.Tensor) -> tf.Tensor:
        scale, offset = self._scale_offset(inputs.shape.with_rank(4)[-1])
        inputs = tf.cast(inputs, tf.float32)
        return tf.nn.batch_normalization(inputs, mean, variance, offset, scale, self.epsilon)

    def _moving(self) -> tuple[tf.Tensor, tf.Tensor]:
        return _float32(self.moving_mean), _float32(self.moving_variance)

    def _update_moving(self, mean: tf.Tensor, variance: tf.Tensor) -> None:
        for moving, batch in ((self.moving_mean, mean), (self.moving_variance, variance)):
            updated = _float32(moving) * self.momentum + batch * (1.0 - self.momentum)
            moving.assign(tf.cast(updated, moving.dtype))

    def _scale_offset(self, channels: int) -> tuple[tf.Tensor, tf.Tensor]:
        scale = _float32(self.gamma) if self.scale else tf.ones((channels,))
        return scale, _float32(self.beta) if self.center else tf.zeros((channels,))

    def _fused_op(
        self,
        x: tf.Tensor,
        scale: tf.Tensor,
        offset: tf.Tensor,
        mean: tf.Tensor | tuple = (),  # none in training
        variance: tf.Tensor | tuple = (),
        *,
        is_training: bool = False,
    ) -> Any:
        # The raw operation, because `tf.nn.fused_batch_norm` raises epsilon to 1.001e-5.
        return tf.raw_ops.FusedBatchNormV3(
            x=x,
            scale=scale,
            offset=offset,
            mean=mean,
            variance=variance,
            epsilon=self.epsilon,
            is_training=is_training,
        )


def _float32(variable: keras.Variable) -> tf.Tensor:
    return tf.cast(keras.ops.convert_to_tensor(variable), tf.float32)


def _undo_bessel(inputs: tf.Tensor) -> float | tf.Tensor:
    """`(n - 1) / n` for the `n` values of a channel.

    `FusedBatchNormV3` reports the variance times `n / (n - 1)`, and `n = 1` uncorrected.
    """
    if inputs.shape[:3].is_fully_defined():
        count = max(inputs.shape[:3].num_elements(), 1)
        return max(count - 1, 1) / count
    count = tf.cast(tf.reduce_prod(tf.shape(inputs)[:3]), tf.float32)
    count = tf.maximum(count, 1.0)
    return tf.maximum(count - 1.0, 1.0) / count
