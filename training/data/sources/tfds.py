"""Data sets of TensorFlow Datasets, by name or by the folder of a prepared one."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pathlib
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from keras_lightnets.paths import home
from keras_lightnets.text import first_line
from lightnets.config.keys import DataConfig
from lightnets.data.sources.digits import Digits
from lightnets.data.sources.source import Source, labels_of
from lightnets.data.sources.stream import AnySource, Stream
from lightnets.support.errors import UserError
from lightnets.support.words import nearest

_FORMAT = "array_record"
_SECONDS_TO_ANSWER = 20

# Folders of the data sets that this process has prepared.
prepared: list[str] = []
_IMAGENET_FILES = ("ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar")


def cache_dir() -> pathlib.Path:
    """Returns the folder for what can be made again: prepared digits, results of checks."""
    return pathlib.Path(os.environ.get("XDG_CACHE_HOME") or home() / ".cache") / "keras_lightnets"


def is_prepared_folder(path: pathlib.Path) -> bool:
    """Whether `path` is the version folder of a prepared TFDS data set."""
    return (path / "dataset_info.json").is_file() and (path / "features.json").is_file()


def find_builder(data: DataConfig) -> tfds.core.DatasetBuilder:
    """Returns the prepared builder of `data.dataset`.

    The network is used only with `data.download`, and only when nothing is prepared.

    Raises:
        UserError: TFDS knows no such name, or it is not prepared.
    """
    if data.dataset == "digits":
        return prepared_digits(data.data_dir)
    if is_prepared_folder(pathlib.Path(data.dataset)):
        return tfds.builder_from_directory(data.dataset)
    data_dir = str(pathlib.Path(data.data_dir).expanduser()) if data.data_dir else None
    try:
        builder = tfds.builder(data.dataset, data_dir=data_dir)
    except (tfds.core.DatasetNotFoundError, ValueError, KeyError) as error:
        name = data.dataset.partition(":")[0].partition("/")[0]
        if isinstance(error, tfds.core.DatasetNotFoundError):
            raise UserError(_unknown(data, name)) from None
        raise UserError(f"TFDS cannot open {data.dataset!r}: {first_line(error)}") from None
    if not builder.is_prepared():
        _prepare(builder, data)
        builder = tfds.builder(data.dataset, data_dir=data_dir)
    return builder


def _unknown(data: DataConfig, name: str) -> str:
    """Returns why TFDS finds nothing: other configurations or versions, or another name."""
    root = pathlib.Path(data.data_dir or tfds.core.constants.DATA_DIR).expanduser()
    found = sorted(
        str(path.parent.relative_to(root)) for path in (root / name).glob("**/dataset_info.json")
    )
    if found:
        return f"{data.dataset!r} is not prepared in {root}. There are: {', '.join(found)}."
    problem = f"{data.dataset!r} is no folder, list or name of a TFDS data set."
    return problem + nearest(name, known_names())


def known_names() -> list[str]:
    """Returns the names of data sets."""
    return ["digits", *tfds.list_builders(with_community_datasets=False)]


def _prepare(builder: tfds.core.DatasetBuilder, data: DataConfig) -> None:
    root = pathlib.Path(builder.data_dir).parents[1]
    if builder.name.startswith("imagenet2012"):
        manual = pathlib.Path(data.data_dir or root).expanduser() / "downloads" / "manual"
        missing = [name for name in _IMAGENET_FILES if not (manual / name).is_file()]
        if missing:
            raise UserError(
                f"{builder.name} is not prepared in {builder.data_dir}. Put "
                f"{' and '.join(missing)} from image-net.org into {manual}, then run again with "
                "--download; or name the folder of a prepared copy by --data-dir."
            )
    if not data.download:
        raise UserError(
            f"{builder.name} is not prepared in {builder.data_dir}. Name the folder that holds "
            "it by --data-dir, or let TFDS fetch and prepare it: --download."
        )
    with _lock(root):
        try:
            fresh = tfds.builder(data.dataset, data_dir=data.data_dir, file_format=_FORMAT)
            _check_reachable(fresh, root / "downloads")
            fresh.download_and_prepare()
            prepared.append(str(fresh.data_dir))
        except UserError:
            raise
        except Exception as error:  # of the data set's own code, or about what it downloaded
            raise UserError(
                f"TFDS could not prepare {builder.name} ({type(error).__name__}): "
                f"{first_line(error)}"
            ) from None


def _check_reachable(builder: tfds.core.DatasetBuilder, downloads: pathlib.Path) -> None:
    """Raises UserError if the server of a data set does not answer: TFDS tries for minutes.

    Not where something has been downloaded before, which may be all that is needed.
    """
    urls = [url for url in builder.url_infos or () if url.startswith("http")]
    if not urls or (downloads.is_dir() and any(path.is_file() for path in downloads.iterdir())):
        return
    try:
        request = urllib.request.Request(urls[0], method="HEAD")
        urllib.request.urlopen(request, timeout=_SECONDS_TO_ANSWER).close()
    except urllib.error.HTTPError:  # it answers
        pass
    except OSError as error:
        host = urllib.parse.urlsplit(urls[0]).netloc
        raise UserError(
            f"{builder.name} cannot be downloaded: {host} cannot be reached "
            f"({getattr(error, 'reason', None) or error}). Prepare it where there is a network, "
            "and name the folder by --data-dir."
        ) from None


def prepared_digits(data_dir: str | os.PathLike | None = None) -> tfds.core.DatasetBuilder:
    """Returns the builder of `digits`, prepared (a second of work) when it was not yet."""
    folder = pathlib.Path(data_dir).expanduser() if data_dir else cache_dir() / "tfds"
    builder = Digits(data_dir=str(folder), file_format=_FORMAT)
    if not builder.is_prepared():
        with _lock(folder), quiet():
            # Anew: another process may have prepared it meanwhile.
            builder = Digits(data_dir=str(folder), file_format=_FORMAT)
            builder.download_and_prepare()
            prepared.append(str(builder.data_dir))
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
def quiet() -> Iterator[None]:
    """Without TFDS's bars and banners."""
    tfds.disable_progress_bar()
    try:
        with contextlib.redirect_stdout(None):
            yield
    finally:
        tfds.enable_progress_bar()


def feature_keys(builder: tfds.core.DatasetBuilder) -> tuple[str, str]:
    """Returns the names of the image and the label feature.

    Of several, those that TFDS names as (input, target) are taken, else `image` and `label`.

    Raises:
        UserError: The data set is not one of images with one label each.
    """
    # What TFDS reads from a file comes in any order.
    features = dict(sorted(builder.info.features.items()))
    chosen = []
    kinds = (
        (tfds.features.Image, "image", "images"),
        (tfds.features.ClassLabel, "label", "labels"),
    )
    for kind, usual, noun in kinds:
        keys = [key for key, value in features.items() if isinstance(value, kind)]
        supervised = [key for key in keys if key in (builder.info.supervised_keys or ())]
        keys = supervised or ([usual] if usual in keys else keys)
        if not keys:
            has = ", ".join(f"{key} ({type(value).__name__})" for key, value in features.items())
            raise UserError(f"{builder.name} is no set of images with a class each. It has: {has}.")
        if len(keys) > 1:
            raise UserError(
                f"{builder.name} has several {noun} for each example ({', '.join(keys)}) and does "
                "not name those to train on (supervised_keys). Write a CSV list of the ones meant."
            )
        chosen += keys
    image, label = chosen
    # TFDS keeps the bits of other types as if they were the channels of a PNG file.
    dtype = np.dtype(features[image].np_dtype)
    if dtype not in (np.uint8, np.uint16):
        raise UserError(
            f"The images of {builder.name} are of {dtype.name}, only uint8 and uint16 can be read."
        )
    return image, label


def open_split(builder: tfds.core.DatasetBuilder, split: str) -> AnySource:
    """Returns a split: random access if it was prepared as ArrayRecord, else a stream.

    Raises:
        UserError: The split is unknown, empty or not TFDS syntax.
    """
    try:
        info = builder.info.splits[split]
        instructions = info.file_instructions
    except (KeyError, ValueError, AssertionError) as error:
        known = ", ".join(builder.info.splits)
        message = first_line(error).strip("'\"")
        raise UserError(
            f"{builder.name} has no split {split!r} ({message}). It has: {known}."
        ) from None
    if not info.num_examples:
        raise UserError(f"The split {split!r} of {builder.name} is empty.")
    image_key, label_key = feature_keys(builder)

    def open_record(record: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        parsed = tf.io.parse_single_example(
            record,
            {
                image_key: tf.io.FixedLenFeature((), tf.string),
                label_key: tf.io.FixedLenFeature((), tf.int64),
            },
        )
        return parsed[image_key], parsed[label_key]

    def name(position: int) -> str:
        return f"{builder.info.full_name} {split}[{position}]"

    def fingerprint() -> str:
        return f"{builder.data_path} {split} {info.num_examples} {info.num_bytes}"

    if builder.info.file_format is tfds.core.FileFormat.ARRAY_RECORD:
        return _random_access(instructions, open_record, name, fingerprint)
    paths = tf.constant([str(item.filename) for item in instructions])
    skips = tf.constant([item.skip for item in instructions], tf.int64)
    takes = tf.constant([item.take for item in instructions], tf.int64)
    return Stream(
        part=lambda number: (
            tf.data.TFRecordDataset(paths[number]).skip(skips[number]).take(takes[number])
        ),
        part_sizes=np.array([_size(item) for item in instructions]),
        open=open_record,
        name=name,
        fingerprint=fingerprint,
        record_bytes=max(1, int(info.num_bytes or 0) // info.num_examples),
    )


def _size(instruction) -> int:
    """Examples that an instruction reads of its file."""
    rest = instruction.examples_in_shard - instruction.skip
    return rest if instruction.take < 0 else min(rest, instruction.take)


def _random_access(instructions, open_record, name, fingerprint) -> Source:
    from array_record.python import array_record_data_source

    records = array_record_data_source.ArrayRecordDataSource(instructions)

    def read(positions: np.ndarray) -> np.ndarray:
        return np.array(records.__getitems__(positions.tolist()), dtype=object)

    def lookup(positions: tf.Tensor) -> tf.Tensor:
        found = tf.numpy_function(read, [positions], tf.string, stateful=False)
        return tf.ensure_shape(found, positions.shape)

    source = Source(
        count=len(records),
        lookup=lookup,
        open=open_record,
        name=name,
        read_labels=lambda: np.fromiter(
            labels_of(source.references(256), source), np.int64, source.count
        ),
        fingerprint=fingerprint,
        portable=False,
    )
    return source
