"""Zero padding becomes part of the operation behind it, for inference."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from keras_lightnets.inference.folding import as_functional, calls_of, only_pairs, rewrite
from keras_lightnets.layers import (
    Activation,
    ChannelShuffle,
    ChannelSplit,
    ConcatShuffleSplit,
    DepthwiseConv2D,
    FusedBatchNormalization,
    GroupedConv2D,
    Notes,
)

# Exact classes only: what a subclass computes is not known.
_CONVOLUTIONS = (
    GroupedConv2D,
    DepthwiseConv2D,
    keras.layers.Conv2D,
    keras.layers.DepthwiseConv2D,
)
_POOLS = (keras.layers.AveragePooling2D, keras.layers.MaxPooling2D)
_PIXEL = ((1, 1), (1, 1))  # of zeros on every side
# Those that do the same to every pixel, to every pixel's channels, or do not see their order.
_BLIND = (
    keras.layers.Activation,
    keras.layers.Add,
    keras.layers.Dropout,
    keras.layers.GlobalAveragePooling2D,
    keras.layers.GlobalMaxPooling2D,
    keras.layers.Multiply,
    keras.layers.ReLU,
    keras.layers.Rescaling,
    Activation,
    ChannelShuffle,
    ChannelSplit,
    ConcatShuffleSplit,
    Notes,
)
_ALONG_CHANNELS = (
    keras.layers.BatchNormalization,
    keras.layers.Concatenate,
    FusedBatchNormalization,
)


def merge_padding(model: keras.Model) -> keras.Model:
    """Returns a copy of `model` without the zero padding before windows of stride 2.

    An operation that pads copies its whole input. TensorFlow's own "SAME" padding costs nothing,
    but at stride 2 it puts the odd pixel of an even size at the bottom and the right, while these
    networks have a pixel on every side, of which the first counts. If the image is turned by half
    a turn, and every kernel with it, "SAME" is right, and the features behind a global pooling are
    the same. So one pixel of padding, by `ZeroPadding2D` before convolutions and poolings of 3x3
    pixels and stride 2 or by a `DepthwiseConv2D` of that size itself, goes away (an average becomes
    a depthwise convolution, a maximum must follow a ReLU), if all other operations are blind to
    turns; else the copy has the layers of `model`. (Explicit padding is no way out:
    `tf.nn.depthwise_conv2d` aborts the process with it in a Session.)

    Args:
        model: A built functional or sequential model.

    Raises:
        ValueError: The model is neither functional nor sequential, or has no weights yet.
    """
    model = as_functional(model)
    pads = _paddings(model)

    def new_layer(layer: keras.layers.Layer) -> keras.layers.Layer:
        config = layer.get_config()
        if layer.name in pads:
            config["padding"] = "same"
            if type(layer) is keras.layers.AveragePooling2D:
                return _mean(config)
        return type(layer).from_config(config)

    enter = HalfTurn() if pads else None
    merged, pairs = rewrite(model, new_layer, merge_padding, skip=set(pads.values()), enter=enter)
    for layer, clone in pairs:
        weights = layer.get_weights()
        if pads and type(layer) in _CONVOLUTIONS:
            weights[0] = weights[0][::-1, ::-1]
        if weights:
            clone.set_weights(weights)
    return merged


class HalfTurn(keras.layers.Layer):
    """Turns images `(batch, height, width, channels)` of known size by half a turn."""

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        _, height, width, channels = inputs.shape.with_rank(4)
        # The pixels in reverse order: along one axis, it takes a quarter of the time of two.
        pixels = tf.reverse(tf.reshape(inputs, (-1, height * width, channels)), [1])
        return tf.reshape(pixels, (-1, height, width, channels))


def _paddings(model: keras.Model) -> dict[str, str]:
    """Returns window -> layer that pads for it, of all if the network may be turned, else of none.

    A window that pads by itself has the name "".
    """
    nodes = calls_of(model)
    pads = {
        node.operation.name: ""
        for node in nodes
        if type(node.operation) is DepthwiseConv2D and _window(node.operation) == (3, 2, _PIXEL)
    } | {
        layer.name: pad.name
        for pad, _, layer in only_pairs(model)
        if type(pad) is keras.layers.ZeroPadding2D
        and pad.padding == _PIXEL
        and _window(layer) == (3, 2, "valid")
        and (type(layer) is not keras.layers.MaxPooling2D or _follows_relu(pad))
    }
    for node in nodes:
        maps = [x.shape for x in node.input_tensors if len(x.shape) != 2]
        merged = node.operation.name in {*pads, *pads.values()}
        if maps and not merged and not _is_blind_to_turns(node.operation):
            return {}
    of_known_size = all(None not in image.shape[1:] for image in model.inputs)
    features = all(len(output.shape) == 2 for output in model.outputs)
    return pads if of_known_size and features else {}


def _window(layer: Any) -> tuple[int, int, Any] | None:
    """Returns size, stride and padding of a convolution or pooling of square windows."""
    if type(layer) not in _CONVOLUTIONS + _POOLS:
        return None
    size = layer.pool_size if type(layer) in _POOLS else layer.kernel_size
    if layer.data_format != "channels_last" or set(getattr(layer, "dilation_rate", (1,))) != {1}:
        return None
    square = len({*size}) == 1 == len({*layer.strides})
    padding = getattr(layer, "pads", None) or layer.padding
    return (size[0], layer.strides[0], padding) if square else None


def _is_blind_to_turns(operation: Any) -> bool:
    if window := _window(operation):
        size, stride, padding = window
        return stride == 1 and (padding == "valid" or (padding == "same" and size % 2 == 1))
    if type(operation) in _ALONG_CHANNELS:
        return operation.axis in (-1, 3)
    return type(operation) in _BLIND


def _follows_relu(layer: keras.layers.Layer) -> bool:
    before = layer.input._keras_history.operation
    relus = (keras.activations.relu, keras.activations.relu6)
    return getattr(before, "activation", None) in relus or (
        type(before) is keras.layers.ReLU and before.negative_slope == 0 <= before.threshold
    )


def _mean(config: dict[str, Any]) -> DepthwiseConv2D:
    """An average pooling of 3x3 pixels in which padding counts, as a depthwise convolution."""
    return DepthwiseConv2D(
        3,
        strides=2,
        padding="same",
        use_bias=False,
        depthwise_initializer=keras.initializers.Constant(1 / 9),
        dtype=config["dtype"],
        name=config["name"],
    )
