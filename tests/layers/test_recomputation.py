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

TOLERANCES = {"float32": 1e-5, "mixed_bfloat16": 0.02}


def traced(model, x, recompute, jit_compile=None):
    """The gradients of a training step, as a function."""

    @tf.function(jit_compile=jit_compile)
    def step(x):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.cast(model(x, training=True), "float32") ** 2)
        return tape.gradient(loss, [v.value for v in model.trainable_variables])

    with recompute_activations(recompute):
        return step.get_concrete_function(x)


def gradients(model, x, recompute):
    """Gradients of a training step, and its graph."""
    function = traced(model, x, recompute)
    return [np.asarray(g) for g in function(x)], function.graph


def statistics_used(graph):
    """Number of batch norms by given statistics, which only a recomputation has."""
    norms = [op for op in graph.get_operations() if op.type == "FusedBatchNormV3"]
    return sum(not op.get_attr("is_training") for op in norms)


@pytest.mark.parametrize("policy", TOLERANCES)
@pytest.mark.parametrize(
    "name",
    [
        "shufflenet_v1",
        *(pytest.param(n, marks=pytest.mark.slow) for n in ("mobilenet_v2", "mobilenet_v1")),
    ],
)
def test_gradients_are_those_of_the_plain_step(name, policy):
    keras.config.set_dtype_policy(policy)
    # With other groups a batch norm of 30 channels would run on 32 in the plain step alone, which
    # rounds otherwise (`wide_channels`).
    groups = {"groups": 8} if name == "shufflenet_v1" else {}
    model = keras_lightnets.create_model(
        name, input_shape=(32, 32, 3), classes=5, alpha=0.5, dropout_rate=0.0, **groups
    )
    x = tf.constant(np.random.default_rng(0).normal(size=(8, 32, 32, 3)).astype("float32"))
    plain, plain_graph = gradients(model, x, False)
    again, graph = gradients(model, x, True)
    assert statistics_used(plain_graph) == 0
    assert statistics_used(graph) > 10
    for p, a in zip(plain, again, strict=True):
        scale = np.linalg.norm(p) + 1e-6
        assert np.linalg.norm(a - p) <= TOLERANCES[policy] * scale


def test_recomputes_only_after_the_gradient_is_there():
    # Else the tensors would be there all the time, and nothing saved.
    model = keras_lightnets.create_model("mobilenet_v2", input_shape=(32, 32, 3), alpha=0.35)
    _, graph = gradients(model, tf.zeros((2, 32, 32, 3)), True)
    for op in graph.get_operations():
        if op.type == "FusedBatchNormV3" and not op.get_attr("is_training"):
            assert op.control_inputs


def test_under_xla_a_barrier_holds_the_recomputation_back():
    """XLA drops control dependencies, and of two equal operations computes one."""
    model = keras_lightnets.create_model("mobilenet_v2", input_shape=(32, 32, 3), alpha=0.35)
    graph = traced(model, tf.zeros((2, 32, 32, 3)), True, jit_compile=True).graph
    norms = [op for op in graph.get_operations() if op.type == "FusedBatchNormV3"]
    again = [op for op in norms if not op.get_attr("is_training")]
    assert len(again) > 10
    for op in again:
        barrier = op.inputs[0].op
        assert barrier.type == "XlaOptimizationBarrier"
        assert {x.op for x in op.inputs} == {barrier}
        assert len(barrier.inputs) == len(op.inputs) + 1  # the gradient
    # Elsewhere no processor has a kernel for it.
    plain = traced(model, tf.zeros((2, 32, 32, 3)), True).graph
    assert "XlaOptimizationBarrier" not in {op.type for op in plain.get_operations()}


def chain(act):
    """Two convolutions, the second of an input that can be computed again."""
    image = keras.Input((6, 6, 4))
    maps = [image]
    for layer in (
        GroupedConv2D(8, 1, use_bias=False),
        FusedBatchNormalization(),
        *act,
        DepthwiseConv2D(3, padding=((1, 1), (1, 1)), use_bias=False),
    ):
        maps.append(layer(maps[-1]))
    return keras.Model(image, maps[1:])


@pytest.mark.parametrize("act", [[], ["relu"], ["relu6"], ["sigmoid"]])
def test_gradients_of_the_maps_between_are_right(act):
    model = chain([Activation(name) for name in act])

    @tf.function
    def step(x):
        with tf.GradientTape() as tape:
            maps = model(x, training=True)
            loss = tf.reduce_sum(maps[-1] ** 2)
        return tape.gradient(loss, maps)

    x = tf.constant(3 * np.random.default_rng(0).normal(size=(4, 6, 6, 4)), "float32")
    with recompute_activations():
        function = step.get_concrete_function(x)
    # An activation whose gradient is not known here ends what can be computed again.
    assert statistics_used(function.graph) == (act != ["sigmoid"])
    for actual, expected in zip(function(x), tf.function(step.python_function)(x), strict=True):
        np.testing.assert_allclose(actual, expected, atol=1e-5 * np.abs(expected).max())


def test_the_output_of_a_relu_is_not_kept():
    """The gradient of a ReLU reads what was computed again, so that nothing else is in memory."""
    _, graph = gradients(chain([Activation("relu")]), tf.ones((2, 6, 6, 4)), True)
    (slope,) = [op for op in graph.get_operations() if op.type == "ReluGrad"]
    features, again = slope.inputs[1].op, set()
    while features not in again:
        again.add(features)
        features = features.inputs[0].op if features.inputs else features
        if features.type == "FusedBatchNormV3":
            break
    assert not features.get_attr("is_training")


def test_an_input_of_two_convolutions_is_computed_once():
    image = keras.Input((6, 6, 4))
    x = Activation("relu")(FusedBatchNormalization()(image))
    model = keras.Model(image, GroupedConv2D(4, 1)(x) + GroupedConv2D(4, 1)(x))
    _, graph = gradients(model, tf.ones((2, 6, 6, 4)), True)
    assert statistics_used(graph) == 1


def test_a_second_derivative_is_refused():
    model = keras_lightnets.create_model("mobilenet_v2", input_shape=(32, 32, 3), alpha=0.35)
    variables = [v.value for v in model.trainable_variables]

    @tf.function
    def twice(x):
        with tf.GradientTape() as outer:
            with tf.GradientTape() as inner:
                loss = tf.reduce_sum(model(x, training=True) ** 2)
            slope = inner.gradient(loss, variables)
            total = tf.add_n([tf.reduce_sum(s**2) for s in slope])
        return outer.gradient(total, variables)

    with recompute_activations(), pytest.raises(NotImplementedError, match="second derivative"):
        twice.get_concrete_function(tf.zeros((2, 32, 32, 3)))
