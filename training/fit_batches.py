"""Batches for `FitModel`: all of one size, whatever the data and the number of replicas.

Keras cuts a last batch of 11 images into 6 and 5, weighs both halves the same, and fails where a
replica gets none. Here a last batch is filled up with its own images, which do not count.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf


def batches(
    x: Any,
    y: Any = None,
    weights: Any = None,
    batch_size: int | None = None,
    *,
    classes: int,
    multiple: int = 1,
    exact: bool = False,
    seed: int | None = None,
) -> tf.data.Dataset:
    """Returns batches `(images, labels, weights)`, or `(images, weights)` without labels.

    Args:
        x: Images, an array or tensor; or a `tf.data.Dataset` of batches of images, of
            `(images, labels)` or of `(images, labels, weights)`.
        y: Labels of an array of images.
        weights: Weights of an array of images, at least 0; None: 1 each.
        batch_size: Of arrays; None: 32.
        classes: Number of classes, which labels of arrays are checked against.
        multiple: Batches are filled up to a multiple of this.
        exact: Refuse a `batch_size`, or batches of a dataset, that are no such multiple.
        seed: Decides the order of arrays, another one in each pass; None: as they are.

    Returns:
        Every batch has the size of the first one. Weights are float32 `(batch,)`; those of the
        images that only fill up the last batch are -1.

    Raises:
        ValueError: `x` is something else, the sizes differ, or an array's labels are wrong.
    """
    if isinstance(x, tf.data.Dataset):
        if y is not None or weights is not None or batch_size is not None:
            raise ValueError(
                "A tf.data.Dataset brings its own labels, weights and batches. "
                "Leave out y, sample_weight and batch_size."
            )
        size = _batch_size(x)
        _check_size(size, multiple if exact else 1)
        return _filled(x, size, multiple)
    if not isinstance(x, (np.ndarray, tf.Tensor, list)):
        raise ValueError(
            "x must be an array of images or a tf.data.Dataset of batches (a generator becomes one "
            f"by tf.data.Dataset.from_generator). Received: {type(x).__name__}."
        )
    given = [x, y, weights] if y is not None else [x]
    arrays = tuple(tf.convert_to_tensor(part) for part in given if part is not None)
    counts = [len(array) for array in arrays]
    if len(set(counts)) != 1 or not counts[0]:
        raise ValueError(
            "x, y and sample_weight must have the same number of samples, at least 1. "
            f"Received: {', '.join(map(str, counts))}."
        )
    if y is not None:
        check_labels(arrays[1], classes)
    _check_size(batch_size or 32, multiple if exact else 1)
    size = min(batch_size or 32, counts[0])
    positions = tf.data.Dataset.range(counts[0])
    if seed is not None:
        positions = positions.shuffle(counts[0], seed)
    data = positions.batch(size).map(lambda at: tuple(tf.gather(array, at) for array in arrays))
    return _filled(data, size, multiple)


def _check_size(size: int, parts: int) -> None:
    if size % parts:
        raise ValueError(
            f"A batch of {size} images cannot be cut into {parts} equal parts (replicas x "
            f"accumulate). Use a batch of {-(-size // parts) * parts}."
        )


def _batch_size(dataset: tf.data.Dataset) -> int:
    """Returns the number of images in the first batch."""
    spec = dataset.element_spec
    images = spec[0] if isinstance(spec, tuple) else spec
    if not isinstance(images, tf.TensorSpec) or (isinstance(spec, tuple) and len(spec) > 3):
        raise ValueError(
            "The dataset must give images, (images, labels) or (images, labels, weights). "
            f"Received: {spec}."
        )
    if images.shape.rank == 3:
        raise ValueError(
            f"The dataset gives single images, {tuple(images.shape)}: make batches by batch(32)."
        )
    if (size := images.shape[0]) is not None:
        return size
    first = next(iter(dataset), None)
    if first is None:
        raise ValueError("The dataset is empty.")
    return len(first[0] if isinstance(spec, tuple) else first)


def check_labels(labels: Any, classes: int) -> list[tf.Operation]:
    """Checks labels: one-hot rows `(b, classes)`, or class numbers `(b,)` or `(b, 1)` below that.

    `tf.one_hot` would make a row of zeros of any other number, which no loss notices.

    Returns:
        In a graph, what must be run before the labels are used.

    Raises:
        ValueError: They are something else; numbers in a graph raise when it runs.
    """
    labels = tf.convert_to_tensor(labels)
    if labels.shape.rank == 2 and labels.shape[1] == classes:
        return []
    if labels.shape.rank not in (None, 1) and labels.shape[1:] != (1,):
        raise ValueError(
            f"Labels must be class numbers (n,) or one-hot (n, {classes}). "
            f"Received: {labels.shape}."
        )
    numbers = tf.cast(tf.reshape(labels, (-1,)), tf.float64)
    right = (numbers >= 0) & (numbers < classes) & tf.equal(numbers, tf.floor(numbers))
    wrong = tf.boolean_mask(numbers, tf.logical_not(right))
    rule = f"Labels must be class numbers from 0 to {classes - 1}."
    if tf.executing_eagerly():
        if len(wrong):
            raise ValueError(f"{rule} Received: {', '.join(f'{x:g}' for x in wrong[:5].numpy())}.")
        return []
    return [tf.debugging.Assert(tf.reduce_all(right), [rule, "Received:", wrong], summarize=5)]


def one_hot(labels: tf.Tensor, classes: int) -> tf.Tensor:
    """Returns float32 `(b, classes)` of labels that pass `check_labels`."""
    with tf.control_dependencies(check_labels(labels, classes)):
        if labels.shape.rank == 2 and labels.shape[1] == classes:
            return tf.cast(labels, tf.float32)
        return tf.one_hot(tf.reshape(tf.cast(labels, tf.int32), (-1,)), classes)


def _filled(dataset: tf.data.Dataset, size: int, multiple: int) -> tf.data.Dataset:
    """Adds weights and gives every batch `size` images, rounded up to a multiple."""
    size = -(-size // multiple) * multiple

    def fill(*parts):
        count = tf.shape(parts[0])[0]
        *parts, weights = parts if len(parts) == 3 else (*parts, tf.ones((count,)))
        within = tf.debugging.assert_less_equal(count, size, "A batch is larger than the first.")
        with tf.control_dependencies([within]):
            place = tf.range(size)
        *parts, weights = (tf.gather(part, place % count) for part in (*parts, weights))
        weights = tf.reshape(tf.cast(weights, tf.float32), (size,))
        return (*parts, tf.where(place < count, weights, -1.0))

    return dataset.map(fill, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
