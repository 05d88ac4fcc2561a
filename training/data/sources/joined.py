"""Two sources as one."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from lightnets.data.sources.source import Source
from lightnets.data.sources.stream import AnySource
from lightnets.support.errors import UserError


def joined(labelled: AnySource, unlabelled: AnySource) -> Source:
    """Returns the examples of one source and, behind them, those of the other.

    Raises:
        UserError: The former can only be read in order.
    """
    if not (isinstance(labelled, Source) and isinstance(unlabelled, Source)):
        raise UserError("Data that can only be read in order takes no pictures without labels.")

    def lookup(positions):
        first = labelled.lookup(tf.minimum(positions, labelled.count - 1))
        second = unlabelled.lookup(tf.maximum(positions - labelled.count, 0))
        return positions < labelled.count, first, second

    def open_one(reference):
        is_labelled, first, second = reference
        return tf.cond(is_labelled, lambda: labelled.open(first), lambda: unlabelled.open(second))

    def name(position):
        behind = position - labelled.count
        return labelled.name(position) if behind < 0 else unlabelled.name(behind)

    return Source(
        count=labelled.count + unlabelled.count,
        lookup=lookup,
        open=open_one,
        name=name,
        read_labels=lambda: np.concatenate([labelled.read_labels(), unlabelled.read_labels()]),
        fingerprint=lambda: f"{labelled.fingerprint()} {unlabelled.fingerprint()}",
        portable=labelled.portable and unlabelled.portable,
    )
