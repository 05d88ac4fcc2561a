"""Padding becomes part of the convolution behind it, for inference."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from keras_lightnets.folding import as_functional, only_pairs, rewrite
from keras_lightnets.layers import DepthwiseConv2D, GroupedConv2D

_CONVOLUTIONS = (
    GroupedConv2D,
    DepthwiseConv2D,
    keras.layers.Conv2D,
    keras.layers.DepthwiseConv2D,
)

Edges = tuple[int, int]


def merge_padding(model: keras.Model) -> keras.Model:
    """Returns a copy of `model` without the zero padding before convolutions.

    An operation that pads copies its whole input: at 224 pixels, four of them take up to a tenth
    of the time of MobileNetV2. TensorFlow's own "SAME" padding costs nothing, but puts the odd
    pixel of an even size at the bottom and the right; a kernel with one more row and column of
    zeros moves it: 3x3 with stride 2 and one pixel on each side is 4x4 with "SAME". (Explicit
    padding is no way out: `tf.nn.depthwise_conv2d` aborts the process with it in a Session.)

    Merged: a `ZeroPadding2D` with static sizes, whose only user is an undilated convolution
    (plain, grouped or depthwise) without padding of its own. All others are left alone.

    Args:
        model: A built functional or sequential model.

    Raises:
        ValueError: The model is neither functional nor sequential, or has no weights yet.
    """
    model = as_functional(model)
    merges = _find_merges(model)

    def config_of(layer: keras.layers.Layer) -> dict[str, Any]:
        config = layer.get_config()
        if layer.name in merges:
            _, growth = merges[layer.name]
            sizes = zip(layer.kernel_size, growth, strict=True)
            config["kernel_size"] = [size + sum(zeros) for size, zeros in sizes]
            config["padding"] = "same"
        return config

    merged, pairs = rewrite(
        model, config_of, merge_padding, skip={pad for pad, _ in merges.values()}
    )
    for layer, clone in pairs:
        if clone.built:
            weights = layer.get_weights()
            if layer.name in merges:
                _, growth = merges[layer.name]
                weights[0] = np.pad(weights[0], (*growth, (0, 0), (0, 0)))
            clone.set_weights(weights)
    return merged


def _find_merges(model: keras.Model) -> dict[str, tuple[str, tuple[Edges, ...]]]:
    """Returns {convolution: (the padding before it, zeros to add around its kernel)}."""
    merges = {}
    for pad, tensor, layer in only_pairs(model):
        if type(pad) is not keras.layers.ZeroPadding2D or type(layer) not in _CONVOLUTIONS:
            continue
        formats = {pad.data_format, layer.data_format}
        if layer.padding != "valid" or formats != {"channels_last"} or set(_dilation(layer)) != {1}:
            continue
        axes = zip(tensor.shape[1:3], pad.padding, layer.kernel_size, layer.strides, strict=True)
        growth = tuple(kernel_growth(*axis) for axis in axes)
        if None not in growth:
            merges[layer.name] = (pad.name, growth)
    return merges


def _dilation(layer: keras.layers.Layer) -> tuple[int, ...]:
    rate = layer.dilation_rate
    return (rate,) if isinstance(rate, int) else tuple(rate)


def kernel_growth(padded: int | None, pad: Edges, kernel: int, stride: int) -> Edges | None:
    """Returns how many zeros before and after a kernel make "SAME" padding equal to `pad`.

    Args:
        padded: Size of the padded image along this axis, None if not known.

    Returns:
        At most one zero in all, since each costs arithmetic; None if that does not do.
    """
    if padded is None:
        return None
    size = padded - sum(pad)
    outputs = -(-size // stride)
    if outputs != (padded - kernel) // stride + 1:
        return None
    for before, after in ((0, 0), (0, 1), (1, 0)):
        total = max((outputs - 1) * stride + kernel + before + after - size, 0)
        # The first window of "SAME" begins half of the padding, rounded down, before the image.
        if total // 2 == pad[0] + before:
            return before, after
    return None
