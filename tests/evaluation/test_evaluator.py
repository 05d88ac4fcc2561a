"""Evaluation counts every image once, for any size of the set and any number of replicas."""

import contextlib

import numpy as np
import pytest

from lightnets.distribution.workers import Cluster
from lightnets.evaluation import scoring
from lightnets.evaluation.evaluator import Evaluator
from tests import processes, toy

SIZES = [1, 7, 359, 360]
BATCH = 32


def scores(devices, members=None):
    """Scores one network on sets of all sizes, in this process."""
    import keras

    from lightnets.distribution import strategy

    keras.utils.set_random_seed(0)
    chosen = strategy.create(devices, members)
    results = []
    with chosen.scope():
        model = toy.build_model(toy.config(), toy.ToySplits(0))
    for size in SIZES:
        evaluator = Evaluator(model, toy.ToySplits(0, eval_examples=size), BATCH, chosen)
        results.append(scoring.score(*evaluator.predict()))
    return results


@pytest.fixture(scope="module")
def one():
    """The numbers of one device."""
    results = processes.call(scores, "cpu:1")
    assert [result["images"] for result in results] == SIZES
    return results


def assert_equal(results, expected):
    for mine, theirs in zip(results, expected, strict=True):
        assert mine["images"] == theirs["images"]
        assert mine["accuracy"] == theirs["accuracy"]
        assert mine["loss"] == pytest.approx(theirs["loss"], abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("devices", [2, 4])
def test_every_number_of_replicas_gives_the_same(one, devices):
    # Catches padding that counts, and a last batch smaller than the number of replicas.
    assert_equal(processes.call(scores, f"cpu:{devices}"), one)


def test_two_workers_give_the_same_and_both_know_it(one):
    # Catches numbers of a worker's own images, and images that both count.
    addresses = tuple(f"127.0.0.1:{port}" for port in processes.free_ports(2))
    children = [processes.Child(scores, "cpu:1", Cluster(addresses, index)) for index in range(2)]
    for child in children:
        assert_equal(child.result(), one)


def order_of_reading():
    import tensorflow as tf

    seen = []

    class Output:
        def numpy(self):
            seen.append("read")
            return np.zeros((BATCH,))

    def step(batch):
        seen.append("step")
        return [Output()]

    model = toy.build_model(toy.config(), toy.ToySplits(0))
    splits = toy.ToySplits(0, eval_examples=3 * BATCH)
    evaluator = Evaluator(model, splits, BATCH, tf.distribute.get_strategy())
    evaluator._step = step
    with contextlib.suppress(ValueError):  # there are three columns in truth
        evaluator.predict()
    return seen


def test_a_device_has_the_next_batch_before_results_are_waited_for():
    seen = processes.call(order_of_reading)
    assert seen == ["step", "step", "read", "step", "read", "read"]
