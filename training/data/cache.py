"""Keeping the undecoded contents of images in memory or on the local disk (`data.cache`).

Filled as examples are first read, by position, so neither order nor pixels change. For a source
on slow storage; files on a local disk are kept in memory by the operating system anyway.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import pathlib
import shutil
import tempfile
from typing import Protocol

import numpy as np
import psutil
import tensorflow as tf

from lightnets.config.keys import DataConfig
from lightnets.data.sources.source import Source
from lightnets.data.sources.stream import Stream
from lightnets.data.sources.tfds import cache_dir
from lightnets.support import console
from lightnets.support.errors import UsageError, UserError

# Of what is free: what "auto" may take, and what may be taken when asked for.
AUTO_SHARE, ASKED_SHARE = 0.2, 0.8
# Examples that are read to estimate the size of all.
_SAMPLE = 32


class _Store(Protocol):
    def get(self, position: int) -> tuple[bytes, int] | None: ...

    def put(self, position: int, contents: bytes, label: int) -> None: ...


def cached(sources: list[Source | Stream], data: DataConfig) -> list[Source | Stream]:
    """Returns the sources with the cache that `data.cache` asks for.

    Raises:
        UserError: The contents would not fit, or the data can only be read in order.
    """
    if data.cache == "none" or all(source.decoded for source in sources):
        return sources
    if data.data_service:
        # Its workers read the files, and this process cannot keep what they have read.
        if data.cache == "auto":
            return sources
        raise UsageError(f"data.cache (={data.cache}) cannot be used with data.data_service.")
    random_access = [source for source in sources if isinstance(source, Source)]
    if len(random_access) < len(sources):
        if data.cache == "auto":
            return sources
        raise UserError(
            f"{data.dataset} can only be read in order, so it cannot be cached by data.cache "
            f"(={data.cache}). Use auto or none."
        )
    size = sum(estimate(source) for source in random_access)
    if data.cache == "disk":
        folder = cache_dir() / "contents"
        _check_room(size, _free_disk(folder), f"free in {folder}")
        return [with_store(source, _Disk(folder / _key(source))) for source in random_access]
    free = psutil.virtual_memory().available
    if data.cache == "auto":
        if size > AUTO_SHARE * free:
            return sources
    else:
        _check_room(size, free, "of free memory")
    return [with_store(source, _Memory()) for source in random_access]


def estimate(source: Source) -> int:
    """Returns about how many bytes the contents of all examples have, from a few of them."""
    positions = np.unique(np.linspace(0, source.count - 1, _SAMPLE).astype(np.int64))
    references = source.lookup(tf.constant(positions))
    sizes = []
    for number in range(len(positions)):
        reference = tf.nest.map_structure(lambda part: part[number], references)  # noqa: B023
        # Files that cannot be read are the business of `check`.
        with contextlib.suppress(tf.errors.OpError):
            sizes.append(len(source.open(reference)[0].numpy()))
    return round(float(np.mean(sizes)) * source.count) if sizes else 0


def with_store(source: Source, store: _Store) -> Source:
    """Returns the source with contents from `store`, or put into it when first read."""

    def get(positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        found = [store.get(position) or (b"", 0) for position in positions.tolist()]
        contents, labels = zip(*found, strict=True)
        return np.array(contents, object), np.array(labels, np.int64)

    def put(position: np.ndarray, contents: bytes | np.ndarray, label: np.ndarray) -> np.int64:
        # A string arrives as bytes in a graph, but as an array without axes when run eagerly.
        store.put(int(position), np.asarray(contents, object).item(), int(label))
        return np.int64(0)

    def lookup(positions: tf.Tensor):
        contents, labels = tf.numpy_function(get, [positions], (tf.string, tf.int64))
        contents = tf.ensure_shape(contents, positions.shape)
        labels = tf.ensure_shape(labels, positions.shape)
        # Only what is missing is looked up, and one more, because nothing would have no shape.
        missing = tf.equal(contents, "")
        wanted = tf.concat([tf.boolean_mask(positions, missing), positions[:1]], 0)
        places = tf.where(missing, tf.cumsum(tf.cast(missing, tf.int32)) - 1, tf.size(wanted) - 1)
        found = tf.nest.map_structure(
            lambda part: tf.gather(part, places), source.lookup(tf.ensure_shape(wanted, (None,)))
        )
        return contents, labels, positions, found

    def open_example(element):
        contents, label, position, reference = element

        def read():
            fresh, fresh_label = source.open(reference)
            done = tf.numpy_function(put, [position, fresh, fresh_label], tf.int64)
            with tf.control_dependencies([done]):
                return tf.identity(fresh), tf.identity(fresh_label)

        return tf.cond(tf.equal(contents, ""), read, lambda: (contents, label))

    return dataclasses.replace(source, lookup=lookup, open=open_example, portable=False)


class _Memory:
    def __init__(self):
        self._examples: dict[int, tuple[bytes, int]] = {}

    def get(self, position: int) -> tuple[bytes, int] | None:
        return self._examples.get(position)

    def put(self, position: int, contents: bytes, label: int) -> None:
        self._examples[position] = (contents, label)


class _Disk:
    """A file per example: the label in 8 bytes, then the contents. Kept for later runs."""

    def __init__(self, folder: pathlib.Path):
        self._folder = folder

    def get(self, position: int) -> tuple[bytes, int] | None:
        try:
            data = self._path(position).read_bytes()
        except OSError:
            return None
        return data[8:], int.from_bytes(data[:8], "little")

    def put(self, position: int, contents: bytes, label: int) -> None:
        # A disk that fills up, or a lost folder, costs speed but not the run.
        with contextlib.suppress(OSError):
            path = self._path(position)
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
                file.write(label.to_bytes(8, "little") + contents)
            pathlib.Path(file.name).replace(path)

    def _path(self, position: int) -> pathlib.Path:
        return self._folder / str(position // 1000) / str(position)


def _key(source: Source) -> str:
    return hashlib.sha256(f"{source.count} {source.fingerprint()}".encode()).hexdigest()[:32]


def _free_disk(folder: pathlib.Path) -> int:
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def _check_room(size: int, free: int, what: str) -> None:
    if size > ASKED_SHARE * free:
        raise UserError(
            f"data.cache: about {size / 2**30:.1f} GiB of images do not fit into "
            f"{ASKED_SHARE:.0%} of the {free / 2**30:.1f} GiB {what}. Use --cache none."
        )
    console.line(f"Keeping about {size / 2**20:.0f} MiB of undecoded images.")
