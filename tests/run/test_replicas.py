"""The same run on 1, 2 and 4 replicas and on 2 worker processes ends with the same weights."""

import numpy as np
import pytest

from tests import processes, toy

# 30 steps with all that could differ: batch norm, clipping, accumulation, average.
KEYS = {
    "epochs": 5,
    "batch_size": 16,
    "accumulate": 2,
    "sync_bn": True,
    "ema": 0.9,
    "optimizer__global_clipnorm": 0.5,
    "model__dropout_rate": 0.0,
}
SIZES = {"train_examples": 96}


def trained(tmp_path, name, **keys):
    """Returns the results and the final weights of a run."""
    out = tmp_path / name
    results = processes.call(toy.run, toy.config(**KEYS, **keys), out, **SIZES)
    return results, processes.call(toy.weights_of, out / "weights" / "last.keras")


def workers_trained(tmp_path, name, **keys):
    """Does the same on two worker processes."""
    out = tmp_path / name
    addresses = ",".join(f"127.0.0.1:{port}" for port in processes.free_ports(2))
    children = [
        processes.Child(
            toy.run,
            toy.config(**KEYS, workers=addresses, worker_index=index, **keys),
            out,
            **SIZES,
        )
        for index in range(2)
    ]
    results = [child.result() for child in children]
    assert results[0] == results[1]
    return results[0], processes.call(toy.weights_of, out / "weights" / "last.keras")


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """The run on one device."""
    return trained(tmp_path_factory.mktemp("one"), "run")


@pytest.mark.slow
@pytest.mark.parametrize(("devices", "steps"), [(2, 1), (4, 4)])
def test_replicas_train_as_one_device_does(tmp_path, one, devices, steps):
    # Catches clipping before the sum, batch norm per replica, parts cut in blocks; with 4
    # steps in one execution also steps that are lost or repeated at the end of an epoch.
    keys = {"devices": f"cpu:{devices}", "steps_per_execution": steps}
    assert_equal(trained(tmp_path, "run", **keys), one)


def without_all_reduce(config, out):
    """Trains where `ReplicaContext.all_reduce` is forbidden."""
    import tensorflow as tf

    tf.distribute.ReplicaContext.all_reduce = None
    return toy.run(config, out)


def test_no_sum_walks_over_the_graph_of_the_other_replicas(tmp_path):
    # Catches TensorFlow's differentiable sum, with which tracing a real network takes minutes.
    config = toy.config(devices="cpu:2", sync_bn=True, epochs=1)
    assert processes.call(without_all_reduce, config, tmp_path)["steps"] == 6


@pytest.mark.slow
def test_two_workers_train_as_one_device_does(tmp_path, one):
    assert_equal(workers_trained(tmp_path, "run"), one)


def test_the_comparison_can_fail(tmp_path, one):
    """Per-replica batch norm, which is what one gets without sync_bn, differs visibly."""
    other = trained(tmp_path, "run", devices="cpu:2", **{"train__sync_bn": False})
    assert max(np.abs(a - b).max() for a, b in zip(other[1], one[1], strict=True)) > 1e-4


def moving_statistics(tmp_path, devices):
    """Returns the moving mean and variance after the first step, each replica by itself."""
    config = toy.config(epochs=1, batch_size=16, devices=devices, model__dropout_rate=0.0)
    processes.call(toy.run, config, tmp_path / devices, train_examples=16)
    weights = processes.call(toy.weights_of, tmp_path / devices / "weights" / "last.keras")
    return [w for w in weights if w.shape == (8,)][2:4]


def test_moving_statistics_are_those_of_all_replicas(tmp_path):
    mean, variance = moving_statistics(tmp_path, "cpu:2")
    all_mean, all_variance = moving_statistics(tmp_path, "cpu:1")
    # The mean of two halves is that of both; the variance lacks that between the halves.
    np.testing.assert_allclose(mean, all_mean, rtol=0, atol=1e-6)
    np.testing.assert_allclose(variance, all_variance, rtol=0, atol=0.01)


@pytest.mark.slow
def test_replicas_train_for_int8_as_one_device_does(tmp_path):
    # Mutations: ranges of one replica, after a step or in the second part of it.
    runs = [
        trained(tmp_path, devices, devices=devices, model__quantize="int8")
        for devices in ("cpu:1", "cpu:2")
    ]
    (one, ours), (two, theirs) = runs
    assert two["last"]["loss"] == pytest.approx(one["last"]["loss"], abs=5e-4)
    for mine, other in zip(ours, theirs, strict=True):
        # A number between two levels may round either way, which few weights feel.
        np.testing.assert_allclose(mine, other, rtol=0, atol=5e-3)
        assert np.abs(mine - other).mean() < 6e-4


@pytest.mark.slow
def test_several_steps_in_one_execution_change_nothing(tmp_path, one):
    results, weights = trained(tmp_path, "run", devices="cpu:2", steps_per_execution=4)
    assert_equal((results, weights), one)


def assert_equal(run, expected):
    results, weights = run
    assert results["steps"] == expected[0]["steps"] == 30
    assert results["images"] == expected[0]["images"]
    assert results["last"]["loss"] == pytest.approx(expected[0]["last"]["loss"], abs=1e-5)
    for mine, theirs in zip(weights, expected[1], strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-5)
