"""Evaluation: the same images and the same numbers for any number of replicas."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from lightnets.data import Splits
from lightnets.distribution.batches import distribute


class Evaluator:
    """A float32 network, a copy of the one that is trained, which is evaluated and saved.

    The weights to evaluate (the present ones or their average) are copied to it, bit by bit.
    Nothing that is trained is ever swapped or averaged away, and what is evaluated is what is
    saved.

    Attributes:
        model: From 0..255 images to probabilities.
    """

    def __init__(
        self,
        model: keras.Model,
        splits: Splits,
        batch: int,
        strategy: tf.distribute.Strategy,
        *,
        dense: bool = False,
    ):
        """Prepares to evaluate.

        Args:
            model: Made inside the scope of `strategy`.
            splits: The data.
            batch: Images in a global batch, a multiple of the replicas. The last batch is
                filled up with images of weight 0, which are left out again.
            strategy: Where it is evaluated.
            dense: Whether `predict` returns labels as they are, instead of class numbers.
        """
        self.model = model
        self._splits = splits
        self._batch = batch
        self._strategy = strategy
        resolver = strategy.cluster_resolver
        self._several_workers = resolver is not None and bool(resolver.cluster_spec().as_dict())

        def predict(images, labels, weights):
            probabilities = tf.cast(model(tf.cast(images, tf.float32), training=False), tf.float32)
            true = labels if dense else tf.argmax(labels, -1)
            outputs = (true, probabilities, weights)
            if not self._several_workers:
                return outputs
            # Inputs have no device, which gathering needs; copies have the replica's.
            outputs = tf.nest.map_structure(tf.identity, outputs)
            return tf.distribute.get_replica_context().all_gather(outputs, axis=0)

        self._step = tf.function(lambda batch: strategy.run(predict, args=batch))

    def copy(self, logits: keras.Model, averages: Mapping[str, tf.Variable]) -> None:
        """Copies the weights of the trained network, which ends at the logits.

        Args:
            logits: The trained network.
            averages: By path, what is copied in place of a weight.
        """
        for source, target in zip(logits.weights, self.model.weights, strict=True):
            target.assign(averages.get(source.path, source.value))

    def predict(
        self, each_batch: Callable[[], None] = lambda: None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Predicts all held-out images.

        Args:
            each_batch: Called after every batch; may raise to end the evaluation.

        Returns:
            Class numbers `(images,)` and float32 probabilities `(images, classes)`, in the
            order of the data.
        """
        columns: list[list[np.ndarray]] = [[], [], []]
        before: Any = ()
        for elements in self._batches:
            outputs = self._step(elements)
            self._read(before, columns)  # while a GPU is at work on these
            before = outputs
            each_batch()
        self._read(before, columns)
        true, probabilities, weights = (np.concatenate(column) for column in columns)
        return true[weights > 0], probabilities[weights > 0]

    @functools.cached_property
    def _batches(self) -> Any:
        """The held-out images, the same ones in every epoch: their pipeline is built once."""

        def share(shard: int, shards: int) -> tf.data.Dataset:
            return self._splits.evaluation(self._batch, shard=shard, shards=shards)

        return distribute(share, self._batch, self._strategy)

    def _read(self, outputs: Sequence[Any], columns: list[list[np.ndarray]]) -> None:
        for column, values in zip(columns, outputs, strict=False):
            local = self._strategy.experimental_local_results(values)
            if self._several_workers:  # gathered: each replica holds those of all
                local = local[:1]
            column += [value.numpy() for value in local]
