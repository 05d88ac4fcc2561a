"""Evaluation: the same images and the same numbers for any number of replicas."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import tensorflow as tf

from lightnets.evaluation import scoring

if TYPE_CHECKING:
    from lightnets.data import Splits


class Evaluator:
    """Runs a model over the held-out images on all replicas of a strategy."""

    def __init__(self, model: keras.Model, strategy: tf.distribute.Strategy | None = None):
        """Takes a model from images to probabilities, made inside the scope of `strategy`."""
        self.strategy = strategy or tf.distribute.get_strategy()
        resolver = self.strategy.cluster_resolver
        self._several_workers = resolver is not None and bool(resolver.cluster_spec().as_dict())

        def predict(images, labels, weights):
            probabilities = tf.cast(model(tf.cast(images, tf.float32), training=False), tf.float32)
            outputs = (tf.argmax(labels, -1), probabilities, weights)
            if not self._several_workers:
                return outputs
            # Inputs have no device, which gathering needs; copies have the replica's.
            outputs = tf.nest.map_structure(tf.identity, outputs)
            return tf.distribute.get_replica_context().all_gather(outputs, axis=0)

        self._step = tf.function(lambda batch: self.strategy.run(predict, args=batch))

    def __call__(
        self, splits: Splits, batch: int, each_batch: Callable[[], None] = lambda: None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Predicts all held-out images.

        Args:
            splits: The data.
            batch: Images in a global batch, a multiple of the replicas. The last batch is
                filled up with images of weight 0, which are left out again.
            each_batch: Called after every batch; may raise to end the evaluation.

        Returns:
            Class numbers `(images,)` and float32 probabilities `(images, classes)`, in the
            order of the data.
        """
        columns: list[list[np.ndarray]] = [[], [], []]
        before: Any = ()
        for elements in distribute(
            lambda shard, shards: splits.evaluation(batch, shard=shard, shards=shards),
            batch,
            self.strategy,
        ):
            outputs = self._step(elements)
            self._read(before, columns)  # while a GPU is at work on these
            before = outputs
            each_batch()
        self._read(before, columns)
        true, probabilities, weights = (np.concatenate(column) for column in columns)
        return true[weights > 0], probabilities[weights > 0]

    def _read(self, outputs: Sequence[Any], columns: list[list[np.ndarray]]) -> None:
        for column, values in zip(columns, outputs, strict=False):
            local = self.strategy.experimental_local_results(values)
            if self._several_workers:  # gathered: each replica holds those of all
                local = local[:1]
            column += [value.numpy() for value in local]


def evaluate(model: keras.Model, splits: Splits, batch: int = 64) -> dict[str, Any]:
    """Returns the numbers of `model` (images to probabilities) on the held-out images."""
    return scoring.score(*Evaluator(model)(splits, batch))


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

    return strategy.distribute_datasets_from_function(local)
