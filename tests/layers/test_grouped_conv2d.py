import os
import pathlib
import platform
import subprocess
import sys
import textwrap

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_lightnets.layers import (
    GroupedConv2D,
    grouped_conv_form,
    placement,
    recompute_activations,
)
from tests.graphs import used_operations

CASES = [
    {"kernel_size": 1, "activation": "relu"},
    {"kernel_size": 1, "strides": 2},
    {"kernel_size": 3, "padding": "same"},
    {"kernel_size": (3, 5), "strides": 2, "padding": "valid", "activation": "relu"},
    {"kernel_size": 3, "dilation_rate": 2, "padding": "same", "use_bias": False},
]
# Relative to the largest value, against float32; Keras sums the bias gradient in half precision.
TOLERANCES = {"float32": 1e-5, "bfloat16": 5e-2, "float16": 5e-3}


def images(shape=(2, 9, 8, 12), seed=0):
    return tf.constant(np.random.default_rng(seed).normal(size=shape).astype("float32"))


def set_weights(layer):
    rng = np.random.default_rng(1)
    layer.set_weights([0.3 * rng.normal(size=w.shape) for w in layer.get_weights()])


def plain_convolution(layer, x):
    """The definition: each group convolved on its own, in float32."""
    width = x.shape[-1] // layer.groups
    filters = layer.filters // layer.groups
    outputs = [
        tf.nn.convolution(
            x[..., g * width : (g + 1) * width],
            layer.kernel.value[..., g * filters : (g + 1) * filters],
            layer.strides,
            layer.padding.upper(),
            dilations=layer.dilation_rate,
        )
        for g in range(layer.groups)
    ]
    y = tf.concat(outputs, -1)
    return layer.activation(y + layer.bias if layer.use_bias else y)


def run(function, layer, x):
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = tf.cast(function(x), "float32")
        loss = tf.reduce_sum(y**2)
    gradients = tape.gradient(loss, [x, *[v.value for v in layer.trainable_variables]])
    return [np.asarray(tf.cast(r, "float32")) for r in (y, *gradients)]


def assert_near(actual, expected, tolerance):
    for a, e in zip(actual, expected, strict=True):
        np.testing.assert_allclose(a, e, rtol=0, atol=tolerance * np.abs(e).max())


@pytest.mark.parametrize(
    ("groups", "form", "training"),
    [(3, "native", False), (3, "native", True), (3, "split", False), (1, "native", True)],
)
@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case.values())))
def test_equals_each_group_convolved_alone(case, dtype, groups, form, training):
    policy = dtype if dtype == "float32" else f"mixed_{dtype}"
    layer = GroupedConv2D(24, groups=groups, dtype=policy, **case)
    layer.build((None, 9, 8, 12))
    set_weights(layer)
    x = images()
    with grouped_conv_form(form):
        actual = run(tf.function(lambda image: layer(image, training=training)), layer, x)
    expected = run(lambda image: plain_convolution(layer, image), layer, x)
    assert_near(actual, expected, TOLERANCES[dtype])


def test_equals_the_keras_layer_with_its_config_and_weights():
    plain = keras.layers.Conv2D(24, 3, groups=3, padding="same", name="conv")
    plain.build((None, 9, 8, 12))
    layer = GroupedConv2D.from_config(plain.get_config())
    layer.build((None, 9, 8, 12))
    layer.set_weights(plain.get_weights())
    assert layer.get_config() == plain.get_config()
    assert_near(run(layer, layer, images()), run(plain, plain, images()), 1e-5)


def test_second_derivative():
    layer = GroupedConv2D(6, 1, groups=3)
    layer.build((None, 4, 4, 12))
    x = images((1, 4, 4, 12))

    def slope_of_slope(function):
        with tf.GradientTape() as outer:
            outer.watch(x)
            with tf.GradientTape() as inner:
                inner.watch(x)
                loss = tf.reduce_sum(function(x) ** 3)
            slope = inner.gradient(loss, x)
        return np.asarray(outer.gradient(slope, x))

    plain = tf.function(lambda image: plain_convolution(layer, image))
    expected = slope_of_slope(plain)
    assert_near([slope_of_slope(tf.function(layer))], [expected], 1e-5)


def test_unknown_sizes():
    layer = GroupedConv2D(24, 1, groups=3)
    inputs = keras.Input((None, None, 12))
    model = keras.Model(inputs, layer(inputs))
    assert model.output_shape == (None, None, None, 24)
    x = images()
    for training in (False, True):

        @tf.function(input_signature=[tf.TensorSpec((None, None, None, 12))])
        def convolve(image, training=training):
            y = layer(image, training=training)
            assert y.shape.as_list() == [None, None, None, 24]
            return y

        expected = run(lambda image: plain_convolution(layer, image), layer, x)
        assert_near(run(convolve, layer, x), expected, 1e-5)


def op_types(function):
    definition = function.get_concrete_function().graph.as_graph_def()
    nodes = [*definition.node, *(n for f in definition.library.function for n in f.node_def)]
    assert not any("_XlaMustCompile" in n.attr for n in nodes)
    return [n.op for n in nodes]


@pytest.mark.parametrize(
    ("groups", "training", "products"), [(1, True, 1), (1, False, 0), (3, True, 0), (3, False, 0)]
)
def test_only_a_1x1_kernel_without_groups_trains_as_a_product(groups, training, products):
    layer = GroupedConv2D(24, 1, groups=groups)
    layer.build((None, 9, 8, 12))
    ops = op_types(tf.function(lambda: layer(images(), training=training)))
    assert ops.count("MatMul") == products
    assert ops.count("Conv2D") == 1 - products


def test_form_decides_the_operations():
    layer = GroupedConv2D(24, 1, groups=3)
    layer.build((None, 9, 8, 12))
    assert op_types(tf.function(lambda: layer(images()))).count("Conv2D") == 1
    with grouped_conv_form("split"):
        ops = op_types(tf.function(lambda: layer(images())))
    assert ops.count("MatMul") == 3
    assert "Conv2D" not in ops
    assert "Conv2D" in op_types(tf.function(lambda: layer(images())))


def test_unknown_form_is_refused():
    with (
        pytest.raises(ValueError, match=r"'native' or 'split'.*'fast'"),
        grouped_conv_form("fast"),
    ):
        pass


def test_indivisible_channels_are_refused():
    with pytest.raises(ValueError, match="groups=5"):
        GroupedConv2D(24, 1, groups=5)
    with pytest.raises(ValueError, match="groups=3"):
        GroupedConv2D(24, 1, groups=3)(images((1, 4, 4, 8)))


def small_net():
    inputs = keras.Input((16, 16, 12))
    x = GroupedConv2D(24, 1, groups=3, use_bias=False, name="first")(inputs)
    x = keras.layers.BatchNormalization()(x)
    x = GroupedConv2D(24, 3, strides=2, groups=4, activation="relu", name="second")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    x = keras.layers.Dense(2, dtype="float32", name="head")(x)
    return keras.Model(inputs, x)


def test_save_and_clone(tmp_path):
    model = small_net()
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert type(loaded.get_layer("first")) is GroupedConv2D
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    x = images((2, 16, 16, 12))
    for other in (loaded, clone):
        np.testing.assert_allclose(other(x), model(x), rtol=1e-5)


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("groups", [1, 3])
def test_on_a_gpu_nothing_is_a_matrix_product(groups, recompute, monkeypatch):
    """Between TensorFlow's layouts of convolutions each would cost transposes.

    Nor is anything computed group by group: each operation is a launch.
    """
    layer = GroupedConv2D(12, 1, groups=groups, use_bias=False)
    x = images((2, 5, 5, 12))
    layer(x)
    found = []
    for on_gpu in (False, True):
        monkeypatch.setattr(placement, "on_gpu", lambda strategy=None, there=on_gpu: there)

        @tf.function
        def gradients(x):
            with tf.GradientTape() as tape:
                tape.watch(x)
                loss = tf.reduce_sum(layer(x, training=True) ** 2)
            return tape.gradient(loss, [x, layer.kernel.value])

        with recompute_activations(recompute):
            graph = gradients.get_concrete_function(x).graph
        found.append(({op.type for op in used_operations(graph)}, gradients(x)))
    (on_cpu, expected), (operations, received) = found
    assert "MatMul" in on_cpu
    assert "MatMul" not in operations
    assert "Split" not in operations or groups == 1  # one part, which costs nothing
    for one, other in zip(received, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


# TF Serving disables XLA, and loads the model into a Session of a process without this package.
SERVE = """
import ctypes, pathlib, sys
import numpy as np, tensorflow as tf

library = next(pathlib.Path(tf.__file__).parent.glob("libtensorflow_cc.so.2"))
ctypes.CDLL(str(library))._ZN10tensorflow21DisableXlaCompilationEv()
with tf.compat.v1.Session(graph=tf.Graph()) as session:
    meta = tf.compat.v1.saved_model.loader.load(session, ["serve"], sys.argv[1])
    signature = meta.signature_def["serving_default"]
    (inputs,), (outputs,) = signature.inputs.values(), signature.outputs.values()
    y = session.run(outputs.name, {inputs.name: np.load(sys.argv[2])})
assert "keras_lightnets" not in sys.modules
np.save(sys.argv[3], y)
"""

# Every dtype, forward and backward, with whatever follows a grouped convolution fused by Grappler.
TRAIN = """
import sys
import keras, numpy as np, tensorflow as tf
sys.path.insert(0, sys.argv[1])
from test_grouped_conv2d import small_net, images

for policy in ("float32", "mixed_bfloat16", "mixed_float16"):
    keras.config.set_dtype_policy(policy)
    model = small_net()
    model.compile("sgd", "mse", jit_compile=False)
    history = model.fit(images((8, 16, 16, 12)), np.ones((8, 2)), epochs=4, verbose=0).history
    assert history["loss"][-1] < history["loss"][0], (policy, history)
    assert np.isfinite(model.predict(images((8, 16, 16, 12)), verbose=0)).all()
"""


def subprocess_python(code, *arguments, onednn):
    environment = {**os.environ, "TF_ENABLE_ONEDNN_OPTS": str(onednn)}
    command = [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]
    subprocess.run(command, check=True, env=environment, timeout=300)


@pytest.mark.parametrize("onednn", [0, 1])
def test_exported_model_runs_without_xla(tmp_path, onednn):
    # Fails with oneDNN off without `_fusion_barrier` (first layer) or with `tf.nn.bias_add`
    # (second). Keras' Conv2D fails with XLA disabled.
    model = small_net()
    model.export(tmp_path / "model", verbose=False)
    x = images((3, 16, 16, 12))
    np.save(tmp_path / "x.npy", x)
    paths = [tmp_path / name for name in ("model", "x.npy", "y.npy")]
    subprocess_python(SERVE, *paths, onednn=onednn)
    np.testing.assert_allclose(np.load(paths[2]), model(x), rtol=1e-4, atol=1e-5)


OPERATIONS = """
import sys
import numpy as np
import tensorflow as tf
options = tf.compat.v1.RunOptions(output_partition_graphs=True)
metadata = tf.compat.v1.RunMetadata()
with tf.compat.v1.Session(graph=tf.Graph()) as session:
    meta = tf.compat.v1.saved_model.loader.load(session, ["serve"], sys.argv[1])
    signature = meta.signature_def["serving_default"]
    (x,), (y,) = signature.inputs.values(), signature.outputs.values()
    feed = {x.name: np.load(sys.argv[2])}
    session.run(y.name, feed, options=options, run_metadata=metadata)
operations = {node.op for graph in metadata.partition_graphs for node in graph.node}
assert any(name.endswith("FusedConv2D") for name in operations), operations
assert not operations & {"AddV2", "BiasAdd", "Relu"}, operations
"""


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="oneDNN is for x86")
def test_onednn_runs_convolution_bias_and_activation_as_one_operation(tmp_path):
    layer = GroupedConv2D(24, 1, groups=3, activation="relu", bias_initializer="ones")
    model = keras.Sequential([keras.Input((9, 8, 12)), layer])
    model.export(tmp_path / "model", verbose=False)
    np.save(tmp_path / "x.npy", images())
    # TensorFlow switches it on by itself on some processors only.
    subprocess_python(OPERATIONS, tmp_path / "model", tmp_path / "x.npy", onednn=1)


@pytest.mark.slow
@pytest.mark.parametrize("onednn", [0, 1])
def test_trains_in_every_dtype(onednn):
    # The native gradient fails with oneDNN off and in float16.
    subprocess_python(TRAIN, pathlib.Path(__file__).parent, onednn=onednn)


def test_exported_graph_has_no_xla_attribute(tmp_path):
    small_net().export(tmp_path / "model", verbose=False)
    assert b"_XlaMustCompile" not in (tmp_path / "model" / "saved_model.pb").read_bytes()


def test_exported_model_needs_no_custom_operation(tmp_path):
    """A `SavedModel` of the layer restores as plain TensorFlow operations, gradients included."""
    model = small_net()
    model.export(tmp_path / "model", verbose=False)
    loaded = tf.saved_model.load(tmp_path / "model")
    x = images((3, 16, 16, 12))
    np.testing.assert_allclose(loaded.serve(x), model(x), rtol=1e-5, atol=1e-6)
