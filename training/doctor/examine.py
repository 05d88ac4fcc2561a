"""What is wrong with a data set: every file read, decoded and compared once."""

from __future__ import annotations

import collections
import functools
import hashlib
import io
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
from lightnets.data import check, pillow
from lightnets.data.dataset import Dataset, find
from lightnets.data.load import SHARE, open_dataset
from lightnets.data.sources import layout, listing
from lightnets.data.sources.source import Source
from lightnets.data.sources.stream import Stream
from lightnets.doctor.near import flat, near_groups, perceptual_hash
from lightnets.support.quiet import standard_error_aside

# Longer side of what is hashed and shown, in pixels.
_THUMBNAIL = 64
# How many thumbnails are kept for the page: about 2 KB each.
_MOST_THUMBNAILS = 50_000
# Longer side as a multiple of the shorter one, from where a crop is worth a remark; and the value
# below which the pixels of a file of 16 bits are those of 14 at most.
_WIDE, _DARK = 2, 2**14
# Files in memory at a time.
_CHUNK = 64


@dataclass(frozen=True)
class Look:
    """One image as it was found.

    Attributes:
        name: Path, or split and number.
        label: Name of its class, None without one.
        digest: SHA-256 of the bytes, None if they could not be read.
        kind: Format by the bytes, None if unknown.
        size: Height and width in pixels, None if it cannot be decoded.
        error: Why it cannot be decoded, else None.
        hash: Perceptual hash of 64 bits; None without pixels or where all are about the same.
        thumbnail: JPEG file, if kept.
        worthless: Whether it is empty, or damaged although of a format that is read.
        transparent: Whether a background shows through.
        brightest: Largest value of a file of 16 bits, else None.
    """

    name: str
    label: str | None
    digest: str | None
    kind: str | None
    size: tuple[int, int] | None
    error: str | None
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
        strays: Files among the images that are none.
        looks: One for each image, in order.
        parts: What a run reads instead of `source`, one after the other, if it divides it.
    """

    source: Source | Stream
    classes: list[str]
    strays: list[str] = field(default_factory=list)
    looks: list[Look] = field(default_factory=list)
    parts: list[Source | Stream] = field(default_factory=list)


def examine(
    config: Config, *, thumbnails: bool = False, dataset: Dataset | None = None
) -> dict[str, Split]:
    """Reads and decodes all images of all splits, with a bar if standard error is a terminal.

    Args:
        config: Names the data set; nothing else of it is used.
        thumbnails: Keep small pictures for a page.
        dataset: What `find` has made of it already.

    Raises:
        UserError: There is no such data set, or it holds no images at all.
    """
    splits = open_splits(config, dataset or find(config.data))
    kept = _MOST_THUMBNAILS if thumbnails else 0
    total = sum(split.source.count for split in splits.values())
    # libjpeg writes to file descriptor 2 itself, whatever TensorFlow's log level.
    with _bar(total) as advance, standard_error_aside():
        for split in splits.values():
            for look in _looks(split, kept):
                split.looks.append(look)
                advance()
    for split in splits.values():
        first = 0
        for part in split.parts or [split.source]:
            looks = split.looks[first : first + part.count]
            check.remember(
                part, {place: look.error for place, look in enumerate(looks) if look.error}
            )
            first += part.count
    return splits


def open_splits(config: Config, dataset: Dataset) -> dict[str, Split]:
    """Opens every split there is, also those whose classes differ."""
    splits = {}
    for name in dataset.sizes:
        part = dataset.open(name)
        strays = [path for path, reason in part.skipped.items() if reason == listing.NO_IMAGE]
        splits[name] = Split(part.source, part.classes, strays)
    if dataset.prepared and not dataset.divided:
        # Of TFRecord files a run holds out the last ones: the two parts of the only split.
        opened = open_dataset(config)
        (split,) = splits.values()
        if opened.evaluation is not None:
            split.parts = [opened.train, opened.evaluation]
    return splits


def _looks(split: Split, kept: int) -> Iterator[Look]:
    """Yields what is found of each image, in order."""
    source = split.source
    labels = source.read_labels()

    def look(place: int, contents: bytes | Exception) -> Look:
        label = split.classes[labels[place]] if labels[place] >= 0 else None
        return _look(source.name(place), label, contents, thumbnail=place < kept)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        chunk: list[tuple[int, bytes | Exception]] = []
        for item in enumerate(contents_of(source)):
            chunk.append(item)
            if len(chunk) == _CHUNK:
                yield from pool.map(look, *zip(*chunk, strict=True))
                chunk = []
        if chunk:
            yield from pool.map(look, *zip(*chunk, strict=True))


def contents_of(source: Source | Stream) -> Iterator[bytes | Exception]:
    """Yields the bytes of each image in order, or why they cannot be read."""

    def read(reference, weight):
        del weight
        return source.open(reference)[0]

    iterator = iter(source.references(_CHUNK).unbatch().map(read, num_parallel_calls=4))
    for _ in range(source.count):
        # An iterator goes on with the next element after an error of the map.
        try:
            contents: Any = next(iterator).numpy()
            yield contents
        except StopIteration:
            return
        except tf.errors.OpError as error:
            yield error


def _look(name: str, label: str | None, contents: bytes | Exception, *, thumbnail: bool) -> Look:
    if isinstance(contents, Exception):
        return Look(name, label, None, None, None, check.reason(contents))
    digest, kind = hashlib.sha256(contents).hexdigest(), listing.kind_of(contents[:12])
    try:
        size, small = _shrink(255)(contents)
    except tf.errors.OpError as error:
        why = check.reason(error)
        # What is of no format we know may be a sound picture of another one.
        worthless = not contents.strip(b"\0") or (kind in listing.READ and why == check.DAMAGED)
        return Look(name, label, digest, kind, None, why, worthless=worthless)
    from PIL import Image

    picture = Image.fromarray(small.numpy())
    code = None if flat(picture) else perceptual_hash(picture)
    facts = {} if kind == "JPEG" else _facts(contents, small)
    jpeg = None
    if thumbnail:
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=85)
        jpeg = file.getvalue()
    return Look(name, label, digest, kind, tuple(size.numpy().tolist()), None, code, jpeg, **facts)


def _facts(contents: bytes, small: tf.Tensor) -> dict[str, Any]:
    """Returns what else is known of a file that decodes to the picture `small`."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(contents)) as opened:
            see_through = opened.has_transparency_data
            deep = opened.mode.startswith("I;16")
            brightest = int(np.asarray(opened).max()) if deep else None
    except Exception:  # TensorFlow reads what Pillow may not
        return {}
    transparent = see_through and bool(tf.reduce_any(_shrink(0)(contents)[1] != small))
    return {"transparent": transparent, "brightest": brightest}


@functools.cache
def _shrink(background: int) -> Callable[[bytes], tuple[tf.Tensor, tf.Tensor]]:
    """Returns what makes height and width of an image file, and its pixels made small, uint8."""

    @tf.function(input_signature=[tf.TensorSpec((), tf.string)])
    def shrink(contents):
        image = preprocessing.decode_image(
            contents, (background, background, background), to_png=pillow.png
        )
        size = tf.shape(image)[:2]
        small = tf.maximum(size * _THUMBNAIL // tf.reduce_max(size), 1)
        pixels = tf.image.resize(image, small, method="area")
        return size, decode.to_uint8(pixels)

    return shrink


class _bar:  # noqa: N801 (used as a function: `with _bar(total) as advance`)
    """Shows how far it is on standard error, if that is a terminal."""

    def __init__(self, total: int) -> None:
        self._total = total

    def __enter__(self):
        if not sys.stderr.isatty():
            self._progress = None
            return lambda: None
        from rich.console import Console
        from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

        # A descriptor of its own: number 2 is put aside meanwhile.
        self._file = os.fdopen(os.dup(2), "w")
        console = Console(file=self._file)
        columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn())
        progress = Progress(*columns, console=console, transient=True, redirect_stderr=False)
        progress.start()
        task = progress.add_task("Looking at images", total=self._total)
        self._progress = progress
        return lambda: progress.advance(task)

    def __exit__(self, *exception) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._file.close()


def findings(splits: dict[str, Split], dataset: Dataset) -> dict[str, Any]:
    """Returns everything that was found, ready for JSON.

    `wrong` and `remarks` are lines for a person; the data set is clean if `wrong` is empty.
    `remove` are the files to delete: empty, damaged, and all copies but one, unless they carry
    different labels. Of copies across splits, those outside the training set stay.
    """
    groups = _copies(splits)
    near = _near(splits)
    found: dict[str, Any] = {
        "splits": {name: _describe(split) for name, split in splits.items()},
        "copies": [[look.name for _, look in group] for group in groups],
        "copies_across_splits": [
            [look.name for _, look in group]
            for group in groups
            if len({split for split, _ in group}) > 1
        ],
        "copies_with_different_labels": [
            [look.name for _, look in group] for group in groups if _contradict(group)
        ],
        "near_copies": [[look.name for _, look in group] for group in near],
        "near_copies_across_splits": [
            [look.name for _, look in group]
            for group in near
            if len({split for split, _ in group}) > 1
        ],
        "class_names_that_differ": _differing(splits),
        "class_names_alike": layout.alike(dataset.classes),
        "left_over": dict(dataset.left_over),
        "remove": _to_remove(splits, groups),
    }
    from lightnets.doctor.text import every_line, remarks, wrong

    return found | {"wrong": every_line(wrong(found)), "remarks": every_line(remarks(found))}


def _describe(split: Split) -> dict[str, Any]:
    sizes = sorted(
        (look.size for look in split.looks if look.size), key=lambda size: size[0] * size[1]
    )
    labels = collections.Counter(look.label for look in split.looks)
    return {
        "images": len(split.looks),
        "classes": {name: labels[name] for name in split.classes},
        "unlabelled": labels[None],
        "empty_classes": [name for name in split.classes if not labels[name]],
        "formats": dict(
            sorted(collections.Counter(look.kind or "unknown" for look in split.looks).items())
        ),
        "smallest": sizes[0] if sizes else None,
        "median": sizes[len(sizes) // 2] if sizes else None,
        "largest": sizes[-1] if sizes else None,
        "damaged": {look.name: look.error for look in split.looks if look.error},
        "misnamed": {look.name: look.kind for look in split.looks if _misnamed(look)},
        "no_images": list(split.strays),
        "transparent": [look.name for look in split.looks if look.transparent],
        "dark_16_bit": {
            look.name: look.brightest
            for look in split.looks
            if look.brightest is not None and look.brightest < _DARK
        },
        "wide": {
            look.name: round(_left_out(look.size), 2)
            for look in split.looks
            if look.size and max(look.size) >= _WIDE * min(look.size)
        },
    }


def _left_out(size: tuple[int, int]) -> float:
    """Returns the share of a picture that is outside the centre crop of evaluation."""
    return 1 - SHARE**2 * min(size) / max(size)


def _misnamed(look: Look) -> bool:
    suffix = os.path.splitext(look.name)[1].lower()  # noqa: PTH122 (a name, maybe no path)
    return look.kind is not None and listing.SUFFIXES.get(suffix, look.kind) != look.kind


Group = list[tuple[str, Look]]


def _copies(splits: dict[str, Split]) -> list[Group]:
    """Returns groups of files of the same bytes."""
    places: dict[str, Group] = collections.defaultdict(list)
    for name, split in splits.items():
        for look in split.looks:
            if look.digest and not look.error:
                places[look.digest].append((name, look))
    return [group for group in places.values() if len(group) > 1]


def _near(splits: dict[str, Split]) -> list[Group]:
    """Returns groups of images that look the same but are different files."""
    seen: dict[str, tuple[str, Look]] = {}
    for name, split in splits.items():
        for look in split.looks:
            if look.hash is not None and look.digest is not None:
                seen.setdefault(look.digest, (name, look))
    all_looks = list(seen.values())
    codes = np.array([look.hash for _, look in all_looks], np.uint64)
    return [[all_looks[place] for place in group] for group in near_groups(codes)]


def _contradict(group: Group) -> bool:
    return len({look.label for _, look in group if look.label is not None}) > 1


def _differing(splits: dict[str, Split]) -> dict[str, list[str]]:
    """Returns by split the classes of other splits that it lacks."""
    every = {name for split in splits.values() for name in split.classes}
    missing = {name: sorted(every - set(split.classes)) for name, split in splits.items()}
    return {name: classes for name, classes in missing.items() if classes}


def _to_remove(splits: dict[str, Split], groups: list[Group]) -> list[str]:
    names = []
    for split in splits.values():
        names += [look.name for look in split.looks if look.worthless]
    for group in groups:
        if not _contradict(group):
            # Sorting keeps the order within a split; a file listed twice is no copy of itself.
            held_out_first = sorted(group, key=lambda item: layout.role(item[0]) == "train")
            kept = held_out_first[0][1].name
            names += [look.name for _, look in held_out_first[1:] if look.name != kept]
    return list(dict.fromkeys(names))
