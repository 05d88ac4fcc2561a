"""Without a GPU: what a step would launch and move there stays under recorded limits."""

import pytest
import tensorflow as tf

from tests import gpu_counts, processes


def test_launches_and_their_bytes_are_counted():
    held = tf.Variable(tf.zeros((4, 8)))

    @tf.function(autograph=False)
    def step(x):
        held.assign(tf.reshape(tf.transpose(x), (4, 8)) + held)
        return tf.strings.length(tf.strings.as_string(held))  # which no GPU computes

    graph = gpu_counts.optimized(step.get_concrete_function(tf.TensorSpec((8, 4))).graph)
    launches = [found for op in graph.get_operations() if (found := gpu_counts._launch(op))]
    unnamed = [each._replace(name="") for each in launches]
    # Two maps of 128 bytes and an order of two numbers; three maps.
    assert sorted(unnamed) == [("AddV2", "", 3 * 128), ("Transpose", "", 2 * 128 + 2 * 4)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "keys", "launches", "gigabytes", "transposes"),
    [
        ("mobilenet_v2", {}, 1200, 57, 0),
        ("mobilenet_v2", {"replicas": 2, "sync_bn": True}, 3200, 81, 0),
        ("shufflenet_v1", {"options": {"groups": 8}}, 1200, 54, 32),
    ],
)
def test_a_step_stays_under_its_limits(family, keys, launches, gigabytes, transposes):
    call = gpu_counts.launches_of_step
    found = gpu_counts.summary(processes.call(call, family, "mixed_bfloat16", timeout=600, **keys))
    assert found["launches"] <= launches
    assert found["gigabytes"] <= gigabytes
    assert found["transposes"] <= transposes
