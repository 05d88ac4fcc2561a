import copy
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_lightnets.layers import FusedBatchNormalization, placement

# Relative to the largest value: float32 rounding; half types round once at the output.
TOLERANCES = {"float32": 1e-5, "mixed_bfloat16": 1e-2, "mixed_float16": 2e-3}


def images(shape=(4, 6, 5, 8), seed=0):
    return (3 * np.random.default_rng(seed).normal(size=shape) + 2).astype("float32")


def pair(**kwargs):
    """This layer and Keras' own, built with the same trained-looking weights."""
    layers = FusedBatchNormalization(**kwargs), keras.layers.BatchNormalization(**kwargs)
    for layer in layers:
        layer.build((None, 6, 5, 8))
        rng = np.random.default_rng(1)
        layer.set_weights([rng.uniform(0.5, 1.5, w.shape) for w in layer.get_weights()])
    return layers


def run(layer, x, **call):
    """Output, gradients and moving statistics of one call."""
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x, **call)
        loss = tf.reduce_sum(tf.cast(y, "float32") ** 3)
    variables = [v.value for v in layer.trainable_variables]
    results = [y, *tape.gradient(loss, [x, *variables]), *layer.non_trainable_variables]
    return [keras.ops.convert_to_numpy(keras.ops.cast(r, "float32")) for r in results]


def assert_near(actual, expected, tolerance):
    for a, e in zip(actual, expected, strict=True):
        np.testing.assert_allclose(a, e, rtol=0, atol=tolerance * np.abs(e).max())


def op_types(layer, shape, **call):
    function = tf.function(lambda x: layer(x, **call))
    graph = function.get_concrete_function(tf.TensorSpec(shape, layer.compute_dtype)).graph
    return {op.type for op in graph.get_operations()}


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("policy", TOLERANCES)
def test_equals_keras_forward_and_backward(policy, training):
    # The moving variance among the results catches a missing (or double) Bessel correction.
    fused, plain = pair(dtype=policy)
    x = tf.cast(images(), fused.compute_dtype)
    assert fused(x, training=training).dtype == x.dtype
    plain(x, training=training)
    assert_near(
        run(fused, x, training=training), run(plain, x, training=training), TOLERANCES[policy]
    )
    assert_near(fused.get_weights(), plain.get_weights(), 1e-5)


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_equals_keras_in_a_graph_of_unknown_sizes(policy):
    fused, plain = pair(dtype=policy)
    x = tf.cast(images(), fused.compute_dtype)
    signature = [tf.TensorSpec((None, None, None, 8), x.dtype)]
    in_graph = tf.function(lambda image: fused(image, training=True), input_signature=signature)
    outputs = [tf.cast(y, "float32") for y in (in_graph(x), plain(x, training=True))]
    assert_near(outputs[:1], outputs[1:], TOLERANCES[policy])
    assert_near(fused.get_weights(), plain.get_weights(), 1e-5)


@pytest.mark.parametrize("options", [{}, {"center": False, "scale": False}])
def test_synchronized_equals_keras(options):
    fused, plain = pair(synchronized=True, **options)
    x = tf.constant(images())
    assert_near(run(fused, x, training=True), run(plain, x, training=True), 1e-5)


@pytest.mark.parametrize("options", [{"center": False}, {"scale": False}, {"epsilon": 1e-7}])
def test_options(options):
    # Small values show an epsilon that is raised to cuDNN's old minimum of 1e-5.
    fused, plain = pair(**options)
    x = tf.constant(images() * 1e-3)
    assert_near(run(fused, x, training=True), run(plain, x, training=True), 1e-3)


def test_one_value_per_channel_keeps_a_finite_variance():
    fused, plain = pair()
    x = tf.constant(images((1, 1, 1, 8)))
    fused(x, training=True), plain(x, training=True)
    assert_near(fused.get_weights(), plain.get_weights(), 1e-5)


def test_frozen_layer_uses_and_keeps_the_moving_statistics():
    fused, plain = pair()
    fused.trainable = plain.trainable = False
    before = copy.deepcopy(fused.get_weights())
    x = tf.constant(images())
    assert_near(run(fused, x, training=True), run(plain, x, training=True), 1e-5)
    assert_near(fused.get_weights(), before, 0)


@pytest.mark.parametrize("training", [True, False])
def test_is_one_fused_operation(training):
    types = op_types(pair()[0], (4, 6, 5, 8), training=training)
    assert "FusedBatchNormV3" in types
    assert not types & {"SquaredDifference", "Rsqrt", "Mean"}


@pytest.mark.parametrize(
    ("options", "shape"),
    [
        ({"axis": 1}, (4, 8, 5, 6)),
        ({}, (16, 8)),
        ({}, (4, 6, 8)),
        ({}, (2, 3, 4, 5, 8)),
        ({"dtype": "float64"}, (4, 6, 5, 8)),
        ({"renorm": True}, (4, 6, 5, 8)),
    ],
)
def test_other_cases_take_keras_own_path(options, shape):
    layers = FusedBatchNormalization(**options), keras.layers.BatchNormalization(**options)
    x = tf.cast(images(shape), options.get("dtype", "float32"))
    results = [run(layer, x, training=True) for layer in layers]
    assert_near(*results, 0)
    assert "FusedBatchNormV3" not in op_types(layers[0], shape, training=True)


@pytest.mark.parametrize("policy", TOLERANCES)
def test_frozen_and_deterministic_it_has_a_gradient_on_gpus(policy, monkeypatch):
    """That of the fused operation raises an error there."""
    layer, plain = pair(dtype=policy)
    layer.trainable = plain.trainable = False
    x = tf.cast(images(), layer.compute_dtype)
    monkeypatch.setattr(placement, "deterministic", lambda: True)
    both = run(layer, x, training=True), run(plain, x, training=True)
    assert_near(*both, TOLERANCES[policy])
    assert "FusedBatchNormV3" not in op_types(layer, x.shape, training=True)
    assert "FusedBatchNormV3" in op_types(layer, x.shape, training=False)


def test_masked_input_takes_keras_own_path():
    # Keras broadcasts a mask only where its shape is that of the input without channels.
    mask = np.random.default_rng(2).uniform(size=(4, 6, 5)) > 0.5
    fused, plain = pair()
    x = tf.constant(images())
    masked = run(fused, x, training=True, mask=mask)
    assert_near(masked, run(plain, x, training=True, mask=mask), 0)
    assert np.abs(masked[-1] - run(pair()[0], x, training=True)[-1]).max() > 1e-3


REPLICAS = """
import keras, numpy as np, tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from keras_lightnets.layers import FusedBatchNormalization

strategy = tf.distribute.MirroredStrategy(
    ["CPU:0", "CPU:1"], cross_device_ops=tf.distribute.ReductionToOneDevice()
)
x = (3 * np.random.default_rng(0).normal(size=(4, 6, 5, 8)) + 2).astype("float32")
for synchronized in (True, False):
    with strategy.scope():
        layer = FusedBatchNormalization(synchronized=synchronized)
        layer.build((None, 6, 5, 8))
    data = tf.data.Dataset.from_tensor_slices(x).batch(4, drop_remainder=True)
    shards = next(iter(strategy.experimental_distribute_dataset(data)))
    strategy.run(tf.function(lambda image: layer(image, training=True)), args=(shards,))
    seen = x if synchronized else x[:2]
    for weight, statistic in (
        (layer.moving_mean, seen.mean((0, 1, 2)) * 0.01),
        (layer.moving_variance, 0.99 + seen.var((0, 1, 2)) * 0.01),
    ):
        np.testing.assert_allclose(weight.numpy(), statistic, rtol=1e-4)

factors = np.random.default_rng(1).normal(size=x.shape).astype("float32")
x[:2] += 1  # batches that differ

def differentiate(layer, x, factors):
    variables = [layer.gamma.value, layer.beta.value]
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x, training=True)
        loss = tf.reduce_sum(factors * tf.cast(y, "float32"))
    return y, *tape.gradient(loss, [x, *variables])

for policy, tolerance in (("float32", 1e-5), ("mixed_bfloat16", 0.06)):
    plain = keras.layers.BatchNormalization()
    plain.build((None, 6, 5, 8))
    with strategy.scope():
        layer = FusedBatchNormalization(synchronized=True, dtype=policy)
        layer.build((None, 6, 5, 8))
    typed = tf.cast(x, layer.compute_dtype)
    data = tf.data.Dataset.from_tensor_slices((typed, factors)).batch(4, drop_remainder=True)
    shards = next(iter(strategy.experimental_distribute_dataset(data)))
    run = tf.function(lambda *shard: differentiate(layer, *shard))
    parts = [strategy.experimental_local_results(v) for v in strategy.run(run, args=shards)]
    y, dx = (np.concatenate([np.float32(part) for part in both]) for both in parts[:2])
    received = y, dx, *(sum(part.numpy() for part in both) for both in parts[2:])
    expected = differentiate(plain, tf.constant(x), factors)
    for one, other in zip(received, expected, strict=True):
        other = other.numpy()
        assert np.abs(one - other).max() < tolerance * np.abs(other).max(), (policy, one, other)
"""


def test_two_replicas():
    """Synchronized, statistics and gradients are those of the whole batch, else a replica's own."""
    subprocess.run([sys.executable, "-c", REPLICAS], check=True, timeout=120)


def model_with(layer_class):
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(8, 3, name="conv")(inputs)
    x = layer_class(momentum=0.8, epsilon=1e-5, name="bn")(x)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(inputs, keras.layers.Dense(2, name="head")(x))


def test_weights_and_config_are_interchangeable_with_keras_layer():
    plain = model_with(keras.layers.BatchNormalization)
    fused = model_with(FusedBatchNormalization)
    config = plain.get_layer("bn").get_config()
    assert fused.get_layer("bn").get_config() == config
    assert FusedBatchNormalization.from_config(config).momentum == 0.8
    plain.get_layer("bn").set_weights(np.random.default_rng(4).uniform(0.5, 2, (4, 8)))
    fused.set_weights(plain.get_weights())
    x = images((2, 8, 8, 3))
    assert_near([fused(x)], [plain(x)], 1e-5)


def test_save_clone_and_export(tmp_path):
    model = model_with(FusedBatchNormalization)
    model.compile("sgd", "mse")
    model.fit(images((8, 8, 8, 3)), np.zeros((8, 2), "float32"), batch_size=4, verbose=0)
    x = images((2, 8, 8, 3), seed=3)
    expected = np.asarray(model(x))

    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert type(loaded.get_layer("bn")) is FusedBatchNormalization
    np.testing.assert_allclose(loaded(x), expected, rtol=1e-5)

    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    np.testing.assert_allclose(clone(x), expected, rtol=1e-5)

    model.export(tmp_path / "saved_model", verbose=False)
    served = tf.saved_model.load(tmp_path / "saved_model").signatures["serving_default"]
    np.testing.assert_allclose(next(iter(served(tf.constant(x)).values())), expected, rtol=1e-4)
