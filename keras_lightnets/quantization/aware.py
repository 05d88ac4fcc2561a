"""A network becomes one that trains as its int8 file will compute."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_lightnets import layers as ours
from keras_lightnets.inference.equalization import equalize
from keras_lightnets.inference.folding import (
    as_functional,
    calls_of,
    copy_weights,
    fold_batch_norm,
    rewrite,
)
from keras_lightnets.inference.function import in_float32
from keras_lightnets.layers import fake_quantization as fake
from keras_lightnets.layers import placement

_BATCH = 16  # images in one pass of the calibration

# What rounding asks of a layer's tensors. "own": the output has a range of its own. "same": inputs
# and outputs share one range, and no number is new. "mean": likewise, but numbers are new.
_KINDS: dict[str, tuple[type, ...]] = {
    "own": (
        *(ours.GroupedConv2D, ours.DepthwiseConv2D, ours.Activation),
        *(keras.layers.Conv2D, keras.layers.DepthwiseConv2D, keras.layers.Dense),
        *(keras.layers.Activation, keras.layers.ReLU, keras.layers.Softmax),
        *(keras.layers.Add, keras.layers.Multiply, keras.layers.Rescaling),
        keras.layers.InputLayer,
    ),
    "mean": (keras.layers.AveragePooling2D, keras.layers.GlobalAveragePooling2D),
    "same": (
        *(ours.ChannelShuffle, ours.ChannelSplit, ours.ConcatShuffleSplit, ours.Notes),
        *(keras.layers.Concatenate, keras.layers.ZeroPadding2D, keras.layers.Cropping2D),
        *(keras.layers.MaxPooling2D, keras.layers.GlobalMaxPooling2D, keras.layers.Dropout),
        *(keras.layers.Reshape, keras.layers.Flatten, keras.layers.Permute),
    ),
}
_KIND = {layer: kind for kind, types in _KINDS.items() for layer in types}
_QUANTIZED: dict[type, type] = {
    keras.layers.Conv2D: fake.QuantizedConv2D,
    ours.GroupedConv2D: fake.QuantizedConv2D,
    keras.layers.DepthwiseConv2D: fake.QuantizedDepthwiseConv2D,
    ours.DepthwiseConv2D: fake.QuantizedDepthwiseConv2D,
    keras.layers.Dense: fake.QuantizedDense,
    keras.layers.Rescaling: fake.QuantizedRescaling,
    keras.layers.Add: fake.QuantizedAdd,
}
_RELUS = (keras.activations.relu, keras.activations.relu6)
_UNIT = {keras.activations.softmax: (0.0, 255 / 256), keras.activations.sigmoid: (0.0, 255 / 256)}


def quantize_aware(model: keras.Model, images: np.ndarray) -> keras.Model:
    """Returns a copy of `model` that trains, and answers, as its int8 LiteRT file will compute.

    Batch norms are folded into the convolutions before them, and channels that differ in size made
    equally large where that changes no bit in float. Weights are rounded to int8 per output
    channel, activations to 256 levels of a range, wherever LiteRT rounds, biases to steps of their
    products; gradients pass as if they were not. The ranges begin as those of `images` and follow
    the activations in training.

        network = keras_lightnets.quantize_aware(model, images[:256])
        network.compile(keras.optimizers.Adam(1e-5), "categorical_crossentropy")
        network.fit(images, labels)

    Args:
        model: A built functional or sequential model of convolutions (also depthwise and grouped),
            `Dense`, batch norms behind them, ReLU and ReLU6, `Add`, `Concatenate`, pooling, padding
            and reshaping, channel shuffles and splits; softmax or sigmoid at the end.
        images: Some of those for training, `(n, ...)` as `model` takes them. If they are uint8, the
            range of the input is 0 to 255 for good.

    Raises:
        ValueError: There are no images, or of another shape; or a layer is not known, or has no
            range: all its outputs are zero, or one of them is not a finite number.
    """
    placement.need_tensorflow("quantize_aware")
    model = as_functional(model)
    shape, images = model.inputs[0].shape, np.asarray(images)
    if not (images.size and tf.TensorShape(shape).is_compatible_with(images.shape)):
        raise ValueError(f"Ranges begin as those of `images` {shape}. Received: {images.shape}")
    flat = fold_batch_norm(_flat(in_float32(model)))
    equalize(flat)
    rounding, range_of = _rounding(flat, images)

    def rounded(layer: Any, x: Any) -> Any:
        if layer.name not in rounding:
            return x
        quantize, member = rounding[layer.name]
        return quantize(x, member=member, mean=type(layer) in _KINDS["mean"] and _averaged(layer))

    def new_layer(layer: keras.layers.Layer) -> Any:
        config = layer.get_config() | {"dtype": "float32"}
        config.pop("pad_filters", None)  # no batch norm follows any more
        clone = _QUANTIZED.get(type(layer), type(layer)).from_config(config)

        def call(*inputs: Any, **options: Any) -> Any:
            if type(layer) in _QUANTIZED:
                first, *others = (
                    range_of[id(tensor)](keras.tree.flatten(inputs)[0], member=None)
                    for tensor in (layer.output, *keras.tree.flatten(layer.input))
                )
                options |= {"step": others if others[1:] else others[0], "out": first}
            return rounded(layer, clone(*inputs, **options))

        call.set_weights = clone.set_weights
        return call

    def enter(x: Any) -> Any:
        return rounded(x._keras_history.operation, x)

    quantized, pairs = rewrite(flat, new_layer, lambda inner: inner, enter=enter)
    copy_weights(pairs)
    return quantized


def _flat(model: keras.Model) -> keras.Model:
    """A copy in which layers stand in place of inner models, and activations behind layers."""

    def new_layer(layer: keras.layers.Layer) -> Any:
        if type(layer) not in _QUANTIZED or _activation(layer) is None:
            return type(layer).from_config(layer.get_config())
        linear = type(layer).from_config(layer.get_config() | {"activation": "linear"})
        name, dtype = f"{layer.name}_activation", layer.dtype_policy
        activate = keras.layers.Activation(_activation(layer), name=name, dtype=dtype)

        def call(x: Any) -> Any:
            return activate(linear(x))

        call.set_weights = linear.set_weights
        return call

    def in_place(inner: keras.Model) -> Any:
        flat = _flat(as_functional(inner))
        return lambda x, **_: flat._run_through_graph(x, operation_fn=lambda operation: operation)

    flat, pairs = rewrite(model, new_layer, in_place)
    copy_weights(pairs)
    return flat


def _rounding(
    model: keras.Model, images: np.ndarray
) -> tuple[dict[str, tuple[fake.FakeQuantize, int]], dict[int, fake.FakeQuantize]]:
    """Layer -> what rounds its output, and which of its members that is; tensor -> its range."""
    nodes = calls_of(model)
    kinds = {node.operation.name: _kind(node.operation) for node in nodes}
    tensors = _rounded_outputs(model, nodes, kinds)
    together = _together(nodes, kinds, tensors)
    measured = _measure(model, tensors, images)
    groups = defaultdict(list)
    for name, tensor in tensors.items():
        groups[together[id(tensor)]].append(name)
    rounding, ranges = {}, {}
    for first, *others in groups.values():
        names = [first, *others]
        limits = None if others else _limits(model.get_layer(first), images.dtype)
        quantize = fake.FakeQuantize(len(names), limits, dtype="float32", name=f"{first}_range")
        if limits is None:
            quantize.set_weights(_moments(names, [measured[name] for name in names]))
        rounding |= {name: (quantize, member) for member, name in enumerate(names)}
        ranges[together[id(tensors[first])]] = quantize
    range_of = {tensor: ranges[group] for tensor, group in together.items() if group in ranges}
    return rounding, range_of


def _together(nodes: list[Any], kinds: dict[str, str], rounded: dict[str, Any]) -> dict[int, int]:
    """Tensor -> the group of those with which it shares a range."""
    groups = {id(tensor): {id(tensor)} for node in nodes for tensor in node.outputs}
    for node in nodes:
        makers = {tensor._keras_history.operation.name for tensor in node.input_tensors}
        fused = any(kinds[name] == "own" for name in makers - rounded.keys())
        if fused or kinds[node.operation.name] != "own":
            joined = [groups[id(tensor)] for tensor in (*node.input_tensors, *node.outputs)]
            merged = set().union(*joined)
            groups |= dict.fromkeys(merged, merged)
    return {tensor: min(group) for tensor, group in groups.items()}


def _rounded_outputs(model: keras.Model, nodes: list[Any], kinds: dict[str, str]) -> dict[str, Any]:
    """Layer -> its output, of the layers whose output is rounded."""
    users = defaultdict(list)
    for node in nodes:
        for tensor in node.input_tensors:
            users[id(tensor)].append(node.operation)
    last = {id(tensor) for tensor in model.outputs}

    def rounds(layer: Any) -> bool:
        if kinds[layer.name] == "same":
            return False
        behind = users[id(layer.output)]
        if id(layer.output) in last:
            return _activation(layer) not in _UNIT
        fused = type(layer) in _QUANTIZED and len(behind) == 1
        return not (fused and _activation(behind[0]) in _RELUS)

    return {layer.name: layer.output for layer in model.layers if rounds(layer)}


def _kind(layer: Any) -> str:
    known = _KIND.get(type(layer))
    last = _activation(layer)
    if known is None or last not in (None, *_RELUS, *_UNIT) or len(layer._inbound_nodes) > 1:
        what = "shared" if len(layer._inbound_nodes) > 1 else type(layer).__name__
        what = what if last is None else f"{what}, {last.__name__}"
        raise ValueError(
            f"The layer {layer.name!r} ({what}) cannot be quantized. Known are convolutions, "
            "Dense, batch norms behind them, ReLU, ReLU6, Add, Concatenate, pooling, padding, "
            "Reshape and the layers of keras_lightnets, each called once."
        )
    return known


def _averaged(layer: Any) -> bool | int:
    """Of how many levels a mean is: all pixels, or True where they are not known to be as many."""
    if not isinstance(layer, keras.layers.GlobalAveragePooling2D):
        return True
    pixels = math.prod(size or 0 for size in layer.input.shape[1:-1])
    return pixels or True


def _activation(layer: Any) -> Any:
    """The function behind a layer, None where it is linear."""
    if isinstance(layer, keras.layers.Softmax):
        return keras.activations.softmax
    if isinstance(layer, keras.layers.ReLU):
        plain = layer.negative_slope == 0 == layer.threshold and layer.max_value in (None, 6)
        return keras.activations.relu if plain else layer.call
    last = getattr(layer, "activation", None)
    return None if last is keras.activations.linear else last


def _limits(layer: Any, dtype: Any) -> tuple[float, float] | None:
    if isinstance(layer, keras.layers.InputLayer):
        return (0.0, 255.0) if dtype == np.uint8 else None
    return _UNIT.get(_activation(layer))


def _measure(model: keras.Model, tensors: dict[str, Any], images: np.ndarray) -> dict[str, Any]:
    """Layer -> the `moments` of its output."""
    probe = keras.Model(model.inputs, list(tensors.values()))

    @tf.function
    def moments(batch: tf.Tensor) -> list[Any]:
        return [fake.moments(x) for x in keras.tree.flatten(probe(batch, training=False))]

    sums = np.zeros((len(tensors), 4))
    for start in range(0, len(images), _BATCH):
        batch = images[start : start + _BATCH].astype(model.inputs[0].dtype)
        sums += len(batch) * np.array(moments(tf.constant(batch)))
    return dict(zip(tensors, sums / len(images), strict=True))


def _moments(names: list[str], measured: list[np.ndarray]) -> list[np.ndarray]:
    """Those of layers whose outputs share a range, as it holds them."""
    low, high, *squares = np.stack(measured, axis=1)
    variances = np.maximum(np.array(squares) - np.array([low, high]) ** 2, 0)
    moments = np.array([low, high, *variances], "float32")
    if not np.isfinite(moments).all():
        raise ValueError(
            f"Outputs of the layer {names[0]!r} are not finite numbers for these images: look for "
            "NaN in the images and in the weights."
        )
    if not moments.any():
        raise ValueError(
            f"All outputs of the layer {names[0]!r} are zero for these images: there is no range "
            "to quantize. Give other images, or train the network first."
        )
    return list(moments)
