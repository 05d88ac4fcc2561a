"""The private part of Keras that the step replaces, and batch norm's helpers."""

import inspect

import keras
import pytest
from keras.src.backend.tensorflow import optimizer as tf_optimizer

from tests import toy
from training import batch_norm, step


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
