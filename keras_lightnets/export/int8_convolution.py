"""TensorFlow's quantized convolutions, which have no Python function of their own."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import tensorflow as tf

_TOP = 255  # the highest level
_WEIGHT_TOP = 127
_Value = tf.compat.v1.AttrValue


@dataclasses.dataclass(frozen=True)
class Levels:
    """The numbers `scale * levels + offset` of a tensor `(batch, height, width, channels)`.

    Attributes:
        levels: quint8.
        scale: Of all channels, or one number for each.
        offset: Likewise.
    """

    levels: tf.Tensor
    scale: np.ndarray
    offset: np.ndarray

    def numbers(self) -> tf.Tensor:
        """The numbers, float32."""
        levels = tf.cast(tf.bitcast(self.levels, tf.uint8), tf.float32)
        return levels * self.scale.astype("float32") + self.offset.astype("float32")

    def rescaled(self, scale: Any, offset: Any) -> Levels:
        """The numbers times `scale` plus `offset`."""
        factor = np.asarray(scale, "float64")
        return Levels(self.levels, self.scale * factor, self.offset * factor + np.asarray(offset))


def quantized(x: tf.Tensor, limits: tuple[float, float]) -> Levels:
    """Rounds float32 numbers to the 256 levels between two limits, as fake quantization does."""
    scale, offset = _steps(limits)
    top = float(_TOP * scale)
    if offset:
        x = x - np.float32(offset)
    rounded = tf.raw_ops.QuantizeV2(
        input=x, min_range=0.0, max_range=top, T=tf.quint8, mode="SCALED", ensure_minimum_range=0.0
    )
    return Levels(rounded.output, scale, offset)


def _steps(limits: tuple[float, float]) -> tuple[Any, Any]:
    """Scale and offset of 256 levels of which one is zero."""
    low, high = limits
    scale = np.float64(high - low) / _TOP
    return scale, -scale * np.clip(np.round(-low / scale), 0, _TOP)


def convolution(
    x: Levels,
    kernel: np.ndarray,
    bias: np.ndarray,
    *,
    depthwise: bool,
    stride: int,
    padding: Any,
    limits: tuple[float, float],
    added: Levels | None = None,
) -> Levels:
    """A convolution with bias, rounded and clipped to 256 levels between two limits.

    Args:
        x: What is convolved.
        kernel: `(height, width, channels, filters)`; depthwise `(height, width, channels, 1)`.
        bias: `(filters,)`.
        padding: "same", "valid" or `((top, bottom), (left, right))` of zeros.
        limits: Of the output.
        added: A tensor of the output's shape that is added before rounding, of one scale.
    """
    scale, offset = _steps(limits)
    axes = (0, 1) if depthwise else (0, 1, 2)
    # Scales of input channels become part of the kernel, but for what all have in common.
    common = np.max(x.scale)
    shares = np.broadcast_to(x.scale / common, kernel.shape[2:3])[:, np.newaxis]
    steps = np.maximum(np.abs(kernel * shares).max(axes), 1e-12) / _WEIGHT_TOP
    rounded = np.round(kernel * shares / steps)
    offsets = np.broadcast_to(x.offset, kernel.shape[2:3])[:, np.newaxis]
    bias = bias + (rounded * steps / shares * offsets).sum(axes).reshape(-1) - offset
    if added is not None:
        bias = bias + added.offset
    levels, pads = _padded(x, _pads(padding, x.levels.shape, kernel.shape, stride))
    tops = (steps * _WEIGHT_TOP).reshape(-1)
    ranges = [0, common * _TOP, -tops, tops]
    inputs = [levels, _int8(rounded), tf.constant(bias, tf.float32)]
    if added is not None:
        inputs.append(_owned(added.levels))
        ranges += [0, added.scale * _TOP]
    ranges += [0, scale * _TOP]
    output = _operation(
        "_FusedQuantizedDepthwiseConv2D" if depthwise else "_FusedQuantizedConv2D",
        inputs + [tf.constant(each, tf.float32) for each in ranges],
        # No fusion adds without this ReLU. It clips what is below the first level.
        ["BiasAdd", *(["Sum", "Relu"] if added is not None else []), "Requantize"],
        stride,
        pads,
    )
    shape: Any = levels.shape
    sizes = zip(shape[1:3], pads, kernel.shape, strict=False)
    size = [(length + sum(pad) - window) // stride + 1 for length, pad, window in sizes]
    output.set_shape((shape[0], *size, len(bias)))
    return Levels(output, scale, offset)


def _pads(padding: Any, shape: Any, window: Any, stride: int) -> tuple[tuple[int, int], ...]:
    """Rows and columns of zeros."""
    if padding == "valid":
        return (0, 0), (0, 0)
    if padding != "same":
        return tuple(map(tuple, padding))
    pads = []
    for length, size in zip(shape[1:3], window, strict=False):
        missing = max((-(-length // stride) - 1) * stride + size - length, 0)
        pads.append((missing // 2, missing - missing // 2))
    return tuple(pads)


def _padded(x: Levels, pads: Any) -> tuple[tf.Tensor, Any]:
    """Levels, and what the operation is to pad by level 0, unless that is not the number zero."""
    zero = np.round(-x.offset / x.scale)
    if not np.any(pads) or not np.any(zero):
        return x.levels, pads
    shape: Any = x.levels.shape[1:]
    border = np.pad(np.zeros(shape, bool), (*pads, (0, 0)), constant_values=True) * zero
    padded = tf.pad(tf.bitcast(x.levels, tf.uint8), ((0, 0), *pads, (0, 0)))
    return tf.bitcast(padded + border.astype("uint8"), tf.quint8), ((0, 0), (0, 0))


def _int8(values: np.ndarray) -> tf.Tensor:
    proto = tf.make_tensor_proto(values.astype("int8"))
    proto.dtype = tf.qint8.as_datatype_enum
    attributes = {"value": _Value(tensor=proto), "dtype": _of_type(tf.qint8)}
    graph = tf.compat.v1.get_default_graph()
    return graph.create_op("Const", [], [tf.qint8], attrs=attributes, name="kernel").outputs[0]


def _owned(levels: tf.Tensor) -> tf.Tensor:
    """A tensor whose memory nothing else uses.

    The operation writes its output over what it adds, and crashes the process where it must not.
    """
    alone = tf.raw_ops.Snapshot(input=tf.bitcast(levels, tf.uint8))
    return tf.bitcast(alone, tf.quint8)


def _operation(
    name: str, inputs: list[tf.Tensor], fused: list[str], stride: int, pads: Any
) -> tf.Tensor:
    """Puts one operation into the graph and returns its first output."""
    explicit = [0, 0, *pads[0], *pads[1], 0, 0] if np.any(pads) else []
    outputs = [tf.quint8, tf.float32, tf.float32]
    attributes = {
        "Tinput": _of_type(tf.quint8),
        "Tfilter": _of_type(tf.qint8),
        "Tbias": _of_type(tf.float32),
        "Tsummand": _of_type(tf.quint8),
        "out_type": _of_type(tf.quint8),
        "Tdevice_inputs": _list(),
        "Thost_inputs": _list(type=[x.dtype.as_datatype_enum for x in inputs]),
        "Tdevice_outputs": _list(),
        "Thost_outputs": _list(type=[dtype.as_datatype_enum for dtype in outputs]),
        "strides": _list(i=[1, stride, stride, 1]),
        "padding": _Value(s=b"EXPLICIT" if explicit else b"VALID"),
        "explicit_paddings": _list(i=explicit),
        "fused_ops": _list(s=[each.encode() for each in fused]),
    }
    graph = tf.compat.v1.get_default_graph()
    # Its own name begins with an underscore, which none in a graph may.
    operation = graph.create_op(name, inputs, outputs, attrs=attributes, name=name.strip("_"))
    return operation.outputs[0]


def _of_type(dtype: tf.DType) -> Any:
    return _Value(type=dtype.as_datatype_enum)


def _list(**values: Any) -> Any:
    return _Value(list=_Value.ListValue(**values))
