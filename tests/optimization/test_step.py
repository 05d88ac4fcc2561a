"""The private part of Keras that the step replaces, and batch norm's helpers."""

import functools
import inspect

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras.src.backend.tensorflow import optimizer as tf_optimizer

import keras_lightnets
from lightnets.config.keys import DistillationConfig, OptimizerConfig, TrainConfig
from lightnets.distribution import strategy
from lightnets.optimization import batch_norm, step
from tests import processes, toy


def test_keras_still_sums_gradients_where_the_step_expects_it():
    """Checked with Keras 3.15: `_backend_update_step` sums by `_all_reduce_sum_gradients`."""
    assert keras.version().startswith("3.15.")
    update = inspect.getsource(tf_optimizer.TFOptimizer._backend_update_step)
    assert "self._all_reduce_sum_gradients(grads_and_vars)" in update
    optimizer = keras.optimizers.SGD()
    step._leave_reduction_to_us(optimizer)
    assert optimizer._all_reduce_sum_gradients([(1, 2)]) == [(1, 2)]


def test_an_unknown_keras_is_refused():
    with pytest.raises(RuntimeError, match=r"Install Keras 3\.15"):
        step._leave_reduction_to_us(object())


@pytest.mark.parametrize(("steps", "momentum", "warns"), [(190, 0.99, True), (190, 0.9, False)])
def test_too_few_steps_for_the_momentum_are_warned_of(steps, momentum, warns):
    warning = batch_norm.few_steps_warning(steps, momentum)
    assert bool(warning) == warns
    if warns:
        assert "15% of their initial values remain" in warning
        assert "bn_momentum=0.97 or lower" in warning


def test_synchronize_reaches_every_batch_norm():
    model = toy.build_model(toy.config(), toy.ToySplits(0))
    assert [layer.synchronized for layer in batch_norm.layers(model)] == [False]
    batch_norm.synchronize(model)
    assert [layer.synchronized for layer in batch_norm.layers(model)] == [True]
    model.get_layer("bn").trainable = False
    assert batch_norm.statistics(model) == []


def test_the_loss_scale_grows_after_enough_steps_and_has_a_floor():
    state = step.LoopState(scaled=True)
    state.finite_steps.assign(1998)
    scales = []
    for _ in range(3):
        state.judge(tf.constant(True))
        scales.append(float(state.loss_scale))
    assert scales == [2.0**15, 2.0**16, 2.0**16]
    assert int(state.finite_steps) == 1
    for _ in range(16):
        state.judge(tf.constant(False))
    assert (float(state.loss_scale), int(state.failed_step)) == (1.0, -1)
    # At the floor it is not the scale that is wrong: the run has failed, in this step.
    state.step.assign(42)
    state.judge(tf.constant(False))
    assert (float(state.loss_scale), int(state.failed_step)) == (1.0, 42)
    assert int(state.skipped) == 17


@pytest.mark.parametrize("recompute", [False, True])
def test_activations_are_recomputed_if_asked_for(recompute):
    model = keras_lightnets.create_model("mobilenet_v2", input_shape=(32, 32, 3), alpha=0.35)
    config = TrainConfig(recompute=recompute)
    optimizer = keras.optimizers.SGD()
    train = step.TrainStep(model, optimizer, step.LoopState(False), config, OptimizerConfig())
    batch = tf.zeros((2, 32, 32, 3)), tf.zeros((2, 1000)), tf.zeros(2), tf.constant(2.0)
    graph = (
        tf.function(train._gradients).get_concrete_function(*batch, [tf.zeros(2, tf.int32)]).graph
    )
    norms = [op for op in graph.get_operations() if op.type == "FusedBatchNormV3"]
    assert all(op.get_attr("is_training") for op in norms) == (not recompute)


def seeds_of_all():
    chosen = strategy.create("cpu:2")
    with chosen.scope():
        model = toy.build_model(toy.config(), toy.ToySplits(0))
        state, config = step.LoopState(False), TrainConfig(accumulate=2)
        train = step.TrainStep(model, keras.optimizers.SGD(), state, config, OptimizerConfig())

    @tf.function
    def seeds(number, part):
        return chosen.run(lambda: train._seeds_of(number, part)[0])

    found = []
    for number in range(2):
        for part in range(2):
            values = chosen.experimental_local_results(seeds(tf.constant(number), part))
            found += [tuple(value.numpy().tolist()) for value in values]
    return found


def test_dropout_differs_by_step_replica_and_part():
    found = processes.call(seeds_of_all)
    assert len(set(found)) == len(found) == 8


def test_a_gpu_is_not_asked_for_the_seeds_of_dropout():
    # Mutations: seeds computed on the GPU; the number of the step read from its variable there.
    drop, inputs = keras.layers.Dropout(0.5), keras.Input((3,))
    model = keras.Model(inputs, drop(keras.layers.Dense(3)(drop(inputs))))
    optimizer, state = keras.optimizers.SGD(), step.LoopState(False)
    optimizer.build(model.trainable_variables)
    train = step.TrainStep(model, optimizer, state, TrainConfig(), OptimizerConfig())

    @tf.function(autograph=False)
    def on_gpu(number):
        with tf.device("GPU:0"):  # which need not be there to be named
            batch = tf.zeros((2, 3)), tf.zeros((2, 3)), tf.ones(2), tf.zeros(1)
            return train(*batch, number=number)

    graph = on_gpu.get_concrete_function(tf.constant(0)).graph
    keys = [op for op in graph.get_operations() if op.type == "StatelessRandomGetKeyCounter"]
    masks = [op for op in keys if "dropout" in op.name]
    seeds = {mask.inputs[0].name for mask in masks}
    assert len(masks) == len(seeds) == 2
    for mask in masks:
        found, ahead = [], [mask.inputs[0].op]
        while ahead:
            found.append(ahead.pop())
            ahead += [tensor.op for tensor in found[-1].inputs]
        kinds = {op.type for op in found}
        assert kinds >= {"Placeholder", "Const"}
        assert "ReadVariableOp" not in kinds
        elsewhere = {op.type for op in found if op.inputs and "CPU" not in op.device}
        assert elsewhere <= {"AddV2"}  # of int32, which GPUs leave to the host as well


def taught(labels, images, student_weight, rate):
    """Takes one step with a teacher of other weights; returns weights, sums and both's logits."""
    keras.utils.set_random_seed(0)
    config = toy.config(model__dropout_rate=0.0)
    model, other = (toy.build_model(config, toy.ToySplits(0)) for _ in range(2))
    model.get_layer("bn").trainable = other.get_layer("bn").trainable = False
    trained, teach = map(keras_lightnets.logits_model, (model, other))
    train = step.TrainStep(
        *(trained, keras.optimizers.SGD(rate), step.LoopState(False), TrainConfig()),
        OptimizerConfig(),
        teacher=functools.partial(teach, training=False),
        distillation=DistillationConfig(teacher="other", student_loss_weight=student_weight),
    )
    train._optimizer.build(trained.trainable_variables)
    pixels = tf.cast(images, tf.float32)
    logits = [np.asarray(network(pixels, training=False)) for network in (trained, teach)]
    _, sums = train(images, labels, tf.ones(len(images)), tf.zeros(1))
    return trained.get_weights(), np.asarray(sums), *logits


def test_an_image_without_a_label_counts_in_the_teachers_loss_alone():
    # Mutation: the labels' loss of an image without a label; its gradient, which TensorFlow takes
    # for that of shares that sum to 1.
    images, labels, _ = next(iter(toy.ToySplits(0).train(0, global_batch=8)))
    mine, sums, student, teacher = taught(tf.zeros_like(labels), images, 0.3, 0.1)
    theirs, teachers_sums, *_ = taught(labels, images, 0.0, 0.07)
    for a, b in zip(mine, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-6)
    assert sums[0] == pytest.approx(0.7 * teachers_sums[0], rel=1e-5)
    # Where it answers as the teacher does, it is right.
    agree = student.argmax(-1) == teacher.argmax(-1)
    assert 0 < agree.sum() < 8
    assert sums[2] == agree.sum()


def test_a_teacher_changes_the_loss_as_the_formula_says():
    # Mutation: no square of the temperature; weights swapped; the teacher's loss without weights.
    splits = toy.ToySplits(0)
    model = toy.build_model(toy.config(model__dropout_rate=0.0), splits)
    other = toy.build_model(toy.config(), splits)
    options = DistillationConfig(teacher="other", temperature=4.0, student_loss_weight=0.3)
    config = TrainConfig(label_smoothing=0.1)
    logits = keras_lightnets.logits_model(other)
    teach = functools.partial(logits, training=False)
    optimizer, state = keras.optimizers.SGD(0.0), step.LoopState(False)
    trained = keras_lightnets.logits_model(model)
    train = step.TrainStep(
        *(trained, optimizer, state, config, OptimizerConfig()),
        teacher=teach,
        distillation=options,
    )
    images, labels, _ = next(iter(splits.train(0, global_batch=8)))
    weights = np.linspace(0.5, 2, 8, dtype=np.float32)
    before = [np.asarray(v) for v in other.variables]
    student = trained(tf.cast(images, tf.float32), training=True)
    _, sums = train(images, labels, tf.constant(weights), tf.zeros(1))

    def log_softmax(x):
        x = np.asarray(x, np.float64)
        return x - np.log(np.exp(x).sum(-1, keepdims=True))

    target = np.asarray(labels) * 0.9 + 0.1 / toy.CLASSES
    hard = -(target * log_softmax(student)).sum(-1)
    p, q = log_softmax(teach(images) / 4), log_softmax(student / 4)
    soft = 16 * (np.exp(p) * (p - q)).sum(-1)
    expected = (weights * (0.3 * hard + 0.7 * soft)).sum()
    assert float(sums[0]) == pytest.approx(expected, rel=1e-5)
    for variable, value in zip(other.variables, before, strict=True):
        np.testing.assert_array_equal(variable, value)
    theirs = keras.distillation.LogitsDistillation(4.0, keras.losses.KLDivergence())
    ours = step.distillation_loss(teach(images), student, 4.0)
    mean = float(theirs.compute_loss(teach(images), student))
    assert float(tf.reduce_mean(ours)) == pytest.approx(mean, rel=1e-4)
