import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_lightnets.layers import DepthwiseConv2D

PIXEL = ((1, 1), (1, 1))
# Relative to the largest value, against float32.
TOLERANCES = {"float32": 1e-5, "bfloat16": 3e-2, "float16": 5e-3}
CASES = [
    {"strides": 1, "padding": "same"},
    {"strides": 2, "padding": "valid"},
    {"strides": 2, "padding": "same"},
    {"strides": 3, "padding": "valid", "kernel_size": 4},
    {"strides": 2, "padding": "same", "kernel_size": (5, 3), "activation": "relu"},
    {"strides": 2, "padding": "same", "dilation_rate": 1, "depth_multiplier": 2},
    {"strides": 1, "padding": "same", "dilation_rate": 2},
    {"strides": 2, "padding": "same", "use_bias": True},
]


def images(shape):
    return np.random.default_rng(0).normal(size=shape).astype("float32")


def build(cls, shape, pad=None, **options):
    """A model of one convolution, with zero padding if wanted: the layer's own, if it has one."""
    options = {"kernel_size": 3, "use_bias": False} | options
    inputs = x = keras.Input(shape[1:])
    if pad is not None and cls is DepthwiseConv2D:
        options["padding"] = pad
    elif pad is not None:
        x = keras.layers.ZeroPadding2D(pad)(inputs)
        options["padding"] = "valid"
    model = keras.Model(inputs, cls(name="conv", **options)(x))
    rng = np.random.default_rng(1)
    model.set_weights([rng.normal(size=w.shape) for w in model.weights])
    return model


def run(model, x, in_graph=True):
    """Output and gradients of a training step."""

    def step(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = tf.cast(model(x, training=True), "float32")
            loss = tf.reduce_sum(y**2)
        return y, *tape.gradient(loss, [x, *[v.value for v in model.trainable_variables]])

    step = tf.function(step) if in_graph else step
    return [np.asarray(tf.cast(r, "float32")) for r in step(tf.constant(x))]


def assert_near(actual, expected, tolerance):
    for a, e in zip(actual, expected, strict=True):
        np.testing.assert_allclose(a, e, rtol=0, atol=tolerance * np.abs(e).max())


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("pad", [None, PIXEL, ((2, 1), (0, 3))])
@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case.values())))
def test_equals_the_keras_layer(case, pad, dtype):
    shape = (2, 11, 8, 6)
    policy = dtype if dtype == "float32" else f"mixed_{dtype}"
    ours = build(DepthwiseConv2D, shape, pad, dtype=policy, **case)
    plain = build(keras.layers.DepthwiseConv2D, shape, pad, **case)
    expected = run(plain, images(shape))
    assert_near(run(ours, images(shape)), expected, TOLERANCES[dtype])
    assert_near(run(ours, images(shape), in_graph=False), expected, TOLERANCES[dtype])


def op_types(model, shape, training):
    function = tf.function(lambda x: model(x, training=training))
    concrete = function.get_concrete_function(tf.TensorSpec(shape, tf.float32))
    needed, waiting = set(), [concrete.graph.outputs[0].op]
    while waiting:
        op = waiting.pop()
        if op.name not in needed:
            needed.add(op.name)
            waiting += [t.op for t in op.inputs]
    return {concrete.graph.get_operation_by_name(name).type for name in needed}


@pytest.mark.parametrize("training", [True, False])
def test_pads_by_itself_in_training_only(training):
    # In inference a converter or server may not know explicit padding.
    shape = (2, 8, 8, 6)
    model = build(DepthwiseConv2D, shape, PIXEL, strides=2)
    assert ("Pad" in op_types(model, shape, training)) == (not training)


@pytest.mark.parametrize("pad", [None, PIXEL])
def test_unknown_sizes(pad):
    ours = build(DepthwiseConv2D, (None, None, None, 6), pad, strides=2, dtype="mixed_bfloat16")
    plain = build(keras.layers.DepthwiseConv2D, (None, None, None, 6), pad, strides=2)
    x = images((2, 9, 8, 6))
    assert_near(run(ours, x), run(plain, x), TOLERANCES["bfloat16"])


def test_a_bias_behind_explicit_padding_does_not_end_the_process():
    # TensorFlow fuses the two into a kernel that aborts; see the layer.
    inputs = keras.Input((8, 8, 6))
    x = DepthwiseConv2D(3, strides=2, padding=PIXEL, use_bias=False)(inputs)
    weight = tf.Variable(tf.zeros(6))
    model = keras.Model(inputs, x)

    @tf.function
    def biased(x):
        return tf.nn.relu6(tf.nn.bias_add(model(x, training=True), weight.read_value()))

    assert biased(images((2, 8, 8, 6))).shape == (2, 4, 4, 6)


def test_bfloat16_takes_the_gradient_of_the_input_by_a_convolution():
    if tf.config.list_physical_devices("GPU"):
        pytest.skip("only on CPUs")
    layer = DepthwiseConv2D(3, strides=2, use_bias=False, dtype="bfloat16")
    layer.build((2, 9, 9, 6))

    @tf.function
    def slope(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, training=True)
        return tape.gradient(y, x)

    graph = slope.get_concrete_function(tf.TensorSpec((2, 9, 9, 6), tf.bfloat16)).graph
    assert "DepthwiseConv2dNativeBackpropInput" not in {op.type for op in graph.get_operations()}


def test_has_the_config_of_the_keras_layer():
    plain = keras.layers.DepthwiseConv2D(3, strides=2, name="conv")
    assert DepthwiseConv2D.from_config(plain.get_config()).get_config() == plain.get_config()


def test_padding_in_pixels_survives_the_configuration():
    layer = DepthwiseConv2D(3, padding=[[2, 1], [0, 3]])
    again = DepthwiseConv2D.from_config(json.loads(json.dumps(layer.get_config())))
    assert again.pads == ((2, 1), (0, 3))
    assert again.compute_output_shape((None, None, 8, 6)) == (None, None, 9, 6)


@pytest.mark.parametrize("padding", ["Same ", ((1, 1), (1,))])
def test_wrong_padding_is_refused(padding):
    with pytest.raises(ValueError, match="padding"):
        DepthwiseConv2D(3, padding=padding)
