"""Building blocks, tensor -> tensor, used by two or more networks.

This module alone decides on padding, batch-norm constants, grouping, initialization and
width rounding. Layers are named `<role>_conv`, `<role>_bn`, `<role>_act`, ...; the names
are part of the interface, since weights are mapped by them.

Padding: a 3x3 window with stride 2 is padded by one pixel on both sides, as in PyTorch
and the networks' public weights. Keras' `"same"` would pad only the bottom and the right
of an even-sized image: same shapes, other numbers. `padding="same"` asks for that, for
weights that were trained with it.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import keras

from keras_lightnets.layers.activation import Activation
from keras_lightnets.layers.depthwise_conv2d import DepthwiseConv2D
from keras_lightnets.layers.fused_batch_normalization import FusedBatchNormalization
from keras_lightnets.layers.grouped_conv2d import GroupedConv2D

Pads = tuple[tuple[int, int], tuple[int, int]]


class Norm(NamedTuple):
    """Constants of batch normalization."""

    momentum: float = 0.9
    epsilon: float = 1e-5


class Strides:
    """Turns strides into dilations once `output_stride` is reached.

    The unit that loses its stride keeps the dilation of the units before it, the units
    behind it are dilated twice as much: then every kept value sees the same pixels as in
    the strided network (arXiv 1606.00915, section 3.1).
    """

    def __init__(self, output_stride: int) -> None:
        self.limit = output_stride
        self.total = 1
        self.dilation = 1

    def next(self, strides: int) -> tuple[int, int]:
        """Returns `(strides, dilation)` of the next layer, whose nominal stride is given."""
        dilation = self.dilation
        if self.total * strides > self.limit:
            self.dilation *= strides
            return 1, dilation
        self.total *= strides
        return strides, dilation


def make_divisible(value: float, divisor: int = 8) -> int:
    """Rounds a channel count to a multiple of `divisor`, by at most ten percent down.

    The rule of the MobileNet v2 authors' code; `divisor=1` truncates.
    """
    if divisor == 1:
        return max(1, int(value))
    rounded = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * value else rounded


def conv_bn(
    x: keras.KerasTensor,
    filters: int,
    kernel_size: int = 1,
    *,
    strides: int = 1,
    groups: int = 1,
    activation: str | None = "relu",
    padding: str = "symmetric",
    norm: Norm,
    name: str,
) -> keras.KerasTensor:
    """Convolution without bias, batch normalization, activation."""
    x, padding = _pad(x, kernel_size, strides, name, padding)
    # Keras' own grouped convolution is compiled by XLA, which then also sits in every SavedModel;
    # its 1x1 convolutions train more slowly: MobileNet v2 as a whole by a factor of 1.1. For some
    # numbers of filters the batch norm behind is slow, hence `pad_filters`.
    own = groups > 1 or kernel_size == 1
    conv = partial(GroupedConv2D, pad_filters=True) if own else keras.layers.Conv2D
    x = conv(
        filters,
        kernel_size,
        strides=strides,
        padding=padding,
        use_bias=False,
        kernel_initializer="he_normal",
        groups=groups,
        name=f"{name}_conv",
    )(x)
    return _norm_activation(x, activation, norm, name)


def depthwise_bn(
    x: keras.KerasTensor,
    *,
    strides: int = 1,
    dilation: int = 1,
    activation: str | None = None,
    padding: str = "symmetric",
    norm: Norm | None,
    name: str,
) -> keras.KerasTensor:
    """3x3 depthwise convolution without bias, batch normalization, activation.

    `norm=None` leaves out both of the latter.
    """
    pads = _pads(x, 3, strides, padding)
    x = DepthwiseConv2D(
        3,
        strides=strides,
        padding=pads or "same",
        dilation_rate=dilation,
        use_bias=False,
        # Keras counts the fan-in of a depthwise kernel as if channels were mixed; its
        # "fan-out" is the nine inputs that each output really has.
        depthwise_initializer=keras.initializers.VarianceScaling(2.0, "fan_out"),
        name=f"{name}_conv",
    )(x)
    return x if norm is None else _norm_activation(x, activation, norm, name)


def batch_norm(x: keras.KerasTensor, norm: Norm, name: str) -> keras.KerasTensor:
    """Batch normalization by the fused operation."""
    return FusedBatchNormalization(momentum=norm.momentum, epsilon=norm.epsilon, name=f"{name}_bn")(
        x
    )


def activate(x: keras.KerasTensor, activation: str, name: str) -> keras.KerasTensor:
    """Activation by name."""
    return Activation(activation, name=f"{name}_act")(x)


def max_pool(x: keras.KerasTensor, *, strides: int = 2, name: str) -> keras.KerasTensor:
    """3x3 maximum, padded by one pixel on both sides. Needs inputs >= 0, i.e. after a ReLU."""
    x, padding = _pad(x, 3, strides, name)
    return keras.layers.MaxPooling2D(3, strides, padding, name=name)(x)


def ceil_max_pool(x: keras.KerasTensor, *, strides: int = 2, name: str) -> keras.KerasTensor:
    """3x3 maximum without padding, but with a last window that may stick out (Caffe).

    Needs inputs >= 0, i.e. after a ReLU.
    """
    sizes = x.shape[1:3]
    if strides == 2 and None not in sizes and len({size % 2 for size in sizes}) == 1:
        # Odd sizes: windows fit. Even sizes: "same" adds the one missing pixel at the end.
        padding = "valid" if sizes[0] % 2 else "same"
    else:
        # One pixel is ignored where it is not needed. With stride 1 all windows start
        # where they do with stride 2, hence two.
        end = 3 - strides
        x = keras.layers.ZeroPadding2D(((0, end), (0, end)), name=f"{name}_pad")(x)
        padding = "valid"
    return keras.layers.MaxPooling2D(3, strides, padding, name=name)(x)


def average_pool(x: keras.KerasTensor, *, strides: int = 2, name: str) -> keras.KerasTensor:
    """3x3 mean, padded by one pixel of zeros on both sides that count in the mean."""
    x = keras.layers.ZeroPadding2D(1, name=f"{name}_pad")(x)
    return keras.layers.AveragePooling2D(3, strides, "valid", name=name)(x)


def squeeze_excite(x: keras.KerasTensor, units: int, name: str) -> keras.KerasTensor:
    """Scales each channel by a gate computed from all channels' means (arXiv 1709.01507)."""
    channels = x.shape[-1]
    gate = keras.layers.GlobalAveragePooling2D(name=f"{name}_pool")(x)
    gate = keras.layers.Dense(
        units, activation="relu", kernel_initializer="he_normal", name=f"{name}_reduce"
    )(gate)
    gate = keras.layers.Dense(channels, activation="sigmoid", name=f"{name}_expand")(gate)
    gate = keras.layers.Reshape((1, 1, channels), name=f"{name}_reshape")(gate)
    return keras.layers.Multiply(name=f"{name}_scale")([x, gate])


def _pad(
    x: keras.KerasTensor, kernel_size: int, strides: int, name: str, padding: str = "symmetric"
) -> tuple[keras.KerasTensor, str]:
    """Returns the input and the Keras padding that together pad as `padding` says."""
    if kernel_size == 1:
        return x, "valid"
    pads = _pads(x, kernel_size, strides, padding)
    if pads is None:
        return x, "same"
    return keras.layers.ZeroPadding2D(pads, name=f"{name}_pad")(x), "valid"


def _pads(x: keras.KerasTensor, kernel_size: int, strides: int, padding: str) -> Pads | None:
    """Pixels to add above, below, left and right; None where they are those of Keras' "same".

    `"symmetric"`: one pixel on every side. `"same"`: TensorFlow's rule. `"end"`: one pixel at
    the bottom and the right, whatever the size; the same as `"same"` where the size is even.
    """
    sizes = x.shape[1:3]
    odd = all(size is not None and size % 2 for size in sizes)
    even = all(size is not None and size % 2 == 0 for size in sizes)
    if strides == 1 or padding == "same" or (odd if padding == "symmetric" else even):
        return None
    before, after = (0, 1) if padding == "end" else (kernel_size // 2,) * 2
    return ((before, after), (before, after))


def _norm_activation(
    x: keras.KerasTensor, activation: str | None, norm: Norm, name: str
) -> keras.KerasTensor:
    x = batch_norm(x, norm, name)
    return x if activation is None else activate(x, activation, name)
