"""Data sets of TensorFlow Datasets, by name."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pathlib
from collections.abc import Iterator

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from training.config import DataConfig
from training.data.digits import Digits
from training.data.source import Source
from training.errors import UserError

# Names of splits that hold evaluation images, the best one first.
_EVAL_SPLITS = ("validation", "test")


def cache_dir() -> pathlib.Path:
    """Returns the folder for what can be made again: prepared digits, decoded images."""
    home = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(home) / "keras_lightnets"


def prepared_digits(data_dir: str | os.PathLike | None = None) -> tfds.core.DatasetBuilder:
    """Returns the builder of `digits`, prepared (a second of work) when it was not yet."""
    folder = pathlib.Path(data_dir) if data_dir else cache_dir() / "tfds"
    builder = Digits(data_dir=str(folder), file_format="array_record")
    if not builder.is_prepared():
        with _lock(folder), _quiet():
            builder.download_and_prepare()
    return builder


@contextlib.contextmanager
def _lock(folder: pathlib.Path) -> Iterator[None]:
    """Lets one process at a time prepare into `folder`."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / ".lock").open("w")
    except OSError as error:
        raise UserError(
            f"Cannot write to {folder}: {error.strerror}. Choose another --data-dir."
        ) from None
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without TFDS's bars and banners."""
    tfds.disable_progress_bar()
    try:
        with contextlib.redirect_stdout(None):
            yield
    finally:
        tfds.enable_progress_bar()


def find_builder(data: DataConfig) -> tfds.core.DatasetBuilder:
    """Returns the prepared builder of `data.dataset`.

    Raises:
        UserError: TFDS knows no such name, or it is not prepared.
    """
    if data.dataset == "digits":
        return prepared_digits(data.data_dir)
    raise UserError(f"Unknown data set {data.dataset!r}.")


def feature_keys(builder: tfds.core.DatasetBuilder) -> tuple[str, str]:
    """Returns the names of the image and the label feature.

    Raises:
        UserError: The data set is not one of images with one label each.
    """
    features = builder.info.features
    kinds = {tfds.features.Image: [], tfds.features.ClassLabel: []}
    for key, feature in features.items():
        for kind, keys in kinds.items():
            if isinstance(feature, kind):
                keys.append(key)
    images, labels = kinds.values()
    if supervised := builder.info.supervised_keys:
        images = [key for key in images if key in supervised] or images
        labels = [key for key in labels if key in supervised] or labels
    if not images or not labels:
        raise UserError(
            f"{builder.name} is no set of images with a class each. It has: "
            + ", ".join(f"{key} ({type(value).__name__})" for key, value in features.items())
        )
    return images[0], labels[0]


def find_splits(builder: tfds.core.DatasetBuilder, data: DataConfig) -> tuple[str, str | None]:
    """Returns the split to train on and the one to evaluate on, None if there is none."""
    splits = builder.info.splits
    train = data.train_split or ("train" if "train" in splits else next(iter(splits)))
    found = next((name for name in _EVAL_SPLITS if name in splits and name != train), None)
    return train, data.eval_split or found


def open_split(builder: tfds.core.DatasetBuilder, split: str) -> Source:
    """Returns a split of a builder prepared as ArrayRecord.

    Raises:
        UserError: The split is unknown, empty or not TFDS syntax.
    """
    from array_record.python import array_record_data_source

    try:
        info = builder.info.splits[split]
        instructions = info.file_instructions
    except (KeyError, ValueError) as error:
        known = ", ".join(builder.info.splits)
        message = str(error).splitlines()[0].strip("'\"")
        raise UserError(
            f"{builder.name} has no split {split!r} ({message}). It has: {known}."
        ) from None
    records = array_record_data_source.ArrayRecordDataSource(instructions)
    image_key, label_key = feature_keys(builder)

    def read(positions: np.ndarray) -> np.ndarray:
        return np.array(records.__getitems__(positions.tolist()), dtype=object)

    def open_record(record: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        parsed = tf.io.parse_single_example(
            record,
            {
                image_key: tf.io.FixedLenFeature((), tf.string),
                label_key: tf.io.FixedLenFeature((), tf.int64),
            },
        )
        return parsed[image_key], parsed[label_key]

    def lookup(positions: tf.Tensor) -> tf.Tensor:
        found = tf.numpy_function(read, [positions], tf.string, stateful=False)
        return tf.ensure_shape(found, positions.shape)

    def read_labels() -> np.ndarray:
        serialized = tf.data.Dataset.range(len(records)).batch(1024).map(lookup).unbatch()
        return np.fromiter(
            serialized.map(lambda record: open_record(record)[1]).as_numpy_iterator(), np.int64
        )

    return Source(
        count=len(records),
        lookup=lookup,
        open=open_record,
        name=lambda position: f"{builder.info.full_name} {split}[{position}]",
        read_labels=read_labels,
        fingerprint=lambda: f"{builder.data_path} {split}",
    )
