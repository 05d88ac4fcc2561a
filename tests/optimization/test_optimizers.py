"""Update rules against the formulas of their sources, in float64 NumPy."""

import dataclasses
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_lightnets.layers import GroupedConv2D
from lightnets.config.keys import Config, ModelConfig, OptimizerConfig, TrainConfig
from lightnets.optimization import optimizers
from lightnets.optimization.muon import Muon, orthogonalize
from tests.checkout import ROOT

NAMES = ["sgd", "rmsprop", "adamw", "lion", "muon"]
RATES = 0.1 * 0.5 ** np.arange(4)  # halves at each step
L2 = 0.1


def config(**options):
    options = {"schedule": "step", "decay_rate": 0.5, "learning_rate": 0.1, **options}
    return Config(
        model=ModelConfig(), optimizer=OptimizerConfig(**options), train=TrainConfig(epochs=4)
    )


def small_net(dtype=None):
    keras.utils.set_random_seed(0)
    image = keras.Input((8, 8, 3), name="image")
    x = keras.layers.Conv2D(6, 3, use_bias=False, name="stem_conv", dtype=dtype)(image)
    x = keras.layers.BatchNormalization(name="stem_bn")(x)
    x = keras.layers.DepthwiseConv2D(3, use_bias=False, name="depthwise_conv")(x)
    x = GroupedConv2D(12, 1, groups=3, use_bias=False, name="expand_conv")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(image, keras.layers.Dense(4, name="logits")(x))


def trajectory(options, steps=4):
    """Weights of the classifier kernel (decayed) and of gamma (not) after each step."""
    model = small_net()
    optimizer = optimizers.build(config(**options), 1, model)
    rng = np.random.default_rng(0)
    values = []
    gradients = []
    for _ in range(steps):
        gradient = [rng.normal(size=v.shape).astype("float32") for v in model.trainable_variables]
        optimizer.apply([tf.constant(g) for g in gradient])
        values.append([v.numpy() for v in model.trainable_variables])
        gradients.append(gradient)
    return model, gradients, values


def check(options, reference, atol=1e-6):
    """Compares every variable with `reference(w, gradients, decayed) -> list of w`."""
    initial = [v.numpy().astype("float64") for v in small_net().trainable_variables]
    model, gradients, values = trajectory(options)
    for index, (variable, w) in enumerate(zip(model.trainable_variables, initial, strict=True)):
        expected = reference(w, [g[index] for g in gradients], len(variable.shape) > 1)
        for step, value in enumerate(expected):
            np.testing.assert_allclose(
                values[step][index], value, rtol=2e-5, atol=atol, err_msg=variable.path
            )


@pytest.mark.parametrize("nesterov", [False, True])
def test_sgd_is_that_of_torch(nesterov):
    # Fails for Keras' SGD: decoupled decay, and a momentum that holds old rates.
    def torch_sgd(w, gradients, decayed):
        buffer = 0.0
        for rate, gradient in zip(RATES, gradients, strict=True):
            gradient = gradient + (L2 * w if decayed else 0.0)
            buffer = 0.9 * buffer + gradient
            w = w - rate * (gradient + 0.9 * buffer if nesterov else buffer)
            yield w

    check({"name": "sgd", "weight_decay": L2, "nesterov": nesterov}, torch_sgd)


def test_rmsprop_is_that_of_tensorflow_1():
    # Fails when epsilon is outside the root, or when the mean of squares starts at 0.
    def rmsprop(w, gradients, decayed):
        square, momentum = 1.0, 0.0
        for rate, gradient in zip(RATES, gradients, strict=True):
            gradient = gradient + (L2 * w if decayed else 0.0)
            square = 0.9 * square + 0.1 * gradient**2
            momentum = 0.9 * momentum + rate * gradient / np.sqrt(square + 1.0)
            w = w - momentum
            yield w

    check({"name": "rmsprop", "weight_decay": L2, "epsilon": 1.0}, rmsprop)


def adamw(w, gradients, decayed, epsilon=1e-7):
    mean, square = 0.0, 0.0
    for step, (rate, gradient) in enumerate(zip(RATES, gradients, strict=True), 1):
        if decayed:
            w = w * (1 - rate * L2)
        mean = 0.9 * mean + 0.1 * gradient
        square = 0.999 * square + 0.001 * gradient**2
        corrected = np.sqrt(square / (1 - 0.999**step))
        w = w - rate * mean / (1 - 0.9**step) / (corrected + epsilon)
        yield w


def test_adamw_decays_the_weights_and_not_the_gradient():
    # float32 leaves three digits of 1 - 0.999**step.
    check({"name": "adamw", "weight_decay": L2}, adamw, atol=2e-4)


def test_lion_uses_its_own_betas():
    # Fails with AdamW's beta_2 of 0.999.
    def lion(w, gradients, decayed):
        momentum = 0.0
        for rate, gradient in zip(RATES, gradients, strict=True):
            if decayed:
                w = w * (1 - rate * L2)
            w = w - rate * np.sign(0.9 * momentum + 0.1 * gradient)
            momentum = 0.99 * momentum + 0.01 * gradient
            yield w

    check({"name": "lion", "weight_decay": L2}, lion)


def test_muon_takes_hidden_convolutions_per_group_and_leaves_the_rest_to_adamw():
    model = small_net()
    assert optimizers.matrices_for_muon(model) == {"expand_conv/kernel": 3}

    initial = [v.numpy() for v in model.trainable_variables]
    _, gradients, values = trajectory({"name": "muon", "weight_decay": 0.0}, steps=1)
    paths = [v.path for v in model.trainable_variables]
    index = paths.index("expand_conv/kernel")
    step = (initial[index] - values[0][index])[0, 0] / RATES[0]
    # The first direction is the gradient, so the step of a group is U V^T of its gradient.
    for group in range(3):
        columns = slice(4 * group, 4 * group + 4)
        u, _, v = np.linalg.svd(gradients[0][index][0, 0][:, columns], full_matrices=False)
        got = step[:, columns] / (0.2 * np.sqrt(4))
        singular = np.linalg.svd(got, compute_uv=False)
        assert singular.min() > 0.5
        assert singular.max() < 1.3
        assert np.trace(got.T @ (u @ v)) > 1.0
    for index, path in enumerate(paths):
        if path != "expand_conv/kernel":
            expected = initial[index] - RATES[0] * np.sign(gradients[0][index])
            np.testing.assert_allclose(values[0][index], expected, atol=1e-4, err_msg=path)


def test_orthogonalize_keeps_the_directions():
    rng = np.random.default_rng(0)
    for shape in ((2, 8, 3), (2, 3, 8)):
        x = rng.normal(size=shape).astype("float32")
        u, _, v = np.linalg.svd(x, full_matrices=False)
        y = np.asarray(orthogonalize(tf.constant(x)))
        inner = np.einsum("gmi,gmn,gin->gi", u, y, v)  # its singular values in x's own basis
        assert inner.min() > 0.5
        assert inner.max() < 1.3
        np.testing.assert_allclose(y, np.einsum("gmi,gi,gin->gmn", u, inner, v), atol=1e-4)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, {"gamma", "beta", "bias"}),
        ({"decay_depthwise": False}, {"gamma", "beta", "bias", "depthwise_conv"}),
        ({"decay_norm_and_bias": True}, set()),
    ],
)
def test_who_is_spared_the_decay(options, expected):
    model = small_net()
    spared = optimizers.variables_without_decay(model, config(**options).optimizer)
    names = {v.path.split("/")[0 if len(v.shape) > 1 else 1] for v in spared}
    assert names == expected


@pytest.mark.parametrize("name", NAMES)
def test_variables_left_out_of_a_step_do_not_move(name):
    model = small_net()
    optimizer = optimizers.build(config(name=name, weight_decay=0.1), 1, model)
    before = {v.path: v.numpy() for v in model.variables}
    head = model.get_layer("logits").trainable_variables
    slots = [v for v in optimizer.variables if "logits" not in v.path]
    slots_before = {v.path: v.numpy() for v in slots if "iteration" not in v.path}
    for _ in range(2):
        optimizer.apply([tf.ones(v.shape) for v in head], head)
    for variable in model.variables:
        moved = not np.array_equal(variable.numpy(), before[variable.path])
        assert moved == ("logits" in variable.path), variable.path
    for slot in slots:
        if slot.path in slots_before:
            np.testing.assert_array_equal(slot.numpy(), slots_before[slot.path])
    assert int(optimizer.iterations.numpy()) == 2


@pytest.mark.parametrize("name", NAMES)
def test_state_restored_from_a_checkpoint_continues_bit_for_bit(name, tmp_path):
    rng = np.random.default_rng(1)
    options = config(name=name)
    model = small_net()
    optimizer = optimizers.build(options, 1, model)
    gradients = [[rng.normal(size=v.shape) for v in model.trainable_variables] for _ in range(5)]

    def apply(optimizer, some):
        for gradient in some:
            optimizer.apply([tf.constant(g, "float32") for g in gradient])

    apply(optimizer, gradients[:3])
    path = tf.train.Checkpoint(model=model, optimizer=optimizer).save(str(tmp_path / "c"))
    apply(optimizer, gradients[3:])

    again = small_net()
    other = optimizers.build(options, 1, again)
    apply(other, gradients[:1])
    status = tf.train.Checkpoint(model=again, optimizer=other).restore(path)
    status.assert_existing_objects_matched()
    apply(other, gradients[3:])
    for a, b in zip(model.variables, again.variables, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy(), err_msg=a.path)
    for a, b in zip(optimizer.variables, other.variables, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy(), err_msg=a.path)


@pytest.mark.slow
def test_two_replicas_do_as_one():
    # In a process of its own: TensorFlow splits its CPU before its first operation or never.
    process = subprocess.run(
        [sys.executable, __file__],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert process.returncode == 0, process.stderr
    assert process.stdout.split() == NAMES


def compare_two_replicas_with_one(name):
    """Each replica hands in half of the gradient; Keras' own sum makes it whole."""
    strategy = tf.distribute.MirroredStrategy(
        ["/cpu:0", "/cpu:1"], cross_device_ops=tf.distribute.ReductionToOneDevice()
    )
    single = small_net()
    optimizer = optimizers.build(config(name=name), 1, single)
    with strategy.scope():
        mirrored = small_net()
        distributed = optimizers.build(config(name=name), 1, mirrored)

    def apply(gradients):
        distributed.apply([g / 2 for g in gradients], mirrored.trainable_variables)

    @tf.function
    def step(gradients):
        strategy.run(apply, args=(gradients,))

    rng = np.random.default_rng(2)
    for _ in range(3):
        gradients = [
            tf.constant(rng.normal(size=v.shape), "float32") for v in single.trainable_variables
        ]
        optimizer.apply(gradients)
        step(gradients)
    for a, b in zip(single.variables, mirrored.variables, strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-5, atol=1e-6, err_msg=a.path)


def test_step_in_the_schedule_is_the_optimizer_step():
    model = small_net()
    options = dataclasses.replace(config().optimizer, schedule="linear", weight_decay=0.0)
    optimizer = optimizers.build(
        Config(optimizer=options, train=TrainConfig(epochs=2)), steps_per_epoch=5, model=model
    )
    for _ in range(3):
        optimizer.apply([tf.zeros(v.shape) for v in model.trainable_variables])
    assert float(optimizer.learning_rate) == pytest.approx(0.1 * 0.7)


def test_muon_without_matrices_is_adamw():
    model = small_net()
    muon = Muon(0.01, matrices={}, weight_decay=0.01)
    start = [tf.identity(v) for v in model.trainable_variables]
    gradient = [tf.ones(v.shape) for v in model.trainable_variables]
    muon.apply(gradient, model.trainable_variables)
    got = [v.numpy() for v in model.trainable_variables]
    for v, value in zip(model.trainable_variables, start, strict=True):
        v.assign(value)
    keras.optimizers.AdamW(0.01, weight_decay=0.01).apply(gradient, model.trainable_variables)
    for v, value in zip(model.trainable_variables, got, strict=True):
        np.testing.assert_allclose(value, v.numpy(), rtol=1e-5, atol=1e-7)


if __name__ == "__main__":
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    for optimizer_name in NAMES:
        compare_two_replicas_with_one(optimizer_name)
        print(optimizer_name)


def test_keras_own_muon_leaves_convolutions_to_adamw():
    """When it no longer does, `lightnets.optimization.muon` can go."""
    start, gradient = (
        np.random.default_rng(seed).normal(size=(3, 3, 4, 8)).astype("float32") for seed in (0, 1)
    )
    ends = []
    for optimizer in (
        keras.optimizers.Muon(0.01, weight_decay=0.0, adam_weight_decay=0.0),
        keras.optimizers.AdamW(0.01, weight_decay=0.0),
    ):
        kernel = keras.Variable(start)
        optimizer.apply([tf.constant(gradient)], [kernel])
        ends.append(kernel.numpy())
    np.testing.assert_allclose(ends[0], ends[1], rtol=0, atol=1e-6)
    assert np.abs(ends[0] - start).min() > 0.005
