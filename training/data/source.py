"""What the pipeline needs of a place where labelled pictures are kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tensorflow as tf


@dataclass(frozen=True)
class Source:
    """Random access to labelled pictures.

    Attributes:
        count: Number of examples.
        lookup: Positions, int64 `(batch,)`, to a structure of tensors with leading axis
            `batch`: paths, records or pixels. Called once per batch.
        open: One element of that structure to the contents and the label, an int64 scalar.
            Called per example, in parallel. Contents are the bytes of an image file (scalar
            string) or, if `decoded`, pixels: uint8 `(height, width, 3)`.
        name: Position to what a person can find the example by: a path, or split and number.
        read_labels: Returns all labels, int64 `(count,)`; may have to read the whole set.
        fingerprint: Text that changes when the contents do: the key of what is remembered.
        decoded: See `open`.
    """

    count: int
    lookup: Callable[[tf.Tensor], Any]
    open: Callable[[Any], tuple[tf.Tensor, tf.Tensor]]
    name: Callable[[int], str]
    read_labels: Callable[[], np.ndarray]
    fingerprint: Callable[[], str]
    decoded: bool = False
    kept: np.ndarray | None = field(default=None, repr=False)  # positions in the whole source

    def subset(self, kept: np.ndarray) -> Source:
        """Returns the source of the examples at the positions `kept`, in that order."""
        positions = tf.constant(kept, tf.int64)
        whole = np.arange(self.count) if self.kept is None else self.kept
        return Source(
            count=len(kept),
            lookup=lambda batch: self.lookup(tf.gather(positions, batch)),
            open=self.open,
            name=lambda position: self.name(int(kept[position])),
            read_labels=lambda: self.read_labels()[kept],
            fingerprint=self.fingerprint,
            decoded=self.decoded,
            kept=whole[kept],
        )

    def contents(self, position: int) -> tf.Tensor:
        """Returns the contents of one example."""
        reference = self.lookup(tf.constant([position], tf.int64))
        return self.open(tf.nest.map_structure(lambda part: part[0], reference))[0]
