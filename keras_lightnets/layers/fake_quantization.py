"""Layers that train as an int8 file will compute: numbers are rounded, gradients are not.

As LiteRT's quantization specification asks: weights per output channel, symmetric, 255 levels;
activations per tensor, 256 levels, of which zero is one; biases in steps of the product of both.
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

_DEVIATIONS = 2  # 1 to 3 were alike on digits; without, int8 parted from float 4 to 8 dB earlier
# Of a step. A mean of n levels lies between two of them or is at least a half of 1/n away.
_TIE = 1e-3
_register = keras.saving.register_keras_serializable(package="keras_lightnets")


@_register
class FakeQuantize(keras.layers.Layer):
    """Rounds tensors to 256 levels between the ends of a range that follows them in training.

    Several tensors share one range if the layer is called on each: as the inputs of a concatenation
    must. Each has its own moving ends, the range spans all of them. An end is the mean over images
    of the smallest or largest value and twice its standard deviation: at the mean alone half of the
    images would be clipped. Both moments are averages over images and batches, so that replicas
    whose batches are equally large may average theirs. The gradient passes inside of the range.

    Args:
        members: Number of tensors.
        limits: The ends, if they are to stay what they are.
        momentum: Share of the old ends kept at each training step.

    Input and output: `(batch, ...)`, float32. With `member=None` the output is what lies between
    two levels, `()`. `mean` says that the input is a mean of levels, of so many if that is known.
    One right between two goes where LiteRT has it: the mean of all pixels, by XNNPACK, to the even
    one, that of a window away from the middle of the range.
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
            self.moments = [
                self.add_weight(shape=(members,), initializer="zeros", trainable=False, name=name)
                for name in ("min", "max", "min_variance", "max_variance")
            ]

    def call(
        self,
        inputs: tf.Tensor,
        member: int | None = 0,
        mean: bool | int = False,
        training: bool | None = None,
    ) -> tf.Tensor:
        low, high = self.ends()
        # As the file has it: a difference of float32 may be off by its last bit.
        step = tf.cast((tf.cast(high, tf.float64) - tf.cast(low, tf.float64)) / 255, tf.float32)
        if member is None:
            return step
        if mean:
            zero = tf.round(-low / step) - 128.0  # the level of 0 in int8
            exact = inputs / step + zero
            if mean is True:
                exact += _TIE * tf.sign(exact)
            else:
                exact = tf.round(tf.round(exact * mean) * (1.0 / mean))
            inputs += tf.stop_gradient((exact - zero) * step - inputs)
        outputs = tf.quantization.fake_quant_with_min_max_vars(inputs, low, high)
        if training and self.trainable and self.limits is None:
            share = (1.0 - self.momentum) * tf.one_hot(member, self.members)
            means = [tf.convert_to_tensor(mean)[member] for mean in self.moments[:2]]
            for moving, seen in zip(self.moments, moments(inputs, means), strict=True):
                moving.assign_add(share * (seen - tf.convert_to_tensor(moving)))
        return outputs

    def ends(self) -> tuple[Any, Any]:
        """The ends of the range, numbers or tensors `()`."""
        if self.limits is not None:
            low, high = self.limits
            return low, high
        low, high, below, above = (tf.convert_to_tensor(moment) for moment in self.moments)
        return (
            tf.reduce_min(low - _DEVIATIONS * tf.sqrt(below)),
            tf.reduce_max(high + _DEVIATIONS * tf.sqrt(above)),
        )

    def compute_output_spec(
        self, inputs: keras.KerasTensor, member: int | None = 0, **_: Any
    ) -> keras.KerasTensor:
        return keras.KerasTensor(() if member is None else inputs.shape, inputs.dtype)

    def get_config(self) -> dict[str, Any]:
        own = {"members": self.members, "limits": self.limits, "momentum": self.momentum}
        return super().get_config() | own


def moments(x: tf.Tensor, means: Sequence[Any] = (0.0, 0.0)) -> list[tf.Tensor]:
    """The means over images of the smallest and of the largest value; zero lies between.

    Then the means of their squared distances to `means`.
    """
    values = tf.reshape(tf.stop_gradient(x), (tf.shape(x)[0], -1))
    both = tf.minimum(tf.reduce_min(values, 1), 0.0), tf.maximum(tf.reduce_max(values, 1), 0.0)
    distances = (each - mean for each, mean in zip(both, means, strict=True))
    return [*map(tf.reduce_mean, both), *(tf.reduce_mean(each**2) for each in distances)]


class _Rounded:
    """Mixin of a layer that computes with rounded weights.

    Its kernel has 255 levels per output channel. Its bias is a multiple of that step and of `step`,
    which lies between two levels of the input: as whole numbers both are added up. Outside of
    training they are whole numbers here, too, and their sum is exact; it is scaled and rounded as
    XNNPACK does, LiteRT's library. In training a sum is off by its last bits, so that one in
    100,000 may be rounded to the other level; nothing is divided, which takes time.

    Call arguments: `step` and `out`, what lies between two levels of the input and of the range in
    which the output will be rounded, `()`.
    """

    scale_axes: tuple[int, ...]  # of the kernel, all but those of the output channels
    _kernel: Any
    _bias: Any
    # While the layer is called.
    _step: tf.Tensor | None = None
    _whole = False

    def call(
        self,
        inputs: tf.Tensor,
        step: tf.Tensor | None = None,
        out: tf.Tensor | None = None,
        training: bool | None = None,
    ) -> tf.Tensor:
        self._step = step
        try:
            if step is None or out is None or training:
                return super().call(inputs, training=training)  # type: ignore[misc]
            self._whole = True
            sums = super().call(_levels(inputs, step))  # type: ignore[misc]
            return _levels(sums * (self._scales() * step / out), 1.0) * out
        finally:
            self._step, self._whole = None, False

    @property
    def kernel(self) -> tf.Tensor:
        scale = self._scale()
        levels = _levels(tf.convert_to_tensor(self._kernel), scale)
        return levels if self._whole else levels * scale

    @kernel.setter
    def kernel(self, variable: Any) -> None:
        self._kernel = variable

    @property
    def bias(self) -> Any:
        if self._step is None or self._bias is None:
            return self._bias
        scale = self._scales() * self._step
        levels = _levels(tf.convert_to_tensor(self._bias), scale)
        return levels if self._whole else levels * scale

    @bias.setter
    def bias(self, variable: Any) -> None:
        self._bias = variable

    def _scale(self) -> tf.Tensor:
        """The step of the kernel, as that is shaped.

        Of 8 bits, so that multiples are exact and the file, which has the largest weight over 127,
        has the same one.
        """
        largest = tf.reduce_max(
            tf.abs(tf.convert_to_tensor(self._kernel)), self.scale_axes, keepdims=True
        )
        return tf.stop_gradient(tf.cast(tf.cast(largest / 127.0, tf.bfloat16), tf.float32))

    def _scales(self) -> tf.Tensor:
        """The same `(filters,)`."""
        return tf.reshape(self._scale(), [-1])


@keras.ops.custom_gradient
def _levels(x: tf.Tensor, scale: Any) -> Any:
    """`x / scale`, rounded to whole numbers. The gradient is as if it was not rounded."""
    scale = tf.cast(scale, x.dtype)

    def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, None]:
        return tf.math.divide_no_nan(upstream, scale), None

    return tf.round(tf.math.divide_no_nan(x, scale)), gradient


@_register
class QuantizedConv2D(_Rounded, GroupedConv2D):
    """`GroupedConv2D`, with groups or without, with rounded weights."""

    scale_axes = (0, 1, 2)


@_register
class QuantizedDepthwiseConv2D(_Rounded, DepthwiseConv2D):
    """`DepthwiseConv2D` with rounded weights."""

    scale_axes = (0, 1)


@_register
class QuantizedDense(_Rounded, keras.layers.Dense):
    """`keras.layers.Dense` with rounded weights."""

    scale_axes = (0,)


@_register
class QuantizedAdd(keras.layers.Add):
    """`keras.layers.Add` of two tensors with the ratios of XNNPACK, of 21 bits.

    Call arguments: `step`, what lies between two levels of each, and `out`, as `QuantizedConv2D`.
    """

    def call(
        self,
        inputs: Sequence[tf.Tensor],
        step: Sequence[tf.Tensor] = (),
        out: tf.Tensor | None = None,
        training: bool | None = None,
    ) -> tf.Tensor:
        if out is None or training or len(inputs) != 2:
            return super().call(inputs)
        ratios = tf.cast(tf.stack(step) / out, tf.float64)
        unit = 2.0 ** (tf.floor(tf.math.log(tf.reduce_max(ratios)) / np.log(2)) - 20)
        levels = (tf.cast(_levels(*each), tf.float64) for each in zip(inputs, step, strict=True))
        terms = zip(levels, tf.unstack(tf.round(ratios / unit) * unit), strict=True)
        sums = tf.add_n([level * ratio for level, ratio in terms])
        return tf.cast(_levels(sums, 1.0), tf.float32) * out

    def compute_output_spec(self, inputs: Sequence[Any], **_: Any) -> keras.KerasTensor:
        return super().compute_output_spec(inputs)


@_register
class QuantizedRescaling(keras.layers.Rescaling):
    """`keras.layers.Rescaling` of images as a depthwise convolution.

    That is one operation, and so has one range; a product and a sum would have two.

    Call arguments: `step` and `out`, as of `QuantizedConv2D`.
    """

    def call(
        self, inputs: tf.Tensor, step: tf.Tensor | None = None, out: tf.Tensor | None = None
    ) -> tf.Tensor:
        channels = inputs.shape.with_rank(4)[-1]
        scale, offset = (
            tf.constant(np.broadcast_to(np.float32(value), (channels,)))
            for value in (self.scale, self.offset)
        )
        if step is not None:
            unit = tf.abs(scale) / 127.0 * step
            levels = _levels(offset, unit)
            if out is not None:
                sums = _levels(inputs, step) * (127.0 * tf.sign(scale)) + levels
                return _levels(sums * (unit / out), 1.0) * out
            offset = levels * unit
        kernel = tf.reshape(scale, (1, 1, channels, 1))
        return tf.nn.depthwise_conv2d(inputs, kernel, (1, 1, 1, 1), "VALID") + offset
