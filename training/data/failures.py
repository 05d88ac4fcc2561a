"""Telling what is wrong when images cannot be read in the middle of a run."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import numpy as np
import tensorflow as tf

from keras_lightnets.text import first_line
from lightnets.data import check
from lightnets.data.sources.stream import Stream
from lightnets.data.splits import Splits
from lightnets.support.errors import UserError
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
def explain(splits: Splits, *, global_batch: int, steps: Callable[[], range]) -> Iterator[None]:
    """Turns TensorFlow's error about an image into one line that names the file.

    Only when something has failed are images looked at: those of `steps`, then those to evaluate.

    Args:
        splits: What is read.
        global_batch: Images per step of training.
        steps: The steps in which it may have happened.

    Raises:
        UserError: Images cannot be read; it names them.
    """
    try:
        yield
    except _OF_DATA as error:
        data = splits.config.data
        if data.data_service and "data service" in str(error):
            text = first_line(error)
            raise UserError(
                f"data.data_service: {text.partition('Error: ')[2] or text}. Start what is "
                "missing, then go on with lightnets train --resume."
            ) from None
        seen = range(0) if data.data_service else steps()
        damaged = _of_steps(splits, seen, global_batch)
        damaged = damaged or check.named_damaged(splits.eval_source)
        if not damaged:
            raise
        raise check.unreadable(
            damaged,
            data.dataset,
            "Restore what is damaged and go on with lightnets train --resume, or see "
            f"{command('data', 'check', data.dataset)}.",
        ) from None


def _of_steps(splits: Splits, steps: range, global_batch: int) -> dict[str, str]:
    """Returns the damaged images of the first of these steps that has any."""
    if not steps:
        return {}
    source, seed = splits.epoch_source, splits.config.train.seed
    references = source.train_references(
        steps[0], seed=seed, global_batch=global_batch, shard=0, shards=1
    )
    for _, keys in references.take(len(steps)):
        positions = np.sort(keys[:, 1].numpy())
        if isinstance(source, Stream) and source.kept is not None:
            # The keys of a stream also count what it leaves out.
            positions = np.searchsorted(np.flatnonzero(source.kept), positions)
        if damaged := check.named_damaged(source.subset(positions)):
            return damaged
    return {}
