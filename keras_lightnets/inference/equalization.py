"""What makes a folded network easier to round to int8, without training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from keras_lightnets.inference.folding import calls_of, only_pairs, tensor_name
from keras_lightnets.layers import Activation, DepthwiseConv2D, GroupedConv2D, Notes

_DEPTHWISE = (DepthwiseConv2D, keras.layers.DepthwiseConv2D)
_WEIGHTED = (GroupedConv2D, keras.layers.Conv2D, keras.layers.Dense, *_DEPTHWISE)
# f(s * x) = s * f(x) for each channel and every s > 0
_HOMOGENEOUS = (
    Notes,
    keras.layers.ZeroPadding2D,
    keras.layers.MaxPooling2D,
    keras.layers.AveragePooling2D,
    keras.layers.GlobalAveragePooling2D,
    keras.layers.Dropout,
)
_SWEEPS = 20


def equalize(network: keras.Model) -> None:
    """Makes the channels between layers with weights equally large, in place.

    A layer gives channel `i` by a factor smaller and the next one takes it by the same factor
    larger, so that the largest weights of both sides become alike (Nagel et al., ICCV 2019,
    https://arxiv.org/abs/1906.04721, section 4.1). Int8 has one range for all channels of a
    tensor; channels that are small beside others would be lost in its steps. Factors are powers
    of two: what the network computes in float stays the same to the last bit.

    Only convolutions and `Dense` layers take part that follow one another with nothing but ReLU,
    zero padding, pooling or dropout between; not ReLU6, which would clip elsewhere, and nothing
    across a channel shuffle, concatenation or addition.

    Args:
        network: Folded, see `fold_batch_norm`.
    """
    following = {id(first): second for first, _, second in only_pairs(network)}
    pairs = []
    for node in calls_of(network):
        layer = node.operation
        if type(layer) not in _WEIGHTED or not _is_homogeneous(layer.activation):
            continue
        behind = following.get(id(layer))
        while behind is not None and _passes(behind):
            behind = following.get(id(behind))
        if type(behind) in _WEIGHTED and getattr(behind, "groups", 1) == 1:
            pairs.append((layer, behind))
    for _ in range(_SWEEPS):
        if not sum(_equalize_pair(*pair) for pair in pairs):
            return


def correct_biases(network: keras.Model, means: Mapping[str, np.ndarray]) -> None:
    """Takes from each bias what rounding the weights to int8 adds to the mean output, in place.

    Section 4.2 of the same paper.

    Args:
        network: Folded, see `fold_batch_norm`.
        means: `tensor_name` -> the mean over images and places, `(channels,)`.
    """
    for node in calls_of(network):
        layer = node.operation
        if type(layer) not in _WEIGHTED or not layer.use_bias or getattr(layer, "groups", 1) > 1:
            continue
        mean = means[tensor_name(node.input_tensors[0])]
        kernel = keras.ops.convert_to_numpy(layer.kernel)
        scales = _largest(layer, kernel) / 127
        scales = np.where(scales > 0, scales, 1)
        added = (np.round(kernel / scales) * scales - kernel) * mean[:, None]
        summed = kernel.ndim - _largest(layer, kernel).ndim
        layer.bias.assign(layer.bias - added.sum(tuple(range(summed))).reshape(-1))


def _passes(operation: Any) -> bool:
    if isinstance(operation, keras.layers.ReLU):
        return operation.max_value is None and not operation.threshold
    if type(operation) in (Activation, keras.layers.Activation):
        return _is_homogeneous(operation.activation)
    return type(operation) in _HOMOGENEOUS


def _is_homogeneous(activation: Any) -> bool:
    return activation in (keras.activations.linear, keras.activations.relu)


def _equalize_pair(first: Any, second: Any) -> bool:
    """Moves factors from one layer to the next; returns whether there was anything to move."""
    kernel, behind = (keras.ops.convert_to_numpy(layer.kernel) for layer in (first, second))
    given = _largest(first, kernel).reshape(-1)
    taken = np.abs(np.moveaxis(behind, -2, 0)).reshape(behind.shape[-2], -1).max(1)
    if given.size != taken.size:  # something has flattened the map in between
        return False
    both = (given > 0) & (taken > 0)
    ratio = np.divide(given, taken, out=np.ones_like(given), where=both)
    factors = np.exp2(np.round(np.log2(ratio) / 2))
    first.kernel.assign(kernel / factors.reshape(_largest(first, kernel).shape))
    if first.use_bias:
        first.bias.assign(keras.ops.convert_to_numpy(first.bias) / factors)
    second.kernel.assign(behind * factors[:, None])
    return bool((factors != 1).any())


def _largest(layer: Any, kernel: np.ndarray) -> np.ndarray:
    """The largest weight for each output channel, shaped so that it can divide the kernel."""
    outputs = 2 if type(layer) in _DEPTHWISE else 1  # how many of the last axes
    return np.abs(kernel).max(tuple(range(kernel.ndim - outputs)))
