"""From a source to batches, for training and for evaluation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from keras_lightnets import preprocessing
from keras_lightnets.preprocessing import EvalTransform
from lightnets.config.keys import Config
from lightnets.data import augment, pillow, service
from lightnets.data.sources.source import Source
from lightnets.data.sources.stream import Stream
from lightnets.support.errors import UsageError


def local_batch(global_batch: int, shard: int, shards: int) -> int:
    """Returns the batch of one shard.

    Raises:
        UsageError: The global batch cannot be shared out evenly.
    """
    if not 0 <= shard < shards:
        raise UsageError(
            f"The shard (={shard}) must be at least 0 and below the number of shards (={shards})."
        )
    if global_batch < 1 or global_batch % shards:
        raise UsageError(
            f"The batch size (={global_batch}) must be divisible by the number of workers "
            f"(={shards})."
        )
    return global_batch // shards


def train_batches(
    source: Source | Stream,
    config: Config,
    transform: EvalTransform,
    class_weights: np.ndarray,
    *,
    start_step: int,
    global_batch: int,
    shard: int,
    shards: int,
) -> tf.data.Dataset:
    """Returns the endless batches of training from `start_step` on; see `Splits.train`.

    `class_weights` is float32 `(classes,)`: what an image of each class counts.
    """
    local = local_batch(global_batch, shard, shards)
    if source.count < global_batch:
        raise UsageError(
            f"The batch size (={global_batch}) is larger than the training set "
            f"(={source.count} images). Use a smaller one."
        )
    augment.check_batch(config.data, local)

    def load(reference, key):
        contents, label = source.open(reference)
        randoms = tf.random.stateless_uniform((augment.RANDOM_NUMBERS,), key)
        image = augment.train_image(contents, key, randoms, config.data, transform, source.decoded)
        return image, label, randoms

    def finish(images, labels, randoms):
        weights = tf.gather(tf.constant(class_weights), labels)
        one_hot = tf.one_hot(labels, len(class_weights))
        return *augment.augment_batch(images, one_hot, randoms, config.data), weights

    references = source.train_references(
        start_step, seed=config.train.seed, global_batch=global_batch, shard=shard, shards=shards
    )
    batches = _run(references, load, finish, local, config)
    if config.data.data_service:
        service.check_source(source, config.data.dataset)
        return service.through(batches, config.data.data_service)
    return batches


def evaluation_batches(
    source: Source | Stream,
    config: Config,
    transform: EvalTransform,
    classes: int,
    *,
    global_batch: int,
    shard: int,
    shards: int,
) -> tf.data.Dataset:
    """Returns the batches of one pass over `source`; see `Splits.evaluation`."""
    local = local_batch(global_batch, shard, shards)

    def load(reference, weight):
        contents, label = source.open(reference)
        return evaluation_pixels(contents, transform, source.decoded), label, weight

    def finish(images, labels, weights):
        return images, tf.one_hot(labels, classes), weights

    return _run(source.references(global_batch, shard, shards), load, finish, local, config)


def evaluation_pixels(contents: tf.Tensor, transform: EvalTransform, decoded: bool) -> tf.Tensor:
    """Returns uint8 `(height, width, 3)` of a file's bytes or of decoded pixels."""
    if decoded:
        return preprocessing.transform_image(contents, transform)
    return preprocessing.evaluation_image(contents, transform, pillow.png)


def _run(
    references: tf.data.Dataset, load: Callable, finish: Callable, local: int, config: Config
) -> tf.data.Dataset:
    """From a batch of references: load by the example, in parallel, finish by the batch."""
    threads = config.data.num_threads or tf.data.AUTOTUNE
    # They call `tf.cond` where they branch; to look for branches in all they call takes a second.
    load, finish = map(tf.autograph.experimental.do_not_convert, (load, finish))
    batches = (
        references.prefetch(2)
        .unbatch()
        .map(load, num_parallel_calls=threads)
        .batch(local, drop_remainder=True)
        .map(finish, num_parallel_calls=threads)
        .prefetch(2)
    )
    return batches.with_options(options(config.data.num_threads))


def options(num_threads: int = 0) -> Any:
    """Returns the options of all our pipelines: in order, whatever the number of threads."""
    options = tf.data.Options()
    options.deterministic = True
    # The engine shares out whole batches itself; tf.distribute must not split again by file.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    if num_threads:
        options.threading.private_threadpool_size = num_threads
    return options
