"""Cheaper channel shuffles: same numbers."""

import keras
import numpy as np
import pytest

import keras_lightnets
from keras_lightnets.serving.padding import merge_padding
from keras_lightnets.serving.shuffling import BlockShuffle, blocks, merge_shuffles


def unit(
    first_groups=3,
    second_groups=3,
    channels=30,
    activation="relu",
    first_activation=None,
    multiplier=1,
    another_user=False,
):
    """A convolution, a shuffle of three groups, a depthwise and a second convolution."""
    image = keras.Input((5, 6, 12))
    conv = keras_lightnets.GroupedConv2D
    x = conv(channels, 1, groups=first_groups, activation=first_activation)(image)
    x = keras.layers.Activation(activation)(x)
    x = shuffled = keras_lightnets.ChannelShuffle(3)(x)
    x = keras.layers.DepthwiseConv2D(3, padding="same", depth_multiplier=multiplier)(x)
    x = keras.layers.ReLU(6)(x)
    x = conv(24, 1, groups=second_groups)(x)
    model = keras.Model(image, [x, shuffled] if another_user else x)
    rng = np.random.default_rng(1)
    for variable in model.variables:
        variable.assign(rng.normal(size=variable.shape))
    return model


def shuffles(model):
    kinds = (keras_lightnets.ChannelShuffle, BlockShuffle)
    return [type(layer) for layer in model.layers if isinstance(layer, kinds)]


def assert_same(model, merged):
    images = np.random.default_rng(0).normal(size=(2, 5, 6, 12)).astype("float32")
    expected = model(images)
    received = merged(images)
    for a, b in zip(keras.tree.flatten(received), keras.tree.flatten(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("channels", [27, 84, 87])
def test_blocks_between_groups(channels):
    model = unit(channels=channels)
    merged = merge_shuffles(model)
    assert shuffles(merged) == [BlockShuffle]
    assert_same(model, merged)


def test_convolution_without_groups_takes_the_whole_shuffle():
    for options in ({}, {"second_groups": 1}, {"multiplier": 2}, {"another_user": True}):
        model = unit(first_groups=1, **options)
        merged = merge_shuffles(model)
        assert not shuffles(merged), options
        assert_same(model, merged)


@pytest.mark.parametrize(
    "options",
    [
        {"channels": 30},  # 36 channels of blocks
        {"second_groups": 6, "channels": 84},
        {"first_groups": 6, "channels": 84},
        {"multiplier": 2, "channels": 84},
        {"another_user": True, "channels": 84},
        {"activation": "softmax", "channels": 84},
        {"first_activation": "softmax", "channels": 84},
    ],
)
def test_what_is_left_alone(options):
    model = unit(**options)
    merged = merge_shuffles(model)
    assert shuffles(merged) == [keras_lightnets.ChannelShuffle]
    assert_same(model, merged)


@pytest.mark.parametrize(("channels", "expected"), [(60, 63), (120, 126), (240, 243)])
def test_channels_of_shufflenet_v1(channels, expected):
    order = blocks(channels, 3)
    for used in (order.first, order.between):
        assert len(used) == expected
        assert sorted(c for c in used if c >= 0) == list(range(channels))
    assert [len(group) for group in order.second] == [expected // 3] * 3


def test_shufflenet_v1():
    model = keras_lightnets.create_model("shufflenet_v1", input_shape=(64, 64, 3), classes=10)
    # Without padding, which would stand between a shuffle and a depthwise convolution.
    merged = merge_shuffles(merge_padding(keras_lightnets.fold_batch_norm(model)))
    assert shuffles(merged) == [BlockShuffle] * 15
    images = np.random.default_rng(0).uniform(size=(2, 64, 64, 3)).astype("float32")
    np.testing.assert_allclose(merged(images), model(images), rtol=1e-3, atol=1e-6)
