"""Every layer in the harness of Keras' own, in odd dtypes, and with higher derivatives."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras.src.testing import TestCase

import keras_lightnets
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

SHAPE = (2, 5, 5, 4)
# Layer, arguments, shape of the output, number of trainable and other weights.
CASES = [
    (ChannelShuffle, {"groups": 2}, SHAPE, 0, 0),
    (ChannelSplit, {}, [(2, 5, 5, 2)] * 2, 0, 0),
    (ConcatShuffleSplit, {}, [SHAPE] * 2, 0, 0),
    (GroupedConv2D, {"filters": 6, "kernel_size": 3, "groups": 2}, (2, 3, 3, 6), 2, 0),
    (GroupedConv2D, {"filters": 6, "kernel_size": 1}, (2, 5, 5, 6), 2, 0),
    (DepthwiseConv2D, {"kernel_size": 3, "use_bias": False}, (2, 3, 3, 4), 1, 0),
    (FusedBatchNormalization, {}, SHAPE, 2, 2),
    (Notes, {"notes": {"class_names": ["cat"]}}, SHAPE, 0, 0),
    (Activation, {"activation": "relu6"}, SHAPE, 0, 0),
]
OURS = [(cls, arguments) for cls, arguments, *_ in CASES]


@pytest.mark.filterwarnings("ignore::UserWarning")  # of the harness' own `fit`
@pytest.mark.parametrize(("cls", "arguments", "shape", "trainable", "others"), CASES)
def test_passes_the_harness_of_keras(cls, arguments, shape, trainable, others):
    case = TestCase()
    case.setUp()
    try:
        case.run_layer_test(
            cls,
            arguments,
            input_shape=[SHAPE] * 2 if cls is ConcatShuffleSplit else SHAPE,
            expected_output_shape=shape,
            expected_num_trainable_weights=trainable,
            expected_num_non_trainable_weights=others,
            expected_num_seed_generators=0,
            expected_num_losses=0,
            # The harness cannot train a layer of several outputs.
            run_training_check=cls not in (ChannelSplit, ConcatShuffleSplit),
        )
    finally:
        case.tearDown()


def test_every_layer_is_in_the_harness():
    # It rounds, which has no derivative: tests/quantization has its numbers.
    rounds = {keras_lightnets.layers.FakeQuantize}
    layers = [getattr(keras_lightnets.layers, name) for name in keras_lightnets.layers.__all__]
    ours = {cls for cls in layers if isinstance(cls, type) and issubclass(cls, keras.Layer)}
    assert ours - rounds == {cls for cls, *_ in CASES}


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize(("cls", "arguments"), [c for c in OURS if "kernel_size" in c[1]])
def test_the_policy_of_a_layer_decides_its_dtype(cls, arguments, autocast):
    for policy in ("float16", "float32", "mixed_float16"):
        for given in ("float16", "float32", "float64", "uint8"):
            layer = cls(dtype=policy, autocast=autocast, **arguments)
            for training in (False, True):
                y = layer(tf.ones(SHAPE, given), training=training)
                assert y.dtype == layer.compute_dtype, (policy, given, training)


def test_a_map_of_policies_over_a_network():
    policies = keras.dtype_policies.DTypePolicyMap(default_policy="mixed_bfloat16")
    keras.config.set_dtype_policy(policies)
    model = keras_lightnets.ShuffleNetV2((32, 32, 3), alpha=0.5, classes=2)
    again = keras.Model.from_config(model.get_config())
    assert [layer.compute_dtype for layer in again.layers] == [
        layer.compute_dtype for layer in model.layers
    ]


def loss(layer, x, training):
    inputs = [x, 2 * x] if isinstance(layer, ConcatShuffleSplit) else x
    alike = (Activation, ChannelShuffle, ChannelSplit, Notes)  # in training and inference
    call = {} if isinstance(layer, alike) else {"training": training}
    outputs = tf.nest.flatten(layer(inputs, **call))
    return tf.add_n([tf.reduce_sum(tf.sin(y) * (k + 1)) for k, y in enumerate(outputs)])


def slope(layer, x, training):
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = loss(layer, x, training)
    return tape.gradient(y, x)


def reverse_over_reverse(layer, x, training):
    with tf.GradientTape() as tape:
        tape.watch(x)
        product = tf.reduce_sum(slope(layer, x, training) * tf.stop_gradient(tf.cos(x)))
    return tape.gradient(product, x)


def forward_over_reverse(layer, x, training):
    with tf.autodiff.ForwardAccumulator(x, tf.cos(x)) as forward:
        gradient = slope(layer, x, training)
    return forward.jvp(gradient)


def forward(layer, x, training):
    with tf.autodiff.ForwardAccumulator(x, tf.cos(x)) as accumulator:
        y = loss(layer, x, training)
    return accumulator.jvp(y)


def by_differences(layer, x, training):
    """The derivative of the gradient, and of the value, along `cos(x)`."""
    step = 1e-3 * tf.cos(x)
    before, after = (slope(layer, x + sign * step, training) for sign in (-1, 1))
    return (after - before) / 2e-3, tf.reduce_sum(slope(layer, x, training) * tf.cos(x))


@pytest.mark.parametrize("in_graph", [False, True])
@pytest.mark.parametrize(("cls", "arguments"), OURS)
def test_second_and_forward_derivatives_are_right(cls, arguments, in_graph):
    """Those of `keras.layers.BatchNormalization` in training are not: `tf.nn.moments` lets no
    gradient through the mean inside the variance."""
    x = tf.constant(np.random.default_rng(1).normal(size=SHAPE), "float32")
    layer = cls(**arguments)
    for training in (False, True):
        second, first = by_differences(layer, x, training)

        def all_three(x, training=training):
            ways = (reverse_over_reverse, forward_over_reverse, forward)
            return [way(layer, x, training) for way in ways]

        run = tf.function(all_three, autograph=False) if in_graph else all_three
        for actual, expected in zip(run(x), (second, second, first), strict=True):
            np.testing.assert_allclose(actual, expected, rtol=0, atol=5e-3 * np.abs(expected).max())
