"""Damaged images: found before the first step, named, and remembered."""

from __future__ import annotations

import contextlib
import hashlib
import json
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from keras_lightnets import preprocessing
from keras_lightnets.text import listed
from lightnets.config.keys import DataConfig
from lightnets.data import pillow, pipeline
from lightnets.data.sources import listing
from lightnets.data.sources.stream import AnySource
from lightnets.data.sources.tfds import cache_dir
from lightnets.support import console
from lightnets.support.errors import UserError
from lightnets.support.quiet import standard_error_aside
from lightnets.support.words import command, count
from lightnets.support.writing import write_json

# Why a file of a known format cannot be decoded, where nothing more is known.
DAMAGED = "it is damaged or cut off"
# Part of an error's message to the reason that a user is told.
_REASONS = {
    "declares no pixels": f"it declares no pixels or more than {preprocessing.MAX_PIXELS}",
    "HEIC needs": "it is HEIC: pip install 'keras-lightnets[heif]'",
    "pixels of 32 bits": "its pixels are numbers of 32 bits: save it with 8 or 16",
    "Unknown image file format": "it is no image of a known format",
    "WebP Animation": "it is an animated WebP",
    "BMP that is": "it is a BMP that is compressed, of OS/2 or of other than 8, 24 or 32 bits",
}


def sound(
    sources: list[AnySource], data: DataConfig, place: str | None = None
) -> tuple[list[AnySource], dict[str, str]]:
    """Returns the sources without damaged images, and the names of those with the reason.

    Args:
        sources: What to look at.
        data: Of the run.
        place: Where they are; None: in the data set.

    Raises:
        UserError: There are some and `data.skip_corrupt` is not set; it names them.
    """
    damaged: dict[str, str] = {}
    parts = []
    for source in sources:
        bad = _damaged(source, data)
        damaged |= {source.name(position): why for position, why in bad.items()}
        kept = np.setdiff1d(np.arange(source.count), list(bad), assume_unique=True)
        parts.append(source.subset(kept) if bad else source)
    if damaged and not data.skip_corrupt:
        look = command("data", "check", data.dataset, "--fix-list", "remove.txt")
        advice = (
            f"{'' if place else f'To list them: {look}. '}To train without them: --skip-corrupt."
        )
        raise unreadable(damaged, place or data.dataset, advice)
    if not all(part.count for part in parts):
        raise UserError(f"No image of {place or data.dataset} can be read.")
    if damaged:
        console.line(f"Training without {count(len(damaged), 'image')} that cannot be read.")
    return parts, damaged


def _damaged(source: AnySource, data: DataConfig) -> dict[int, str]:
    # Workers of a data service read less, so what they cannot read is not remembered.
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


def unreadable(damaged: Mapping[str, str], dataset: str, advice: str) -> UserError:
    """Returns the error that names damaged images, with the reason of each."""
    named = listed([f"{name}: {why}" for name, why in damaged.items()])
    return UserError(
        f"{count(len(damaged), 'image')} of {dataset} cannot be read ({named}). {advice}"
    )


@contextlib.contextmanager
def explained(source: AnySource, dataset: str) -> Iterator[None]:
    """Turns TensorFlow's error about an image into one line that names all that are damaged.

    Raises:
        UserError: Images of `source` cannot be read.
    """
    try:
        yield
    except tf.errors.OpError:
        damaged = named_damaged(source)
        if not damaged:
            raise
        advice = f"See {command('data', 'check', dataset)}."
        raise unreadable(damaged, dataset, advice) from None


def named_damaged(source: AnySource) -> dict[str, str]:
    """Returns the names of the images that cannot be decoded, with the reason."""
    return {source.name(position): why for position, why in find_damaged(source).items()}


def find_damaged(source: AnySource, *, python: bool = True) -> dict[int, str]:
    """Decodes every image and returns the positions of those that cannot be, with the reason.

    Args:
        source: What to look at.
        python: Whether files may be decoded by Pillow, as where the pipeline can call Python.
    """

    def decode(contents):
        image = preprocessing.decode_image(contents, to_png=pillow.png if python else None)
        return tf.shape(image)

    # libjpeg writes to file descriptor 2 itself, whatever TensorFlow's log level.
    with standard_error_aside():
        return {
            position: reason(result)
            for position, result in enumerate(results(source, decode))
            if isinstance(result, Exception)
        }


def results(
    source: AnySource, function: Callable[[tf.Tensor], tf.Tensor] = tf.identity
) -> Iterator[Any]:
    """Yields what `function` makes of the contents of each image in order, or its error."""

    def read(reference, weight):
        del weight
        return function(source.open(reference)[0])

    dataset = source.references(64).unbatch().map(read, num_parallel_calls=tf.data.AUTOTUNE)
    iterator = iter(dataset.with_options(pipeline.options()))
    for _ in range(source.count):
        # An iterator goes on with the next element after an error of the map.
        try:
            result = next(iterator).numpy()
        except StopIteration:
            return
        except tf.errors.OpError as error:
            result = error
        yield result


def reason(error: Exception) -> str:
    """Returns, in a few words, why TensorFlow could not decode an image."""
    if isinstance(error, tf.errors.NotFoundError):
        return "there is no such file"
    if isinstance(error, (tf.errors.PermissionDeniedError, tf.errors.FailedPreconditionError)):
        return "it cannot be opened"
    text = str(error)
    return next((why for part, why in _REASONS.items() if part in text), DAMAGED)


def remembered(source: AnySource) -> dict[int, str] | None:
    """Returns what `find_damaged` found the last time, None if never or the data changed."""
    # The fingerprint asks for the date of every file, which takes minutes for a million on network
    # storage. So it is only computed where there may be a result.
    folder = _memory(source)
    if not folder.is_dir():
        return None
    with contextlib.suppress(OSError, ValueError):
        found = json.loads((folder / _file(source)).read_text(encoding="utf-8"))
        return {int(position): why for position, why in found.items()}
    return None


def remember(source: AnySource, bad: dict[int, str]) -> None:
    """Keeps a result for `remembered`; a folder that cannot be written is no error."""
    folder = _memory(source)
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / _file(source), bad)


def _memory(source: AnySource) -> pathlib.Path:
    """Where results are kept for sources of so many images from here to there."""
    ends = [source.name(place) for place in (0, source.count - 1) if source.count]
    return cache_dir() / "checked" / _key(" ".join([str(source.count), *ends]))


def _file(source: AnySource) -> str:
    return f"{_key(source.fingerprint())}.json"


def _key(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:32]
