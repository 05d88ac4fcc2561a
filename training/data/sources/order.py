"""Which examples a step sees: a pure function of (seed, step).

Every epoch is a full permutation of the examples by index, so nothing is shuffled in memory
and a run continues at any step at once. An epoch holds whole batches; the examples left over
are dropped, others in each epoch.
"""

from __future__ import annotations

import tensorflow as tf

# A pseudorandom permutation, of which any part can be computed alone. The stubs lack it.
index_shuffle = tf.random.experimental.index_shuffle  # pyright: ignore[reportAttributeAccessIssue]


def step_positions(
    step: tf.Tensor, *, examples: int, global_batch: int, seed: int, shard: int, shards: int
) -> tf.Tensor:
    """Returns the positions of the examples of one step of training.

    Args:
        step: int64 scalar, steps since the start of training.
        examples: Number of examples in the set; at least `global_batch`.
        global_batch: Images per step over all shards.
        seed: Of the run.
        shard: Which part of the global batch, below `shards`.
        shards: Into how many equal parts the global batch is cut.

    Returns:
        int64 `(global_batch // shards,)`, each below `examples`.
    """
    steps_per_epoch = examples // global_batch
    epoch = step // steps_per_epoch
    local = global_batch // shards
    first = (step - epoch * steps_per_epoch) * global_batch + shard * local
    shuffle_seed = tf.stack([tf.constant(seed, tf.int64), epoch])
    return index_shuffle(
        first + tf.range(local, dtype=tf.int64), seed=shuffle_seed, max_index=examples - 1
    )


def positions_of_pass(
    step: tf.Tensor, *, examples: int, global_batch: int, shard: int = 0, shards: int = 1
) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the positions of the examples of one step of a pass in order, and their weights.

    The last batch is filled up with the last example at weight 0.

    Args:
        step: int64 scalar, of `steps_of_pass`.
        examples: Number of examples in the set.
        global_batch: Images per step over all shards.
        shard: Which part of the global batch, below `shards`.
        shards: Into how many equal parts the global batch is cut.

    Returns:
        int64 and float32, `(global_batch // shards,)`.
    """
    local = global_batch // shards
    positions = step * global_batch + shard * local + tf.range(local, dtype=tf.int64)
    weights = tf.cast(positions < examples, tf.float32)
    return tf.minimum(positions, examples - 1), weights


def steps_of_pass(examples: int, global_batch: int) -> tf.data.Dataset:
    """Returns the steps of one pass."""
    return tf.data.Dataset.range(-(-examples // global_batch))


def example_keys(seed: int, epoch: tf.Tensor, positions: tf.Tensor) -> tf.Tensor:
    """Returns the seeds, int64 `(batch, 2)`, of all that is random about examples in an epoch."""
    high = tf.fill(tf.shape(positions), tf.constant(seed, tf.int64) * 2**31 + epoch)
    return tf.stack([high, positions], axis=1)


def sub_key(key: tf.Tensor, purpose: int) -> tf.Tensor:
    """Returns another seed of the same example for another purpose, a number from 1."""
    return key + tf.constant([0, purpose * 2**40], tf.int64)
