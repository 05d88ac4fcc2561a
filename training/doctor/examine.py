"""Reads and decodes every image of a data set once, and notes what is known of each."""

from __future__ import annotations

import collections
import contextlib
import hashlib
import io
import itertools
import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tensorflow as tf

from keras_lightnets import preprocessing
from keras_lightnets.preprocessing import decode
from lightnets.config.keys import Config
from lightnets.config.tasks import DEFAULT
from lightnets.data import check, pillow
from lightnets.data.dataset import Dataset
from lightnets.data.load import open_dataset
from lightnets.data.sources import listing, targets
from lightnets.data.sources.stream import AnySource
from lightnets.doctor.look_alikes import perceptual_hash
from lightnets.support.quiet import standard_error_aside

# Longer side of what is hashed and shown, in pixels.
_THUMBNAIL = 64
# How many thumbnails of a split are kept for the page: about 2 KB each.
_MOST_THUMBNAILS = 50_000
# Files in memory at a time.
_CHUNK = 64


@dataclass(frozen=True)
class Look:
    """One image as it was found.

    Attributes:
        split: Name of its split.
        name: Path, or split and number.
        label: Name of its class, or what else it is labelled with; None without.
        error: Why it cannot be decoded, else None.
        digest: SHA-256 of the bytes, None if they could not be read.
        kind: Format by the bytes, None if unknown.
        size: Height and width in pixels, None if it cannot be decoded.
        hash: Perceptual hash of 64 bits; None without pixels or where all are about the same.
        thumbnail: JPEG file, if kept.
        worthless: Whether it is empty, or damaged although of a format that is read.
        transparent: Whether a background shows through.
        brightest: Largest value of a file of 16 bits, else None.
    """

    split: str
    name: str
    label: str | None
    error: str | None = None
    digest: str | None = None
    kind: str | None = None
    size: tuple[int, int] | None = None
    hash: int | None = None
    thumbnail: bytes | None = None
    worthless: bool = False
    transparent: bool = False
    brightest: int | None = None


@dataclass
class Split:
    """One split: its source, its classes, and what was found.

    Attributes:
        source: Where the images are.
        classes: Names, in the order of the labels.
        strays: Files among the images that are no images.
        looks: One for each image, in order.
        task: What the labels are for.
    """

    source: AnySource
    classes: list[str]
    strays: list[str]
    looks: list[Look] = field(default_factory=list)
    task: str = DEFAULT

    def named(self, label: np.ndarray) -> str | None:
        """Returns what an image is labelled with, None if with nothing."""
        if label.ndim:
            return targets.words(self.task, label, self.classes)
        return self.classes[label] if label >= 0 else None

    def counts(self) -> dict[str, int]:
        """Returns how many images have each class or label, or tell each value."""
        if self.task == DEFAULT:
            found = collections.Counter(look.label for look in self.looks)
            return {name: found[name] for name in self.classes}
        labels = self.source.read_labels()
        told = labels == 1 if self.task == "multi-label" else np.isfinite(labels)
        return dict(zip(self.classes, told.sum(0).tolist(), strict=True))


def examine(config: Config, dataset: Dataset, *, thumbnails: bool = False) -> dict[str, Split]:
    """Reads and decodes all images of all splits, with a bar if standard error is a terminal.

    Args:
        config: Says how a run divides a set without splits.
        dataset: What `find` has made of it.
        thumbnails: Keep small pictures for a page.
    """
    splits = {}
    for name in dataset.sizes:
        part = dataset.open(name)
        strays = [path for path, reason in part.skipped.items() if reason == listing.NO_IMAGE]
        splits[name] = Split(part.source, part.classes, strays, task=dataset.task)
    total = sum(split.source.count for split in splits.values())
    # libjpeg writes to file descriptor 2 itself, whatever TensorFlow's log level.
    with _bar(total) as advance, standard_error_aside():
        for name, split in splits.items():
            for look in _looks(name, split, _MOST_THUMBNAILS if thumbnails else 0):
                split.looks.append(look)
                advance()
    for split in splits.values():
        first = 0
        for part in _parts(config, dataset, split):
            looks = split.looks[first : first + part.count]
            check.remember(
                part, {place: look.error for place, look in enumerate(looks) if look.error}
            )
            first += part.count
    return splits


def _parts(config: Config, dataset: Dataset, split: Split) -> list[AnySource]:
    """Returns what a run reads of a split, one part after the other."""
    if dataset.prepared and not dataset.divided:
        # Of many TFRecords a run holds out the last ones: the two parts of the only split.
        opened = open_dataset(config)
        if opened.evaluation is not None:
            return [opened.train, opened.evaluation]
    return [split.source]


@contextlib.contextmanager
def _bar(total: int) -> Iterator[Callable[[], None]]:
    """Shows how far it is on standard error, if that is a terminal; yields what advances it."""
    if not sys.stderr.isatty():
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import Progress

    # A descriptor of its own: number 2 is put aside meanwhile.
    with (
        os.fdopen(os.dup(2), "w") as file,
        Progress(console=Console(file=file), transient=True, redirect_stderr=False) as bar,
    ):
        task = bar.add_task("Looking at images", total=total)
        yield lambda: bar.advance(task)


def _looks(name: str, split: Split, kept: int) -> Iterator[Look]:
    """Yields what is found of each image of a split, in order; `kept` have thumbnails."""
    labels = split.source.read_labels()

    def look(item: tuple[int, bytes | Exception]) -> Look:
        place, contents = item
        label = split.named(labels[place])
        facts = _facts(contents, thumbnail=place < kept)
        return Look(name, split.source.name(place), label, **facts)

    images = enumerate(check.results(split.source))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        while chunk := list(itertools.islice(images, _CHUNK)):
            yield from pool.map(look, chunk)


def _facts(contents: bytes | Exception, *, thumbnail: bool) -> dict[str, Any]:
    """Returns what a `Look` says of the contents of a file."""
    if isinstance(contents, Exception):
        return {"error": check.reason(contents)}
    kind = listing.kind_of(contents[:12])
    facts = {"digest": hashlib.sha256(contents).hexdigest(), "kind": kind}
    try:
        size, small = _shrink(tf.constant(contents), 255)
    except tf.errors.OpError as error:
        why = check.reason(error)
        # What is of no format we know may be a sound picture of another one.
        worthless = not contents.strip(b"\0") or (kind in listing.READ and why == check.DAMAGED)
        return facts | {"error": why, "worthless": worthless}
    from PIL import Image

    picture = Image.fromarray(small.numpy())
    facts |= {"size": tuple(size.numpy().tolist()), "hash": perceptual_hash(picture)}
    if thumbnail:
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=85)
        facts["thumbnail"] = file.getvalue()
    return facts if kind == "JPEG" else facts | _depth(contents, small)


def _depth(contents: bytes, small: tf.Tensor) -> dict[str, Any]:
    """Returns whether a background shows through, and the largest value of 16 bits."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(contents)) as opened:
            see_through = opened.has_transparency_data
            deep = opened.mode.startswith("I;16")
            brightest = int(np.asarray(opened).max()) if deep else None
    except Exception:  # TensorFlow reads what Pillow may not
        return {}
    if see_through:
        see_through = bool(tf.reduce_any(_shrink(tf.constant(contents), 0)[1] != small))
    return {"transparent": see_through, "brightest": brightest}


@tf.function
def _shrink(contents: tf.Tensor, background: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns height and width of an image file, and its pixels made small, uint8."""
    color = background, background, background
    image = preprocessing.decode_image(contents, color, to_png=pillow.png)
    size = tf.shape(image)[:2]
    small = tf.maximum(size * _THUMBNAIL // tf.reduce_max(size), 1)
    return size, decode.to_uint8(tf.image.resize(image, small, method="area"))
