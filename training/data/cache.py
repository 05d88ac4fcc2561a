"""Keeping the undecoded contents of images in memory or on the local disk (`data.cache`).

Filled as examples are first read, by position, so neither order nor pixels change. For a source
on slow storage; files on a local disk are kept in memory by the operating system anyway.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import math
import pathlib
import shutil
import tempfile
from typing import Any

import numpy as np
import psutil
import tensorflow as tf

from lightnets.config.keys import DataConfig
from lightnets.data import check
from lightnets.data.sources.source import Source, spread
from lightnets.data.sources.stream import AnySource
from lightnets.data.sources.tfds import cache_dir
from lightnets.support import console
from lightnets.support.errors import UsageError, UserError

# Of what is free: what "auto" may take, and what may be taken when asked for.
AUTO_SHARE, ASKED_SHARE = 0.2, 0.8
# Examples that are read to estimate the size of all.
_SAMPLE = 32


def cached(sources: list[AnySource], data: DataConfig) -> list[AnySource]:
    """Returns the sources with the cache that `data.cache` asks for.

    Raises:
        UserError: The contents would not fit, or the data can only be read in order.
    """
    asked = data.cache != "auto"
    if data.cache == "none" or all(source.decoded for source in sources):
        return sources
    if data.data_service and asked:
        # Its workers read the files, and this process cannot keep what they have read.
        raise UsageError(f"data.cache (={data.cache}) cannot be used with data.data_service.")
    random_access = [source for source in sources if isinstance(source, Source)]
    in_order = len(random_access) < len(sources)
    if in_order and asked:
        raise UserError(
            f"{data.dataset} can only be read in order, so it cannot be cached by data.cache "
            f"(={data.cache}). Use auto or none."
        )
    if data.data_service or in_order:
        return sources
    size = sum(map(estimate, random_access))
    if data.cache == "disk":
        folder = cache_dir() / "contents"
        there = next(place for place in (folder, *folder.parents) if place.exists())
        _check_room(size, shutil.disk_usage(there).free, f"free in {folder}")
        return [
            with_store(source, _Disk(folder / _key(source), _label_spec(source)[2]))
            for source in random_access
        ]
    free = psutil.virtual_memory().available
    if asked:
        _check_room(size, free, "of free memory")
    elif size > AUTO_SHARE * free:
        return sources
    return [with_store(source, {}) for source in random_access]


def _check_room(size: int, free: int, what: str) -> None:
    if size > ASKED_SHARE * free:
        raise UserError(
            f"data.cache: about {size / 2**30:.1f} GiB of images do not fit into "
            f"{ASKED_SHARE:.0%} of the {free / 2**30:.1f} GiB {what}. Use --cache none."
        )
    console.line(f"Keeping about {size / 2**20:.0f} MiB of undecoded images.")


def estimate(source: Source) -> int:
    """Returns about how many bytes the contents of all examples have, from a few of them."""
    some = source.subset(spread(source.count, _SAMPLE))
    # Files that cannot be read are the business of `check`.
    sizes = [len(file) for file in check.results(some) if not isinstance(file, Exception)]
    return round(float(np.mean(sizes)) * source.count) if sizes else 0


def _label_spec(source: Source) -> tuple[tf.DType, list[int], int]:
    """Returns type, shape and bytes of a label."""
    labels = source.references(1).unbatch().map(lambda reference, _: source.open(reference)[1])
    spec: Any = labels.element_spec
    shape = spec.shape.as_list() if spec.shape.rank else []
    return spec.dtype, shape, spec.dtype.size * math.prod(shape)


def with_store(source: Source, store: dict[int, tuple[bytes, bytes]] | _Disk) -> Source:
    """Returns the source with contents from `store`, or put into it when first read."""
    dtype, shape, size = _label_spec(source)

    def get(positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        found = [store.get(position) or (b"", bytes(size)) for position in positions.tolist()]
        contents, labels = zip(*found, strict=True)
        return np.array(contents, object), np.array(labels, object)

    def put(position: np.ndarray, contents: bytes | np.ndarray, label: np.ndarray) -> np.int64:
        # A string arrives as bytes in a graph, but as an array without axes when run eagerly.
        store[int(position)] = np.asarray(contents, object).item(), label.tobytes()
        return np.int64(0)

    def lookup(positions: tf.Tensor):
        contents, labels = tf.numpy_function(get, [positions], (tf.string, tf.string))
        contents = tf.ensure_shape(contents, positions.shape)
        labels = tf.reshape(tf.io.decode_raw(labels, dtype), [-1, *shape])
        labels = tf.ensure_shape(labels, [*positions.shape, *shape])
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


class _Disk:
    """A file per example: the label in its bytes, then the contents. Kept for later runs."""

    def __init__(self, folder: pathlib.Path, label_bytes: int = 8):
        self._folder, self._size = folder, label_bytes

    def get(self, position: int) -> tuple[bytes, bytes] | None:
        try:
            data = self._path(position).read_bytes()
        except OSError:
            return None
        return data[self._size :], data[: self._size]

    def __setitem__(self, position: int, example: tuple[bytes, bytes]) -> None:
        contents, label = example
        # A disk that fills up, or a lost folder, costs speed but not the run.
        with contextlib.suppress(OSError):
            path = self._path(position)
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
                file.write(label + contents)
            pathlib.Path(file.name).replace(path)

    def _path(self, position: int) -> pathlib.Path:
        return self._folder / str(position // 1000) / str(position)


def _key(source: Source) -> str:
    return hashlib.sha256(f"{source.count} {source.fingerprint()}".encode()).hexdigest()[:32]
