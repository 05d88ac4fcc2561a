"""Layers that train as an int8 file will compute: numbers are rounded, gradients are not.

As LiteRT's quantization specification asks: weights per output channel, symmetric, 255 levels;
activations per tensor, 256 levels, of which zero is one.
Jacob et al., CVPR 2018, https://arxiv.org/abs/1712.05877, section 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_lightnets.layers import placement
from keras_lightnets.layers.depthwise_conv2d import DepthwiseConv2D
from keras_lightnets.layers.grouped_conv2d import GroupedConv2D
from keras_lightnets.layers.placement import tf

_register = keras.saving.register_keras_serializable(package="keras_lightnets")


@_register
class FakeQuantize(keras.layers.Layer):
    """Rounds tensors to 256 levels between the ends of a range that follows them in training.

    Several tensors share one range if the layer is called on each: as the inputs of a concatenation
    must. Each has its own moving ends, the range spans all of them. The ends are averages over
    batches of the mean over images of the smallest and of the largest value, so that replicas whose
    batches are equally large may average theirs. The gradient passes inside of the range.

    Args:
        members: Number of tensors.
        limits: The ends, if they are to stay what they are.
        momentum: Share of the old ends kept at each training step.

    Input and output: `(batch, ...)`, float32.
    """

    def __init__(
        self,
        members: int = 1,
        limits: Sequence[float] | None = None,
        momentum: float = 0.99,
        **options: Any,
    ) -> None:
        placement.need_tensorflow("A network trained for int8")
        super().__init__(**options)
        self.members = members
        self.limits = None if limits is None else tuple(limits)
        self.momentum = momentum
        if limits is None:
            self.moving_min, self.moving_max = (
                self.add_weight(shape=(members,), initializer="zeros", trainable=False, name=name)
                for name in ("moving_min", "moving_max")
            )

    def call(self, inputs: tf.Tensor, member: int = 0, training: bool | None = None) -> tf.Tensor:
        low, high = self.limits or (
            tf.reduce_min(tf.convert_to_tensor(self.moving_min)),
            tf.reduce_max(tf.convert_to_tensor(self.moving_max)),
        )
        outputs = tf.quantization.fake_quant_with_min_max_vars(inputs, low, high)
        if training and self.trainable and self.limits is None:
            share = (1.0 - self.momentum) * tf.one_hot(member, self.members)
            for moving, seen in zip((self.moving_min, self.moving_max), ends(inputs), strict=True):
                moving.assign_add(share * (seen - tf.convert_to_tensor(moving)))
        return outputs

    def compute_output_spec(self, inputs: keras.KerasTensor, **_: Any) -> keras.KerasTensor:
        return keras.KerasTensor(inputs.shape, inputs.dtype)

    def get_config(self) -> dict[str, Any]:
        own = {"members": self.members, "limits": self.limits, "momentum": self.momentum}
        return super().get_config() | own


def ends(x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The means over images of the smallest and of the largest value; zero lies between."""
    values = tf.reshape(tf.stop_gradient(x), (tf.shape(x)[0], -1))
    low, high = tf.reduce_min(values, 1), tf.reduce_max(values, 1)
    return tf.reduce_mean(tf.minimum(low, 0.0)), tf.reduce_mean(tf.maximum(high, 0.0))


class _RoundedKernel:
    """Mixin of a layer that computes with its kernel rounded to 255 levels per output channel."""

    scale_axes: tuple[int, ...]  # of the kernel, all but those of the output channels
    _kernel: Any

    @property
    def kernel(self) -> tf.Tensor:
        kernel = tf.convert_to_tensor(self._kernel)
        scale = tf.reduce_max(tf.abs(kernel), self.scale_axes, keepdims=True) / 127.0
        return _round(kernel, tf.stop_gradient(scale))

    @kernel.setter
    def kernel(self, variable: Any) -> None:
        self._kernel = variable


@keras.ops.custom_gradient
def _round(x: tf.Tensor, scale: tf.Tensor) -> Any:
    """`x` rounded to multiples of `scale`. The gradient is that of `x`."""
    return tf.round(tf.math.divide_no_nan(x, scale)) * scale, lambda upstream: (upstream, None)


@_register
class QuantizedConv2D(_RoundedKernel, GroupedConv2D):
    """`GroupedConv2D`, with groups or without, with rounded weights."""

    scale_axes = (0, 1, 2)


@_register
class QuantizedDepthwiseConv2D(_RoundedKernel, DepthwiseConv2D):
    """`DepthwiseConv2D` with rounded weights."""

    scale_axes = (0, 1)


@_register
class QuantizedDense(_RoundedKernel, keras.layers.Dense):
    """`keras.layers.Dense` with rounded weights."""

    scale_axes = (0,)


@_register
class QuantizedRescaling(keras.layers.Rescaling):
    """`keras.layers.Rescaling` of images as a depthwise convolution.

    That is one operation, and so has one range; a product and a sum would have two.
    """

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        channels = inputs.shape.with_rank(4)[-1]
        scale, offset = (
            tf.constant(np.broadcast_to(np.float32(value), (channels,)))
            for value in (self.scale, self.offset)
        )
        kernel = tf.reshape(scale, (1, 1, channels, 1))
        return tf.nn.depthwise_conv2d(inputs, kernel, (1, 1, 1, 1), "VALID") + offset
