"""The training and the evaluation images of a run, as batches."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from keras_lightnets.preprocessing import EvalTransform
from lightnets.config.keys import Config
from lightnets.data import pipeline, split_file
from lightnets.data.class_weights import balanced
from lightnets.data.dataset import Dataset
from lightnets.data.sources.source import Source
from lightnets.data.sources.stream import Stream
from lightnets.support.words import count


@dataclass(frozen=True)
class Splits:
    """What `lightnets.data.load` returns.

    Attributes:
        labels: Names of the classes, in the order of the network's outputs.
        transform: What turns an image into the network's input outside training.
        train_source: The images to train on.
        eval_source: The images to evaluate on.
        config: Of the run.
        whole: What training and evaluation images were taken from, if the data has no split of
            its own.
        excluded: Names of damaged images that were left out, with the reason.
        dataset: Where they come from; None for arrays and datasets.
    """

    labels: list[str]
    transform: EvalTransform
    train_source: Source | Stream
    eval_source: Source | Stream
    config: Config
    whole: Source | Stream | None = None
    excluded: dict[str, str] = dataclasses.field(default_factory=dict)
    dataset: Dataset | None = None

    def describe(self) -> str:
        """Returns one line for a person: what the data set has, or how many images these are."""
        if self.dataset is None:
            return f"{count(self.train_examples, 'image')}, {self.eval_examples} held out"
        return self.dataset.describe()

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
            self.class_weights(),
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

    def held_out_images(self, places: Sequence[int] | np.ndarray) -> Iterator[np.ndarray]:
        """Returns uint8 `(height, width, 3)` of evaluation images, by their position."""
        source = self.eval_source
        contents = ((None, None, 3), tf.uint8) if source.decoded else ((), tf.string)

        @tf.function(input_signature=[tf.TensorSpec(*contents)], autograph=False)
        def pixels(contents):
            return pipeline.evaluation_pixels(contents, self.transform, source.decoded)

        return (pixels(contents).numpy() for contents in source.pick(places))

    def class_weights(self) -> np.ndarray:
        """Returns float32 `(classes,)`: what a training image of each class counts."""
        if self.config.data.class_weights == "none":
            return np.ones(len(self.labels), np.float32)
        return balanced(np.bincount(self.train_source.read_labels(), minlength=len(self.labels)))

    @property
    def order(self) -> str:
        """How training orders the images, for a person."""
        if self.config.data.data_service:
            return "as tf.data service delivers: not exact, also not when resumed"
        return self.train_source.order

    def save(self, path: str | os.PathLike) -> None:
        """Writes `split.json` (into `path`, if that is a folder) for `load(config, saved=...)`."""
        path = pathlib.Path(path)
        sources, held_out = [self.train_source, self.eval_source], None
        if self.whole is not None:
            sources, held_out = [self.whole], self.eval_source
        split_file.save(
            path / split_file.NAME if path.is_dir() else path,
            sources,
            held_out,
            self.labels,
            self.excluded,
            self.config.data.dataset,
        )
