"""Pictures from Python: NumPy arrays or a `tf.data.Dataset`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from lightnets.config.keys import Config
from lightnets.data.load import evaluation_transform, split_stratified
from lightnets.data.sources.source import Source, digest
from lightnets.data.sources.stream import Stream
from lightnets.data.splits import Splits
from lightnets.support.errors import UserError


def from_arrays(
    config: Config,
    train: tuple[np.ndarray, np.ndarray],
    evaluation: tuple[np.ndarray, np.ndarray] | None = None,
    *,
    labels: Sequence[str] | None = None,
) -> Splits:
    """Returns `Splits` of arrays, with the order and augmentation that any data set gets.

    Args:
        config: Of the run.
        train: Images, uint8 `(n, height, width, 3)` or with 1 channel, and labels, integer
            `(n,)` from 0.
        evaluation: The same for evaluation. None: `config.data.val_split` of `train`.
        labels: Names of the classes. None: the numbers.

    Raises:
        UserError: A shape, type or label is wrong.
    """
    source = _array_source(*train, "train")
    names = [str(name) for name in labels or range(int(np.max(train[1])) + 1)]
    held_out = None if evaluation is None else _array_source(*evaluation, "evaluation")
    for part in (source, held_out):
        if part is not None and part.read_labels().max() >= len(names):
            raise UserError(f"A label is outside the {len(names)} classes.")
    if held_out is None:
        source, held_out = split_stratified(source, config)
    return Splits(names, evaluation_transform(config), source, held_out, config)


def _array_source(images: np.ndarray, labels: np.ndarray, what: str) -> Source:
    images, labels = np.asarray(images), np.asarray(labels)
    if images.ndim == 3:
        images = images[..., np.newaxis]
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] not in (1, 3):
        raise UserError(
            f"The {what} images must be uint8 (n, height, width, 3 or 1). "
            f"Received: {images.dtype} {images.shape}."
        )
    if labels.shape != (len(images),) or not np.issubdtype(labels.dtype, np.integer):
        raise UserError(
            f"The {what} labels must be integers, one for each of {len(images)} images. "
            f"Received: {labels.dtype} {labels.shape}."
        )
    if not len(images) or labels.min() < 0:
        raise UserError(f"The {what} set is empty or has a negative label.")
    classes = tf.constant(labels, tf.int64)

    def lookup(positions: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        # Read in place: as a constant the array would be copied into the graph.
        pixels = tf.numpy_function(images.__getitem__, [positions], tf.uint8, stateful=False)
        return tf.ensure_shape(pixels, (None, *images.shape[1:])), tf.gather(classes, positions)

    return Source(
        count=len(images),
        lookup=lookup,
        open=lambda reference: (_file(reference[0]), reference[1]),
        name=lambda position: f"{what}[{position}]",
        read_labels=lambda: labels.astype(np.int64),
        fingerprint=lambda: f"array {images.shape} {digest(images[:: max(1, len(images) // 64)])}",
        portable=False,
    )


def _file(pixels: tf.Tensor) -> tf.Tensor:
    """Returns a PNG file, not compressed: then nothing else knows pixels from files."""
    return tf.io.encode_png(pixels, compression=0)


def from_dataset(
    config: Config,
    train: tf.data.Dataset,
    evaluation: tf.data.Dataset,
    *,
    labels: Sequence[str],
) -> Splits:
    """Returns `Splits` of datasets, with the order and augmentation that any data set gets.

    Args:
        config: Of the run.
        train: Finite and repeatable; elements `(image, label)`: the bytes of a file (scalar
            string) or uint8 `(height, width, 3)`, and an integer from 0. Read anew, in the
            same order, in each epoch: leave shuffling, augmentation and batches to the run.
        evaluation: The same for evaluation.
        labels: Names of the classes.

    Raises:
        UserError: An element has another form, or a dataset is endless or empty.
    """
    return Splits(
        [str(name) for name in labels],
        evaluation_transform(config),
        _dataset_stream(train, "train"),
        _dataset_stream(evaluation, "evaluation"),
        config,
    )


def _dataset_stream(dataset: tf.data.Dataset, what: str) -> Stream:
    spec: Any = dataset.element_spec
    if not isinstance(spec, tuple) or len(spec) != 2:
        raise UserError(f"Elements of the {what} dataset must be (image, label). Received: {spec}.")
    image, label = spec
    encoded = image.dtype == tf.string and image.shape.rank == 0
    pixels = image.dtype == tf.uint8 and image.shape.rank == 3
    if not (encoded or pixels) or not label.dtype.is_integer or label.shape.rank != 0:
        raise UserError(
            f"Elements of the {what} dataset must be (bytes or uint8 image, integer label), not "
            f"batched. Received: {image}, {label}."
        )
    count = int(dataset.cardinality())
    if count == tf.data.INFINITE_CARDINALITY:
        raise UserError(f"The {what} dataset is endless; leave `repeat` to the run.")
    if count < 0:
        count = int(dataset.reduce(np.int64(0), lambda total, *_: total + 1))
    if not count:
        raise UserError(f"The {what} dataset is empty.")

    def pack(image, label):
        # Images of different sizes do not make a batch; files do.
        return image if encoded else _file(image), tf.cast(label, tf.int64)

    return Stream(
        part=lambda number: dataset.map(pack),
        part_sizes=np.array([count]),
        open=lambda reference: reference,
        name=lambda position: f"{what}[{position}]",
        fingerprint=lambda: f"dataset {what} {count}",
    )
