"""Batch norms that are computed with more channels, against Keras' own layers."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_lightnets
from keras_lightnets.layers import (
    Activation,
    DepthwiseConv2D,
    FusedBatchNormalization,
    GroupedConv2D,
    recompute_activations,
)
from tests import graphs


class Ours:
    convolution = functools.partial(GroupedConv2D, kernel_size=1, use_bias=False, pad_filters=True)
    depthwise = functools.partial(
        DepthwiseConv2D, kernel_size=3, padding=((1, 1), (1, 1)), use_bias=False
    )
    norm = FusedBatchNormalization
    relu = functools.partial(Activation, "relu")


class OfKeras:
    convolution = functools.partial(keras.layers.Conv2D, kernel_size=1, use_bias=False)
    norm = keras.layers.BatchNormalization
    relu = keras.layers.ReLU

    @staticmethod
    def depthwise(strides):
        pad = keras.layers.ZeroPadding2D(1)
        convolution = keras.layers.DepthwiseConv2D(3, strides, use_bias=False)
        return lambda x: convolution(pad(x))


def branch(layers, channels, strides=1):
    """The main branch of a unit of ShuffleNet v2, with weights like trained ones."""
    image = keras.Input((6, 6, 8))
    maps = [image]
    for layer in (
        layers.convolution(channels),
        layers.norm(),
        layers.relu(),
        layers.depthwise(strides=strides),
        layers.norm(),
        layers.convolution(channels),
        layers.norm(),
        layers.relu(),
    ):
        maps.append(layer(maps[-1]))
    model = keras.Model(image, maps[1:])
    rng = np.random.default_rng(0)
    for variable in model.variables:
        low, high = (0.5, 1.5) if "gamma" in variable.name else (-0.3, 0.3)
        variable.assign(rng.uniform(low, high, variable.shape))
    return model


def train_function(model, of_maps=False):
    """Images to loss, gradients (of all maps too, if asked for), and moving statistics."""

    @tf.function
    def train(images):
        with tf.GradientTape() as tape:
            tape.watch(images)
            maps = model(images, training=True)
            loss = tf.reduce_sum(tf.sin(maps[-1]))
        variables = [v.value for v in model.trainable_variables]
        sources = [images, *variables, *(maps if of_maps else ())]
        gradients = tape.gradient(loss, sources)
        return loss, gradients, [tf.identity(v) for v in model.non_trainable_variables]

    return train


def images():
    return tf.constant(np.random.default_rng(1).normal(size=(4, 6, 6, 8)), "float32")


def norm_channels(model):
    """Channels of the batch norms that a training step really computes."""
    graph = train_function(model).get_concrete_function(images()).graph
    used = graphs.used_operations(graph)
    return [op.inputs[0].shape[-1] for op in used if op.type == "FusedBatchNormV3"]


@pytest.mark.parametrize("of_maps", [False, True])
@pytest.mark.parametrize("strides", [1, 2])
@pytest.mark.parametrize("channels", [58, 116])
def test_equals_the_keras_layers(channels, strides, of_maps):
    """The loss and all gradients, those of the maps between the layers included."""
    results = [
        tf.nest.flatten(train_function(branch(layers, channels, strides), of_maps)(images()))
        for layers in (OfKeras, Ours)
    ]
    for e, a in zip(*results, strict=True):
        np.testing.assert_allclose(a, e, rtol=0, atol=4e-5 * max(np.abs(e).max(), 1))


def test_second_derivatives_are_those_of_the_narrow_layers():
    model = branch(Ours, 58)

    def twice(x):
        with tf.GradientTape() as outer:
            outer.watch(x)
            with tf.GradientTape() as inner:
                inner.watch(x)
                loss = tf.reduce_sum(tf.sin(model(x, training=True)[-1]))
            slope = inner.gradient(loss, x) * tf.cos(x)
        return outer.gradient(slope, x)

    # In eager mode no channels are added.
    wide, expected = tf.function(twice)(images()), twice(images())
    np.testing.assert_allclose(wide, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("strides", [1, 2])
def test_all_batch_norms_get_more_channels(strides):
    assert norm_channels(branch(Ours, 58, strides)) == [64, 64, 64]


def test_nothing_is_cut_or_filled_up_between_the_layers():
    """The maps as the model shows them are not computed, forward or backward, but the last."""
    run = graphs.run_operations(train_function(branch(Ours, 58)), images())
    maps = [op for op in run if op.outputs and op.outputs[0].shape[:3] == (4, 6, 6)]
    assert [op.type for op in maps if op.type in ("Slice", "Pad")] == ["Slice", "Pad"]


def test_the_batch_norms_of_shufflenet_v2_have_suitable_channels():
    model = keras_lightnets.create_model("shufflenet_v2", input_shape=(64, 64, 3), classes=2)
    step = tf.function(lambda x: model(x, training=True), autograph=False)
    graph = step.get_concrete_function(tf.TensorSpec((2, 64, 64, 3))).graph
    used = graphs.used_operations(graph)
    channels = [op.inputs[0].shape[-1] for op in used if op.type == "FusedBatchNormV3"]
    # Only the shortcut of stage 3 begins with a depthwise convolution of the units' 116 channels.
    assert [c for c in channels if c % 8] == [116]


@pytest.mark.parametrize("channels", [32, 56, 17])
def test_suitable_and_small_numbers_of_channels_stay(channels):
    assert norm_channels(branch(Ours, channels)) == [channels] * 3


def test_without_pad_filters_the_channels_stay():
    image = keras.Input((6, 6, 8))
    model = keras.Model(image, [FusedBatchNormalization()(GroupedConv2D(58, 1)(image))])
    assert norm_channels(model) == [58]


@pytest.mark.parametrize("training", [False, True])
def test_a_frozen_branch_is_that_of_keras(training):
    results = []
    for layers in (OfKeras, Ours):
        model = branch(layers, 58)
        model.trainable = False
        results.append(tf.function(model)(images(), training=training)[-1])
    np.testing.assert_allclose(*results, rtol=0, atol=1e-5)


def test_pad_filters_survives_the_configuration():
    config = GroupedConv2D(58, 1, pad_filters=True).get_config()
    assert GroupedConv2D.from_config(config).pad_filters
    assert "pad_filters" not in GroupedConv2D(58, 1).get_config()


def test_recomputation_finds_its_batch_norms():
    with recompute_activations():
        assert set(norm_channels(branch(Ours, 58))) == {58}
