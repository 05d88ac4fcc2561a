"""Batch normalization by the statistics of all replicas, made of fused operations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from keras_lightnets.layers.placement import tf
from keras_lightnets.layers.replicas import mean_over_replicas


def normalize(
    fused: Callable[..., Any], x: tf.Tensor, scale: tf.Tensor, offset: tf.Tensor, epsilon: float
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Normalizes feature maps by mean and variance over the batches of all replicas.

    The fused operation gives the statistics of the own batch, and its gradient the sums that the
    gradient is made of: each in one pass over the maps. One sum over replicas makes those of all
    out of them. What they change is a multiple of `x` and a constant, in one more pass.

    Args:
        fused: `FusedBatchNormV3` with this epsilon: of `x`, `scale`, `offset` and, where
            `is_training` does not say so, `mean` and `variance`.
        x: Float32, bfloat16 or float16 `(batch, height, width, channels)`, of the same shape in
            all replicas.
        scale: Float32 `(channels,)`.
        offset: Float32 `(channels,)`.
        epsilon: Added to the variance.

    Returns:
        The normalized maps; mean and variance over all batches, float32 `(channels,)`, without a
        gradient. The variance is that of `n` values divided by `n`.
    """
    own = fused(tf.stop_gradient(x), tf.ones_like(scale), tf.zeros_like(offset), is_training=True)
    count = tf.cast(tf.reduce_prod(tf.shape(x)[:3]), tf.float32)
    # The operation reports the variance times n / (n - 1), and n = 1 uncorrected.
    own_variance = own.batch_variance * (tf.maximum(count - 1.0, 1.0) / count)
    moments = tf.stack([own.batch_mean, own_variance + tf.square(own.batch_mean)])
    mean, square = tf.unstack(mean_over_replicas(moments))
    variance = tf.maximum(square - tf.square(mean), 0.0)

    # What replicas have summed is an argument: TensorFlow's search for variables ends there.
    @tf.custom_gradient
    def attach(x, scale, offset, mean, variance) -> Any:
        def gradient(dy):
            own_factor, factor = (tf.math.rsqrt(v + epsilon) for v in (own_variance, variance))
            ratio, shift = factor / own_factor, (mean - own.batch_mean) * factor
            part = tf.raw_ops.FusedBatchNormGradV3(
                y_backprop=dy,
                x=x,
                scale=scale * ratio,
                reserve_space_1=own.reserve_space_1,
                reserve_space_2=own.reserve_space_2,
                reserve_space_3=own.reserve_space_3,
                epsilon=epsilon,
            )
            # Sums of dy, and of dy times what x is when normalized by all batches.
            by_all = part.scale_backprop * ratio - part.offset_backprop * shift
            sums = tf.stack([part.offset_backprop, by_all])
            # `part` took off the means of the own batch; those of all are to be.
            by_own = part.scale_backprop / ratio
            taken = tf.stack([part.offset_backprop + by_own * shift, by_own])
            constant, multiple = tf.unstack((taken - mean_over_replicas(sums)) / count)
            step = scale * factor
            moved = fused(x, step * multiple, step * constant, mean, variance).y
            return part.x_backprop + moved, by_all, part.offset_backprop, None, None

        return fused(x, scale, offset, mean, variance).y, gradient

    return attach(x, scale, offset, mean, variance), mean, variance
