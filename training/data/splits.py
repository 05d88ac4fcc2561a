"""The training and the evaluation images of a run, as batches."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from keras_lightnets.preprocessing import EvalTransform
from lightnets.config.keys import Config
from lightnets.config.tasks import TASKS
from lightnets.data import augment, pipeline, service, split_file
from lightnets.data.dataset import Dataset
from lightnets.data.sources import targets
from lightnets.data.sources.joined import joined
from lightnets.data.sources.stream import AnySource
from lightnets.support.errors import UsageError
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
        unlabelled: More images to train on, of which a teacher says what they show.
    """

    labels: list[str]
    transform: EvalTransform
    train_source: AnySource
    eval_source: AnySource
    config: Config
    whole: AnySource | None = None
    excluded: dict[str, str] = dataclasses.field(default_factory=dict)
    dataset: Dataset | None = None
    unlabelled: AnySource | None = None

    @property
    def noun(self) -> str:
        """What the labels are, as the title of a line."""
        return TASKS[self.config.train.task].nouns[1].capitalize()

    def words(self, row: np.ndarray) -> str:
        """Returns what an image of a batch is labelled with."""
        return targets.words(self.config.train.task, row, self.labels)

    def describe(self) -> str:
        """Returns one line for a person: what the data set has, or how many images these are."""
        if self.dataset is None:
            return f"{count(self.train_examples, 'image')}, {self.eval_examples} held out"
        return self.dataset.describe()

    @property
    def train_examples(self) -> int:
        """Images with a label to train on."""
        return self.train_source.count

    @property
    def epoch_source(self) -> AnySource:
        """The images of an epoch: those to train on, then those without a label."""
        if self.unlabelled is None:
            return self.train_source
        return joined(self.train_source, self.unlabelled)

    @property
    def epoch_examples(self) -> int:
        """Images of an epoch."""
        return self.epoch_source.count

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
        source, data = self.epoch_source, self.config.data
        local = pipeline.local_batch(global_batch, shard, shards)
        if source.count < global_batch:
            raise UsageError(
                f"The batch size (={global_batch}) is larger than the training set "
                f"(={source.count} images). Use a smaller one."
            )
        augment.check_batch(data, local)
        references = source.train_references(
            start_step,
            seed=self.config.train.seed,
            global_batch=global_batch,
            shard=shard,
            shards=shards,
        )
        batches = self._augmented(source, references, local)
        if data.data_service:
            service.check_source(source, data.dataset)
            return service.through(batches, data.data_service)
        return batches

    def view(self, number: int, batch: int) -> tf.data.Dataset:
        """Returns one pass over the training images in order, as they look in an epoch.

        Args:
            number: The epoch, counted from 0.
            batch: Images in each element, which is as those of `train`; the last one is filled up.
        """
        seed = self.config.train.seed
        source: Any = self.train_source  # a stream has no views
        references = source.view_references(number, seed=seed, batch=batch)
        return self._augmented(source, references, batch)

    def _augmented(
        self, source: AnySource, references: tf.data.Dataset, local: int
    ) -> tf.data.Dataset:
        data = self.config.data
        class_weights = self.class_weights()

        def load(reference, key):
            contents, label = source.open(reference)
            randoms = tf.random.stateless_uniform((augment.RANDOM_NUMBERS,), key)
            image = augment.train_image(contents, key, randoms, data, self.transform)
            return image, label, randoms

        def finish(images, labels, randoms):
            images, dense = augment.augment_batch(images, self.dense(labels), randoms, data)
            return images, dense, self.weights(labels, dense, class_weights)

        return pipeline.batches(references, load, finish, local, data.num_threads)

    def evaluation(self, global_batch: int, shard: int = 0, shards: int = 1) -> tf.data.Dataset:
        """Returns one pass over the evaluation images, in order.

        Elements are as those of `train`. The last batch is filled up to a full one with
        images of weight 0.
        """
        source = self.eval_source
        local = pipeline.local_batch(global_batch, shard, shards)

        def load(reference, weight):
            contents, label = source.open(reference)
            image = pipeline.evaluation_pixels(contents, self.transform)
            return image, label, weight

        def finish(images, labels, weights):
            return images, self.dense(labels), weights

        references = source.references(global_batch, shard, shards)
        return pipeline.batches(references, load, finish, local, self.config.data.num_threads)

    def dense(self, labels: tf.Tensor) -> tf.Tensor:
        """Returns float32 `(batch, classes)`: shares of the classes, or the labels themselves.

        Of an image without a label, -1, all shares are 0.
        """
        if labels.dtype.is_floating:
            return labels
        return tf.one_hot(labels, len(self.labels))

    def weights(self, labels: tf.Tensor, dense: tf.Tensor, class_weights: Any) -> tf.Tensor:
        """Returns what images count, float32 `(batch,)`; of several labels, the share known."""
        if labels.dtype.is_floating:
            return 1.0 - tf.reduce_mean(tf.cast(tf.math.is_nan(dense), tf.float32), -1)
        return tf.where(labels < 0, 1.0, tf.gather(class_weights, tf.maximum(labels, 0)))

    def images(self, source: AnySource, places: Sequence[int] | np.ndarray) -> Iterator[np.ndarray]:
        """Returns uint8 `(height, width, 3)` of images of a source, as outside training."""
        pixels = _pixels(self.transform)
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
        """Writes `split.json` (into `path`, if that is a folder) for `load(config, saved=...)`.

        And into that folder a file for images without a label, if there are any.
        """
        sources, held_out = [self.train_source, self.eval_source], None
        if self.whole is not None:
            sources, held_out = [self.whole], self.eval_source
        dataset = self.config.data.dataset
        split_file.save(path, sources, held_out, self.labels, self.excluded, dataset)
        if self.unlabelled is not None:
            place = self.config.data.unlabelled or ""
            file = split_file.of_unlabelled(path)
            split_file.save(file, [self.unlabelled], None, (), {}, place)


@functools.cache  # traced once, whoever asks
def _pixels(transform: EvalTransform) -> Callable[[tf.Tensor], tf.Tensor]:
    @tf.function(input_signature=[tf.TensorSpec((), tf.string)], autograph=False)
    def pixels(contents):
        return pipeline.evaluation_pixels(contents, transform)

    return pixels


def balanced(counts: Sequence[int] | np.ndarray) -> np.ndarray:
    """Returns the weight of each class's samples: `total / (classes * count)`, float32.

    All classes then have the same sum of weights, and the mean weight of a sample is 1, so that
    the learning rate keeps its meaning. A class without samples gets 0: it cannot occur.

    Args:
        counts: Training samples of each class.
    """
    samples = np.asarray(counts, np.float64)
    mean = samples.sum() / np.count_nonzero(samples)
    return np.where(samples > 0, mean / np.maximum(samples, 1), 0).astype(np.float32)
