"""The training and the evaluation images of a run, as batches."""

from __future__ import annotations

from dataclasses import dataclass

import tensorflow as tf

from keras_lightnets.preprocessing import EvalTransform
from training.config import Config
from training.data import pipeline
from training.data.source import Source


@dataclass(frozen=True)
class Splits:
    """What `training.data.load` returns.

    Attributes:
        labels: Names of the classes, in the order of the network's outputs.
        transform: What turns an image into the network's input outside training.
        train_source: The images to train on.
        eval_source: The images to evaluate on.
        config: Of the run.
    """

    labels: list[str]
    transform: EvalTransform
    train_source: Source
    eval_source: Source
    config: Config

    @property
    def train_examples(self) -> int:
        return self.train_source.count

    @property
    def eval_examples(self) -> int:
        return self.eval_source.count

    def train(
        self, start_step: int = 0, *, global_batch: int, shard: int = 0, shards: int = 1
    ) -> tf.data.Dataset:
        """Returns endless batches of training, a pure function of (seed, step).

        Args:
            start_step: Steps already done; the first batch is that of this step.
            global_batch: Images per step over all shards.
            shard: Which part of each global batch to return, below `shards`.
            shards: Into how many equal parts the global batch is cut.

        Returns:
            Elements `(images, labels, weights)`: uint8 `(batch, height, width, 3)`, float32
            `(batch, classes)` and float32 `(batch,)`, where batch is `global_batch // shards`.
        """
        return pipeline.train_batches(
            self.train_source,
            self.config,
            self.transform,
            len(self.labels),
            start_step=start_step,
            global_batch=global_batch,
            shard=shard,
            shards=shards,
        )

    def evaluation(self, global_batch: int, shard: int = 0, shards: int = 1) -> tf.data.Dataset:
        """Returns one pass over the evaluation images, in order.

        Elements are as those of `train`. The last batch is filled up to a full one with
        images of weight 0.
        """
        return pipeline.evaluation_batches(
            self.eval_source,
            self.config,
            self.transform,
            len(self.labels),
            global_batch=global_batch,
            shard=shard,
            shards=shards,
        )
