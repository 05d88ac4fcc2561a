"""Global batches in pieces, the same ones on one machine and on several."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from keras_lightnets.layers import placement


def distribute(
    dataset: Callable[[int, int], tf.data.Dataset], batch: int, strategy: tf.distribute.Strategy
) -> Any:
    """Returns global batches cut into consecutive pieces, one for each replica.

    `tf.distribute` would cut them too, but not the same way on one and on several machines.

    Args:
        dataset: `(shard, shards)` -> a machine's share of every global batch.
        batch: Images in a global batch.
        strategy: Where the pieces go.
    """

    def local(context: tf.distribute.InputContext) -> tf.data.Dataset:
        batches = dataset(context.input_pipeline_id, context.num_input_pipelines)
        piece = batch // strategy.num_replicas_in_sync
        if piece * context.num_input_pipelines != batch:
            batches = batches.rebatch(piece, drop_remainder=True)
        return batches.prefetch(2)

    if isinstance(strategy, tf.distribute.OneDeviceStrategy) and not placement.on_gpu(strategy):
        # Nothing to carry to a device: a pass over few images would mostly be its preparation.
        return local(tf.distribute.InputContext())
    return strategy.distribute_datasets_from_function(local)
