"""From a source to batches, for training and for evaluation."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from keras_lightnets import preprocessing
from keras_lightnets.preprocessing import EvalTransform
from training.config import Config
from training.data import augment, order
from training.data.source import Source
from training.errors import UsageError


def local_batch(global_batch: int, shard: int, shards: int) -> int:
    """Returns the batch of one shard.

    Raises:
        UsageError: The global batch cannot be shared out evenly.
    """
    if not 0 <= shard < shards:
        raise UsageError(
            f"The shard must be below the number of shards. Received: {shard}, {shards}."
        )
    if global_batch < 1 or global_batch % shards:
        raise UsageError(
            f"The batch size (={global_batch}) must be divisible by the number of workers "
            f"(={shards})."
        )
    return global_batch // shards


def train_batches(
    source: Source,
    config: Config,
    transform: EvalTransform,
    classes: int,
    *,
    start_step: int,
    global_batch: int,
    shard: int,
    shards: int,
) -> tf.data.Dataset:
    """Returns the endless batches of training from `start_step` on; see `Splits.train`."""
    local = local_batch(global_batch, shard, shards)
    if source.count < global_batch:
        raise UsageError(
            f"The batch size (={global_batch}) is larger than the training set "
            f"(={source.count} images)."
        )
    seed = config.train.seed

    def look_up(step):
        positions = order.step_positions(
            step,
            examples=source.count,
            global_batch=global_batch,
            seed=seed,
            shard=shard,
            shards=shards,
        )
        epoch = order.epoch_of(step, examples=source.count, global_batch=global_batch)
        return source.lookup(positions), positions, tf.fill((local,), epoch)

    def load(reference, position, epoch):
        key = order.example_key(seed, epoch, position)
        contents, label = source.open(reference)
        image = augment.train_image(contents, key, config.data, transform, source.decoded)
        randoms = tf.random.stateless_uniform((augment.RANDOM_NUMBERS,), key)
        return image, tf.one_hot(label, classes), randoms

    def finish(images, labels, randoms):
        images, labels = augment.augment_batch(images, labels, randoms, config.data)
        return images, labels, tf.ones((local,))

    steps = tf.data.Dataset.range(start_step, tf.int64.max)
    return _run(steps, look_up, load, finish, local, config)


def evaluation_batches(
    source: Source,
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

    def look_up(step):
        positions, weights = order.evaluation_positions(
            step, examples=source.count, global_batch=global_batch, shard=shard, shards=shards
        )
        return source.lookup(positions), weights

    def load(reference, weight):
        contents, label = source.open(reference)
        return evaluation_pixels(contents, transform, source.decoded), label, weight

    def finish(images, labels, weights):
        return images, tf.one_hot(labels, classes), weights

    steps = tf.data.Dataset.range(-(-source.count // global_batch))
    return _run(steps, look_up, load, finish, local, config)


def evaluation_pixels(contents: tf.Tensor, transform: EvalTransform, decoded: bool) -> tf.Tensor:
    """Returns uint8 `(height, width, 3)` of a file's bytes or of decoded pixels."""
    if decoded:
        return preprocessing.transform_image(contents, transform)
    return preprocessing.evaluation_image(contents, transform)


def _run(
    steps: tf.data.Dataset,
    look_up: Callable,
    load: Callable,
    finish: Callable,
    local: int,
    config: Config,
) -> tf.data.Dataset:
    """Steps to batches: look up by the batch, load by the example, finish by the batch."""
    threads = config.data.num_threads or tf.data.AUTOTUNE
    batches = (
        steps.map(look_up, num_parallel_calls=1)
        .prefetch(2)
        .unbatch()
        .map(load, num_parallel_calls=threads)
        .batch(local, drop_remainder=True)
        .map(finish, num_parallel_calls=threads)
        .prefetch(2)
    )
    options = tf.data.Options()
    options.deterministic = True
    # The engine shares out whole batches itself; tf.distribute must not split again by file.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    if config.data.num_threads:
        options.threading.private_threadpool_size = config.data.num_threads
    return batches.with_options(options)
