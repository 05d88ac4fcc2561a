"""Finding damaged images before the first step, and remembering what was found."""

from __future__ import annotations

import contextlib
import hashlib
import json
import pathlib
from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from keras_lightnets import preprocessing
from keras_lightnets.text import listed
from lightnets.config.keys import DataConfig
from lightnets.data import pillow, pipeline
from lightnets.data.sources import listing
from lightnets.data.sources.source import Source
from lightnets.data.sources.stream import Stream
from lightnets.data.sources.tfds import cache_dir
from lightnets.support import console
from lightnets.support.errors import UserError
from lightnets.support.quiet import standard_error_aside
from lightnets.support.words import command, count
from lightnets.support.writing import write_json

# Why a file of a known format cannot be decoded, where nothing more is known.
DAMAGED = "it is damaged or cut off"

# How many names an error lists.
_NAMED = 10


def sound(
    sources: list[Source | Stream], data: DataConfig
) -> tuple[list[Source | Stream], dict[str, str]]:
    """Returns the sources without damaged images, and the names of those with the reason.

    Raises:
        UserError: There are some and `data.skip_corrupt` is not set; it names them.
    """
    damaged: dict[str, str] = {}
    parts = []
    for source in sources:
        bad = {} if source.decoded else _damaged(source, data)
        damaged |= {source.name(position): reason for position, reason in bad.items()}
        kept = np.setdiff1d(np.arange(source.count), list(bad), assume_unique=True)
        parts.append(source.subset(kept) if bad else source)
    if damaged and not data.skip_corrupt:
        lines = [f"  {name}: {reason}" for name, reason in list(damaged.items())[:_NAMED]]
        if len(damaged) > _NAMED:
            lines.append(f"  and {len(damaged) - _NAMED} more")
        raise UserError(
            f"{count(len(damaged), 'image')} of {data.dataset} cannot be read. Remove or replace "
            "them, or train without them: --skip-corrupt.",
            *lines,
        )
    if not all(part.count for part in parts):
        raise UserError(f"No image of {data.dataset} can be read.")
    if damaged:
        console.line(f"Training without {count(len(damaged), 'image')} that cannot be read.")
    return parts, damaged


@contextlib.contextmanager
def explained(source: Source | Stream, dataset: str) -> Iterator[None]:
    """Turns TensorFlow's error about an image into one line that names all that are damaged.

    Raises:
        UserError: Images of `source` cannot be read.
    """
    try:
        yield
    except tf.errors.OpError:
        bad = find_damaged(source)
        if not bad:
            raise
        named = listed([f"{source.name(place)}: {why}" for place, why in bad.items()])
        raise UserError(
            f"{count(len(bad), 'image')} of {dataset} cannot be read ({named}). "
            f"See {command('data', 'check', dataset)}."
        ) from None


def _damaged(source: Source | Stream, data: DataConfig) -> dict[int, str]:
    # Workers of a data service read less.
    bad = None if data.data_service else remembered(source)
    if bad is None and source.count > listing.UNASKED_LIMIT and not data.skip_corrupt:
        console.line(
            f"{source.count} images are not looked at before training: "
            f"{command('data', 'check', data.dataset)} does so once and is remembered."
        )
        return {}
    if bad is None:
        bad = find_damaged(source, python=not data.data_service)
        if not data.data_service:
            remember(source, bad)
    return bad


def find_damaged(source: Source | Stream, *, python: bool = True) -> dict[int, str]:
    """Decodes every image and returns the positions of those that cannot be, with the reason.

    Args:
        source: What to look at.
        python: Whether files may be decoded by Pillow, as where the pipeline can call Python.
    """
    bad: dict[int, str] = {}
    # libjpeg writes to file descriptor 2 itself, whatever TensorFlow's log level.
    with standard_error_aside():
        for position, _, error in decoded_sizes(source, python):
            if error is not None:
                bad[position] = error
    return bad


def decoded_sizes(source: Source | Stream, python: bool = True):
    """Yields `(position, (height, width), None)` or `(position, None, reason)` for each image."""

    def size(reference, weight):
        del weight
        contents, _ = source.open(reference)
        if not source.decoded:
            contents = preprocessing.decode_image(contents, to_png=pillow.png if python else None)
        return tf.shape(contents)[:2]

    sizes = source.references(64).unbatch().map(size, num_parallel_calls=tf.data.AUTOTUNE)
    iterator = iter(sizes.with_options(pipeline.options()))
    for position in range(source.count):
        # An iterator goes on with the next element after an error of the map.
        try:
            height, width = next(iterator).numpy().tolist()
            yield position, (height, width), None
        except StopIteration:
            return
        except tf.errors.OpError as error:
            yield position, None, reason(error)


def reason(error: Exception) -> str:
    """Returns, in a few words, why TensorFlow could not decode an image."""
    text = str(error)
    if isinstance(error, tf.errors.NotFoundError):
        return "there is no such file"
    if isinstance(error, (tf.errors.PermissionDeniedError, tf.errors.FailedPreconditionError)):
        return "it cannot be opened"
    if "declares no pixels" in text:
        return f"it declares no pixels or more than {preprocessing.MAX_PIXELS}"
    if "HEIC needs" in text:
        return "it is HEIC: pip install 'keras-lightnets[heif]'"
    if "pixels of 32 bits" in text:
        return "its pixels are numbers of 32 bits: save it with 8 or 16"
    if "Unknown image file format" in text:
        return "it is no image of a known format"
    if "WebP Animation" in text:
        return "it is an animated WebP"
    if "BMP that is" in text:
        return "it is a BMP that is compressed, of OS/2 or of other than 8, 24 or 32 bits"
    return DAMAGED


def remembered(source: Source | Stream) -> dict[int, str] | None:
    """Returns what `find_damaged` found the last time, None if never or the data changed."""
    # The fingerprint asks for the date of every file, which on network storage takes minutes
    # for a million: only where there is something to be found by it.
    if not _memory_folder(source).is_dir():
        return None
    with contextlib.suppress(OSError, ValueError):
        found = json.loads(_memory(source).read_text(encoding="utf-8"))
        return {int(position): text for position, text in found.items()}
    return None


def remember(source: Source | Stream, bad: dict[int, str]) -> None:
    """Keeps a result for `remembered`; a folder that cannot be written is no error."""
    path = _memory(source)
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, bad)


def _memory(source: Source | Stream) -> pathlib.Path:
    return _memory_folder(source) / f"{_key(source.fingerprint())}.json"


def _memory_folder(source: Source | Stream) -> pathlib.Path:
    """Where results are kept for sources of so many images from here to there."""
    ends = [source.name(place) for place in (0, source.count - 1) if source.count]
    return cache_dir() / "checked" / _key(" ".join([str(source.count), *ends]))


def _key(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:32]
