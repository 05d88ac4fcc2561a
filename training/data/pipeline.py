"""From references to batches: what training and evaluation have in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from keras_lightnets import preprocessing
from keras_lightnets.preprocessing import EvalTransform
from lightnets.data import pillow
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


def evaluation_pixels(contents: tf.Tensor, transform: EvalTransform) -> tf.Tensor:
    """Returns uint8 `(height, width, 3)` of a file's bytes."""
    return preprocessing.evaluation_image(contents, transform, pillow.png)


def batches(
    references: tf.data.Dataset, load: Callable, finish: Callable, local: int, num_threads: int
) -> tf.data.Dataset:
    """From a batch of references: load by the example, in parallel, finish by the batch."""
    threads = num_threads or tf.data.AUTOTUNE
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
    return batches.with_options(options(num_threads))


def options(num_threads: int = 0) -> Any:
    """Returns the options of all our pipelines: in order, whatever the number of threads."""
    options = tf.data.Options()
    options.deterministic = True
    # All cores, as without. TensorFlow's tuner sleeps for up to a minute between two looks at a
    # pipeline and may miss its end, for which who lets go of the iterator waits.
    options.autotune.enabled = False
    # The engine shares out whole batches itself; tf.distribute must not split again by file.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    if num_threads:
        options.threading.private_threadpool_size = num_threads
    return options
