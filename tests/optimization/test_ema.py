"""The average of the weights: its formula, and that it is what is evaluated and saved."""

import keras
import numpy as np
import tensorflow as tf

from lightnets.optimization.ema import WeightAverage
from tests import processes, toy


def test_the_decay_warms_up_and_a_skipped_step_changes_nothing():
    variable = keras.Variable([1.0], name="w")
    average = WeightAverage([variable], decay=0.5)
    expected = 1.0
    for update in range(12):
        variable.assign([float(update)])
        applied = update != 5
        average.update(tf.constant(update, tf.int64), tf.constant(applied))
        if applied:
            expected += (1 - min(0.5, (1 + update) / (10 + update))) * (update - expected)
    np.testing.assert_allclose(average.variables[0].numpy(), [expected], rtol=1e-6)


def test_the_average_is_what_is_saved_bit_by_bit(tmp_path):
    # Catches saving the trained weights, or averaging a copy in another precision.
    processes.call(toy.run, toy.config(ema=0.9), tmp_path)
    saved, averages, trained = processes.call(read, tmp_path)
    assert len(averages) == 5
    for name, average in averages.items():
        assert average in saved, name
        assert average not in trained, name


def read(out):
    """Returns the bytes of the saved weights, and of averages and model in the checkpoint."""
    outcome = toy.outcome(out)
    saved = [weight.tobytes() for weight in toy.weights_of(out / "weights" / "last.keras")]
    averages = {n: value for n, value in outcome.items() if n.startswith("average/")}
    return saved, averages, [v for n, v in outcome.items() if n.startswith("model/")]
