"""Channel shuffles that move blocks of channels, or nothing at all, for inference."""

from __future__ import annotations

from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from keras_lightnets.folding import as_functional, only_pairs, rewrite
from keras_lightnets.layers import ChannelShuffle, DepthwiseConv2D, GroupedConv2D
from keras_lightnets.layers.channel_shuffle import shape_for_reshape
from keras_lightnets.serving.padding import RELUS

_CONVOLUTIONS = (GroupedConv2D, keras.layers.Conv2D)
_DEPTHWISE = (DepthwiseConv2D, keras.layers.DepthwiseConv2D)
_MOST_CHANNELS = 1.1  # times as many as before


def merge_shuffles(model: keras.Model) -> keras.Model:
    """Returns a copy of `model` with cheaper channel shuffles and the same results.

    A channel shuffle moves single numbers, which takes a processor many times as long as copying
    them: a tenth of the time of ShuffleNet v1. But the order of the channels that a convolution
    gives is free, so

    * behind a convolution without groups, its kernel takes over the whole shuffle;
    * between two convolutions with the shuffle's groups and with only a depthwise convolution in
      between, each group's channels are sorted by the group that they go to, and the shuffle
      moves them as blocks. The blocks must have one size, so a few channels of zeros are added:
      in ShuffleNet v1 with three groups 63, 126 and 243 channels instead of 60, 120 and 240.

    All others are left alone, and those that would need a tenth more channels.

    Args:
        model: A built functional or sequential model.

    Raises:
        ValueError: The model is neither functional nor sequential, or has no weights yet.
    """
    model = as_functional(model)
    plan = _plan(model)

    def new_layer(layer: keras.layers.Layer) -> keras.layers.Layer:
        config = layer.get_config()
        if layer.name in plan.blocks:
            return BlockShuffle(layer.groups, dtype=config["dtype"], name=layer.name)
        if layer.name in plan.outputs and type(layer) in _CONVOLUTIONS:
            config["filters"] = len(plan.outputs[layer.name])
        return type(layer).from_config(config)

    rewritten, pairs = rewrite(model, new_layer, merge_shuffles, skip=plan.merged)
    for layer, clone in pairs:
        weights = layer.get_weights()
        if layer.name in plan.outputs:
            axis = -2 if type(layer) in _DEPTHWISE else -1
            kernel, *bias = weights
            channels = plan.outputs[layer.name]
            weights = [_take(kernel, channels, axis), *(_take(b, channels, -1) for b in bias)]
        if layer.name in plan.inputs:
            groups = np.split(weights[0], layer.groups, axis=-1)
            channels = plan.inputs[layer.name]
            taken = [_take(k, c, -2) for k, c in zip(groups, channels, strict=True)]
            weights[0] = np.concatenate(taken, axis=-1)
        if weights:
            clone.set_weights(weights)
    return rewritten


class BlockShuffle(keras.layers.Layer):
    """Moves block j of group i to block i of group j, of as many blocks as groups.

    Input and output: `(batch, height, width, channels)`, `groups ** 2` divides the channels.
    """

    def __init__(self, groups: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.groups = groups

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        channels = inputs.shape[-1]
        x = tf.reshape(inputs, (-1, self.groups, self.groups, channels // self.groups**2))
        x = tf.reshape(tf.transpose(x, (0, 2, 1, 3)), shape_for_reshape(inputs))
        # With several unknown sizes, only this keeps the number of channels in the static shape.
        x.set_shape(inputs.shape)
        return x

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "groups": self.groups}


class Blocks(NamedTuple):
    """The channels around a shuffle between two groups; -1 is a channel of zeros.

    Attributes:
        first: Channels of the convolution before the shuffle, in their new order.
        between: Shuffled channels, in their new order.
        second: Of each group of the convolution behind, its input channels in their new order.
    """

    first: list[int]
    between: list[int]
    second: list[list[int]]


def blocks(channels: int, groups: int) -> Blocks:
    """Sorts channels so that a shuffle moves whole blocks."""
    size = channels // groups

    def members(source: int, target: int) -> list[int]:
        """Which channels of group `source` go to group `target`; `i` to `i * groups + source`."""
        return [i for i in range(size) if (i * groups + source) // size == target]

    pairs = [[members(j, q) for q in range(groups)] for j in range(groups)]
    length = max(len(block) for row in pairs for block in row)

    def padded(block: list[int]) -> list[int]:
        return block + [-1] * (length - len(block))

    first, between, second = [], [], []
    for j in range(groups):
        for q in range(groups):
            first += padded([j * size + i for i in pairs[j][q]])
    for q in range(groups):
        second.append([])
        for j in range(groups):
            shuffled = [i * groups + j for i in pairs[j][q]]
            between += padded(shuffled)
            second[q] += padded([channel - q * size for channel in shuffled])
    return Blocks(first, between, second)


class _Plan(NamedTuple):
    outputs: dict[str, list[int]]  # convolution -> its channels in their new order
    inputs: dict[str, list[list[int]]]  # convolution -> the same for the input of each group
    blocks: set[str]  # shuffles that move blocks
    merged: set[str]  # shuffles that vanish


def _plan(model: keras.Model) -> _Plan:
    pairs = only_pairs(model)
    before = {id(second): first for first, _, second in pairs}
    behind = {id(first): second for first, _, second in pairs}
    plan = _Plan({}, {}, set(), set())
    for shuffle in model.layers:
        if type(shuffle) is not ChannelShuffle or shuffle.groups == 1:
            continue
        groups = shuffle.groups
        first = _beyond_relus(shuffle, before)
        if type(first) not in _CONVOLUTIONS or not _keeps_channels_apart(first):
            continue
        if first.groups == 1:
            order = np.arange(first.filters).reshape(groups, -1).T.flatten()
            plan.outputs[first.name] = order.tolist()
            plan.merged.add(shuffle.name)
            continue
        between = behind.get(id(shuffle))
        if type(between) not in _DEPTHWISE or not _keeps_channels_apart(between):
            continue
        second = _beyond_relus(between, behind)
        if type(second) not in _CONVOLUTIONS or {first.groups, second.groups} != {groups}:
            continue
        order = blocks(first.filters, groups)
        if len(order.first) <= _MOST_CHANNELS * first.filters and between.depth_multiplier == 1:
            plan.outputs[first.name] = order.first
            plan.outputs[between.name] = order.between
            plan.inputs[second.name] = order.second
            plan.blocks.add(shuffle.name)
    return plan


def _beyond_relus(operation: Any, neighbour: dict[int, Any]) -> Any:
    """The next operation before or behind `operation` that is not a ReLU."""
    operation = neighbour.get(id(operation))
    while type(operation) is keras.layers.ReLU or (
        type(operation) is keras.layers.Activation and operation.activation in RELUS
    ):
        operation = neighbour.get(id(operation))
    return operation


def _keeps_channels_apart(layer: Any) -> bool:
    """Whether the layer's activation treats each channel by itself."""
    activations = (keras.activations.linear, *RELUS)
    return layer.data_format == "channels_last" and layer.activation in activations


def _take(weights: np.ndarray, channels: list[int], axis: int) -> np.ndarray:
    """Weights of `channels` along `axis`, zeros where the channel is -1."""
    taken = np.take(weights, channels, axis)
    zero = np.array(channels) < 0
    np.moveaxis(taken, axis, -1)[..., zero] = 0
    return taken
