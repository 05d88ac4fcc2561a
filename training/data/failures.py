"""Telling what is wrong when images cannot be read in the middle of a run."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf

from keras_lightnets import preprocessing
from keras_lightnets.text import first_line
from lightnets.config.keys import Config
from lightnets.data import check, pillow
from lightnets.data.sources.source import Source
from lightnets.data.sources.stream import Stream
from lightnets.data.splits import Splits
from lightnets.support.errors import UserError
from lightnets.support.quiet import standard_error_aside
from lightnets.support.words import command

# What the operations that read and decode raise; a device that fails raises others.
_OF_DATA = (
    tf.errors.DataLossError,
    tf.errors.FailedPreconditionError,
    tf.errors.InvalidArgumentError,
    tf.errors.NotFoundError,
    tf.errors.PermissionDeniedError,
    tf.errors.UnknownError,
)


@contextlib.contextmanager
def explain(
    splits: Splits, config: Config, *, global_batch: int, steps: Callable[[], range]
) -> Iterator[None]:
    """Turns TensorFlow's error about an image into one line that names the file.

    Only when something has failed are images looked at: those of `steps`, then those to evaluate.

    Args:
        splits: What is read.
        config: Of the run.
        global_batch: Images per step of training.
        steps: The steps in which it may have happened.

    Raises:
        UserError: Images cannot be read; it names them.
    """
    try:
        yield
    except _OF_DATA as error:
        data = config.data
        if data.data_service and "data service" in str(error):
            raise UserError(
                f"data.data_service: {_own_words(error)}. Start what is missing, then go on with "
                "lightnets train --resume."
            ) from None
        with standard_error_aside():
            seen = range(0) if data.data_service else steps()
            found = _of_steps(splits.train_source, config, seen, global_batch) or _of_evaluation(
                splits.eval_source
            )
        if not found:
            raise
        names = "; ".join(f"{name}: {why}" for name, why in list(found.items())[:3])
        raise UserError(
            f"An image cannot be read any more ({names}). Restore it and go on with "
            f"lightnets train --resume, or see {command('data', 'check', data.dataset)}."
        ) from None


def _own_words(error: Exception) -> str:
    text = first_line(error)
    return text.partition("Error: ")[2] or text


def _of_steps(
    source: Source | Stream, config: Config, steps: range, global_batch: int
) -> dict[str, str]:
    """Returns the names of images of the first of these steps that has damaged ones."""
    if source.decoded or not steps:
        return {}
    references = source.train_references(
        steps[0], seed=config.train.seed, global_batch=global_batch, shard=0, shards=1
    )
    for batch, keys in references.take(len(steps)):
        found = {}
        for number, (_, position) in enumerate(keys.numpy().tolist()):
            why = _damage(source, tf.nest.map_structure(lambda part: part[number], batch))  # noqa: B023
            if why:
                found[source.name(position)] = why
        if found:
            return found
    return {}


def _of_evaluation(source: Source | Stream) -> dict[str, str]:
    bad = {} if source.decoded else check.find_damaged(source)
    return {source.name(position): why for position, why in bad.items()}


def _damage(source: Source | Stream, reference: Any) -> str | None:
    try:
        preprocessing.decode_image(source.open(reference)[0], to_png=pillow.png)
    except tf.errors.OpError as error:
        return check.reason(error)
    return None
