"""Batch norms whose input is computed with more channels, against Keras' own layers."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_lightnets.layers import (
    DepthwiseConv2D,
    FusedBatchNormalization,
    GroupedConv2D,
    recompute_activations,
)
from tests import graphs

OURS = (GroupedConv2D, DepthwiseConv2D, FusedBatchNormalization)
KERAS = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D, keras.layers.BatchNormalization)


def branch(layers, channels, strides=1):
    """The main branch of a unit of ShuffleNet v2, with weights like trained ones."""
    convolution, depthwise, norm = layers
    image = keras.Input((6, 6, 8))
    x = convolution(channels, 1, use_bias=False)(image)
    x = keras.layers.ReLU()(norm()(x))
    x = keras.layers.ZeroPadding2D(1)(x)
    x = norm()(depthwise(3, strides, use_bias=False)(x))
    x = convolution(channels, 1, use_bias=False)(x)
    x = keras.layers.ReLU()(norm()(x))
    model = keras.Model(image, x)
    rng = np.random.default_rng(0)
    for variable in model.variables:
        low, high = (0.5, 1.5) if "gamma" in variable.name else (-0.3, 0.3)
        variable.assign(rng.uniform(low, high, variable.shape))
    return model


def train_function(model):
    """Images to loss, gradients of images and weights, and moving statistics."""

    @tf.function
    def train(images):
        with tf.GradientTape() as tape:
            tape.watch(images)
            loss = tf.reduce_sum(tf.sin(model(images, training=True)))
        variables = [v.value for v in model.trainable_variables]
        gradients = tape.gradient(loss, [images, *variables])
        return loss, gradients, [tf.identity(v) for v in model.non_trainable_variables]

    return train


def images():
    return tf.constant(np.random.default_rng(1).normal(size=(4, 6, 6, 8)), "float32")


def norm_channels(model):
    """Channels of the batch norms that a training step really computes."""
    graph = train_function(model).get_concrete_function(images()).graph
    used = graphs.used_operations(graph)
    return [op.inputs[0].shape[-1] for op in used if op.type == "FusedBatchNormV3"]


@pytest.mark.parametrize("strides", [1, 2])
@pytest.mark.parametrize("channels", [58, 116])
def test_equals_the_keras_layers(channels, strides):
    expected = tf.nest.flatten(train_function(branch(KERAS, channels, strides))(images()))
    actual = tf.nest.flatten(train_function(branch(OURS, channels, strides))(images()))
    for a, e in zip(actual, expected, strict=True):
        np.testing.assert_allclose(a, e, rtol=0, atol=4e-5 * max(np.abs(e).max(), 1))


@pytest.mark.parametrize("strides", [1, 2])
def test_all_batch_norms_get_more_channels(strides):
    assert norm_channels(branch(OURS, 58, strides)) == [64, 64, 64]


@pytest.mark.parametrize("channels", [32, 56, 17])
def test_suitable_and_small_numbers_of_channels_stay(channels):
    assert norm_channels(branch(OURS, channels)) == [channels] * 3


def test_recomputation_finds_its_batch_norms():
    with recompute_activations():
        assert set(norm_channels(branch(OURS, 58))) == {58}


def test_a_slice_of_somebody_else_stays():
    image = keras.Input((6, 6, 64))
    x = keras.layers.Lambda(lambda x: tf.slice(x, [0] * 4, [-1, -1, -1, 58]))(image)
    model = keras.Model(image, FusedBatchNormalization()(x))
    function = tf.function(lambda x: model(x, training=True))
    graph = function.get_concrete_function(tf.zeros((2, 6, 6, 64))).graph
    (norm,) = [op for op in graph.get_operations() if op.type == "FusedBatchNormV3"]
    assert norm.inputs[0].shape[-1] == 58


def test_a_constant_in_a_graph_has_no_history():
    norm = FusedBatchNormalization()
    constant = tf.ones((2, 3, 3, 58))
    expected = norm(constant, training=True)
    actual = tf.function(lambda: norm(constant, training=True))()
    np.testing.assert_allclose(actual, expected, atol=1e-6)
