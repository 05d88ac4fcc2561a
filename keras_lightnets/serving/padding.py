"""Padding becomes part of the operation behind it, for inference."""

from __future__ import annotations

from collections import Counter
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from keras_lightnets.folding import as_functional, calls_of, only_pairs, rewrite
from keras_lightnets.layers import (
    ChannelShuffle,
    ChannelSplit,
    DepthwiseConv2D,
    FusedBatchNormalization,
    GroupedConv2D,
)

# Exact classes only: what a subclass computes is not known.
_CONVOLUTIONS = (
    GroupedConv2D,
    DepthwiseConv2D,
    keras.layers.Conv2D,
    keras.layers.DepthwiseConv2D,
)
RELUS = (keras.activations.relu, keras.activations.relu6)
_POOLS = (keras.layers.AveragePooling2D, keras.layers.MaxPooling2D)
# Those that do the same to every pixel (the second only along the channels) and those that do not
# see the order of the pixels: they may be given a turned feature map.
_PER_PIXEL = (
    keras.layers.Activation,
    keras.layers.Add,
    keras.layers.Dropout,
    keras.layers.Multiply,
    keras.layers.ReLU,
    keras.layers.Rescaling,
    ChannelShuffle,
    ChannelSplit,
)
_ALONG_CHANNELS = (
    keras.layers.BatchNormalization,
    keras.layers.Concatenate,
    FusedBatchNormalization,
)
_GLOBAL = (keras.layers.GlobalAveragePooling2D, keras.layers.GlobalMaxPooling2D)


def merge_padding(model: keras.Model) -> keras.Model:
    """Returns a copy of `model` without the zero padding before convolutions and pooling.

    An operation that pads copies its whole input: at 224 pixels, four of them take up to a tenth
    of the time of MobileNet v2. TensorFlow's own "SAME" padding costs nothing, but puts the odd
    pixel of an even size at the bottom and the right, while a pixel on every side is needed at
    the top and the left only. If the image is turned by half a turn, and every kernel with it,
    "SAME" is right, and the features behind a global pooling are the same. (Explicit padding is
    no way out: `tf.nn.depthwise_conv2d` aborts the process with it in a Session.)

    Merged: a `ZeroPadding2D` with static sizes, whose only user, without padding of its own, is a
    convolution (plain, grouped or depthwise), a maximum pooling of what a ReLU gives, or an
    average pooling, which becomes a depthwise convolution. Others are left alone. The image is
    turned only where that merges all of them and no operation would notice.

    Args:
        model: A built functional or sequential model.

    Raises:
        ValueError: The model is neither functional nor sequential, or has no weights yet.
    """
    model = as_functional(model)
    windows = _windows(model)
    merged = {window.layer.name: window.own_padding() for window in windows if window.padding}
    turn = None in merged.values() and _may_turn(model, windows)
    if turn:
        merged = {window.layer.name: window.turned().own_padding() for window in windows}
    padding_of = {name: padding for name, padding in merged.items() if padding}
    merges = {w.layer.name: w.padding.name for w in windows if w.padding}
    skip = {padding for name, padding in merges.items() if name in padding_of}

    def new_layer(layer: keras.layers.Layer) -> keras.layers.Layer:
        config = layer.get_config()
        if layer.name not in padding_of:
            return type(layer).from_config(config)
        config["padding"] = padding_of[layer.name]
        if layer.name in merges and type(layer) is keras.layers.AveragePooling2D:
            return _mean(layer, config)
        return type(layer).from_config(config)

    rewritten, pairs = rewrite(
        model, new_layer, merge_padding, skip=skip, enter=HalfTurn() if turn else None
    )
    for layer, clone in pairs:
        weights = layer.get_weights()
        if turn and type(layer) in _CONVOLUTIONS:
            weights[0] = weights[0][::-1, ::-1]
        if weights:
            clone.set_weights(weights)
    return rewritten


class HalfTurn(keras.layers.Layer):
    """Turns images `(batch, height, width, channels)` of known size by half a turn."""

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        _, height, width, channels = inputs.shape
        # The pixels in reverse order. Along one axis, TensorFlow's operation takes a quarter of
        # the time that it takes along two: 0.07 ms for an image of 224 pixels.
        pixels = tf.reverse(tf.reshape(inputs, (-1, height * width, channels)), [1])
        return tf.reshape(pixels, (-1, height, width, channels))


class Axis(NamedTuple):
    """How windows lie on an image along one axis, in pixels.

    Attributes:
        size: Of the image, without padding.
        outputs: Number of windows.
        window: Size of a window, from its first to its last pixel.
        stride: From a window to the next.
        before: How far the first window begins before the image.
    """

    size: int
    outputs: int
    window: int
    stride: int
    before: int

    def turned(self) -> Axis:
        """The same windows on the image in reverse order."""
        return self._replace(before=self._reach() - self.before - self.size)

    def fits(self, padding: str) -> bool:
        """Whether the windows are those of TensorFlow's padding "same" or "valid"."""
        if padding == "valid":
            outputs, before = (self.size - self.window) // self.stride + 1, 0
        else:
            outputs, before = -(-self.size // self.stride), self.same_before()
        return (self.outputs, self.before) == (outputs, before)

    def same_before(self) -> int:
        """How far "same" puts the first window before the image: half, rounded down."""
        return max(self._reach() - self.size, 0) // 2

    def _reach(self) -> int:
        """From the beginning of the first window to the end of the last."""
        return (self.outputs - 1) * self.stride + self.window


class _Window(NamedTuple):
    """A convolution or pooling, and the `ZeroPadding2D` that is merged into it."""

    layer: keras.layers.Layer
    padding: keras.layers.ZeroPadding2D | None
    axes: tuple[Axis, ...]

    def turned(self) -> _Window:
        return self._replace(axes=tuple(axis.turned() for axis in self.axes))

    def own_padding(self) -> str | None:
        """TensorFlow's padding that gives these windows, None if none does."""
        fitting = (p for p in ("valid", "same") if all(axis.fits(p) for axis in self.axes))
        return next(fitting, None)


def _windows(model: keras.Model) -> list[_Window]:
    """Finds all convolutions and poolings whose windows are known, each called once."""
    padding_before = {
        layer.name: padding
        for padding, _, layer in only_pairs(model)
        if type(padding) is keras.layers.ZeroPadding2D
        and padding.data_format == "channels_last"
        and getattr(layer, "padding", None) == "valid"
        and (type(layer) is not keras.layers.MaxPooling2D or _is_relu(padding.input))
    }
    nodes = calls_of(model)
    calls = Counter(node.operation.name for node in nodes)
    windows = []
    for node in nodes:
        layer = node.operation
        if type(layer) not in _CONVOLUTIONS + _POOLS or layer.data_format != "channels_last":
            continue
        sizes = (*node.input_tensors[0].shape[1:3], *node.outputs[0].shape[1:3])
        if calls[layer.name] == 1 and None not in sizes:
            padding = padding_before.get(layer.name)
            windows.append(_Window(layer, padding, _axes(layer, padding, sizes)))
    return windows


def _axes(
    layer: keras.layers.Layer, padding: keras.layers.ZeroPadding2D | None, sizes: tuple[int, ...]
) -> tuple[Axis, ...]:
    """The axes of a layer with these `sizes`: height and width before it, then behind it."""
    pool = type(layer) in _POOLS
    axes = []
    for i in (0, 1):
        kernel = layer.pool_size[i] if pool else layer.kernel_size[i]
        dilation = 1 if pool else np.broadcast_to(layer.dilation_rate, 2)[i]
        before, after = padding.padding[i] if padding else (0, 0)
        window = int(kernel - 1) * int(dilation) + 1
        axis = Axis(sizes[i] - before - after, sizes[2 + i], window, layer.strides[i], before)
        if layer.padding == "same":
            axis = axis._replace(before=axis.same_before())
        axes.append(axis)
    return tuple(axes)


def _may_turn(model: keras.Model, windows: list[_Window]) -> bool:
    """Whether the results of `model` stay as they are if its image and kernels are turned."""
    known = {window.layer.name for window in windows if window.turned().own_padding()}
    known |= {window.padding.name for window in windows if window.padding}
    for node in calls_of(model):
        maps = [t for t in node.input_tensors if len(t.shape) != 2 and t.shape[1:3] != (1, 1)]
        operation = node.operation
        if maps and operation.name not in known and not _is_blind_to_turns(operation):
            return False
    return all(len(tensor.shape) == 2 for tensor in model.outputs)


def _is_blind_to_turns(operation: Any) -> bool:
    # `keras.ops.split`, as in files of older ShuffleNet v2, is an operation without a public class.
    if type(operation) in _ALONG_CHANNELS or type(operation).__name__ == "Split":
        return operation.axis in (-1, 3)
    return type(operation) in _PER_PIXEL + _GLOBAL


def _is_relu(tensor: keras.KerasTensor) -> bool:
    """Whether `tensor` cannot be negative, being what a ReLU gives."""
    layer = tensor._keras_history.operation
    if type(layer) is keras.layers.ReLU:
        return layer.negative_slope == 0 and layer.threshold >= 0
    return getattr(layer, "activation", None) in RELUS


def _mean(pool: keras.layers.AveragePooling2D, config: dict[str, Any]) -> DepthwiseConv2D:
    """An average pooling in which padding counts, as a depthwise convolution."""
    return DepthwiseConv2D(
        pool.pool_size,
        strides=pool.strides,
        padding=config["padding"],
        use_bias=False,
        depthwise_initializer=keras.initializers.Constant(1 / np.prod(pool.pool_size)),
        dtype=config["dtype"],
        name=pool.name,
    )
