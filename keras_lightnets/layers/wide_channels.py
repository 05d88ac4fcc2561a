"""Tensors with a few more channels, whose number suits the processor's vector instructions."""

from __future__ import annotations

import math

import tensorflow as tf

from keras_lightnets.layers.grouped_conv2d import fusion_barrier

# Graph collection with the names of the operations that `narrow` made.
_NARROWED = "keras_lightnets_narrowed"

# oneDNN's batch norm takes 16 channels at a time, or 8 or 4, whichever divides their number; else
# it falls back to a plain loop. (16, 28, 28, 58) float32 on two cores, ms forward and backward:
# 58 channels 1.7 and 2.6, 64 channels 0.6 and 0.4; (16, 14, 14, 116): 0.5 and 0.9, 128: 0.5, 0.3.
_FAST, _BEST = 8, 16
_MOST_ADDED = 1 / 8  # of the channels


def widen(x: tf.Tensor) -> tf.Tensor | None:
    """`x` with channels of zeros behind its own, computed instead of `x` and not from it.

    For a tensor in a graph that comes from 1x1 convolutions as matrix products, depthwise
    convolutions without bias, ReLU and what `narrow` made: each is run once more with its kernel
    filled up by zeros, which costs next to nothing, while filling up `x` itself would copy it.
    What was computed before then has no user and is pruned.

    Args:
        x: `(batch, height, width, channels)`, in a graph.

    Returns:
        `(batch, height, width, more channels)`; None if `x` did not come about in that way, or
        if its number of channels suits, or if an eighth more would not suffice.
    """
    channels = _wide(x.shape[-1])
    return None if channels is None else _widened(x, channels)


def narrow(x: tf.Tensor, channels: int) -> tf.Tensor:
    """The first `channels` channels of what was computed from a wide tensor, for `widen` to see."""
    y = tf.slice(x, [0] * len(x.shape), [-1] * (len(x.shape) - 1) + [channels])
    y.graph.add_to_collection(_NARROWED, y.op.name)
    return y


def fill_up(x: tf.Tensor, size: int, axis: int = -1) -> tf.Tensor:
    """`x` with zeros behind its values along one axis, which then has the given size."""
    if x.shape[axis] == size:
        return x
    paddings = [[0, 0] for _ in x.shape]
    paddings[axis][1] = size - x.shape[axis]
    return tf.pad(x, paddings)


def _wide(channels: int | None) -> int | None:
    """The number of channels to compute instead of `channels`."""
    if channels is None or channels % _FAST == 0:
        return None
    wide = math.ceil(channels / _BEST) * _BEST
    return wide if wide - channels <= _MOST_ADDED * channels else None


def _widened(x: tf.Tensor, channels: int) -> tf.Tensor | None:
    op = x.op
    if op.type == "Slice" and op.name in op.graph.get_collection(_NARROWED):
        return op.inputs[0] if op.inputs[0].shape[-1] == channels else None
    if op.type in ("Relu", "Relu6"):
        wide = _widened(op.inputs[0], channels)
        return wide if wide is None else getattr(tf.nn, op.type.lower())(wide)
    if op.type == "Reshape" and op.inputs[0].op.type == "MatMul":
        return _matrix_product(x, channels)
    if op.type == "DepthwiseConv2dNative":
        return _depthwise(op, channels)
    if op.type == "PlaceholderWithDefault":
        wide = _widened(op.inputs[0], channels)
        return wide if wide is None else fusion_barrier(wide)
    return None


def _matrix_product(x: tf.Tensor, channels: int) -> tf.Tensor | None:
    """A 1x1 convolution as `GroupedConv2D` computes it: reshape, matrix product, reshape."""
    product = x.op.inputs[0].op
    pixels, matrix = product.inputs
    if len(x.shape) != 4 or product.get_attr("transpose_a") or product.get_attr("transpose_b"):
        return None
    if x.shape[-1] != matrix.shape[-1] or x.shape[1:].num_elements() is None:
        return None
    if pixels.op.type == "Reshape":
        before = pixels.op.inputs[0]
        wide = _wide(before.shape[-1])
        wide_before = None if wide is None else _widened(before, wide)
        if wide_before is not None and before.shape[-1] == pixels.shape[-1]:
            pixels = tf.reshape(wide_before, (-1, wide))
            matrix = fill_up(matrix, wide, axis=0)
    return tf.reshape(pixels @ fill_up(matrix, channels), (-1, *x.shape[1:3], channels))


def _depthwise(op: tf.Operation, channels: int) -> tf.Tensor | None:
    x, kernel = op.inputs
    if kernel.shape[-1] != 1 or op.get_attr("data_format") != b"NHWC":
        return None
    wide = _widened(x, channels)
    if wide is None:
        return None
    return tf.raw_ops.DepthwiseConv2dNative(
        input=wide,
        filter=fill_up(kernel, channels, axis=2),
        **{
            name: op.get_attr(name)
            for name in ("strides", "padding", "explicit_paddings", "dilations")
        },
    )
