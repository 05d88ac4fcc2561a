"""What the pipeline needs of a place where labelled pictures are kept.

`Source` is random access: any example at once, so an epoch is a permutation of all of them.
`lightnets.data.sources.stream.Stream` has the same interface for what can only be read in order.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from lightnets.data.sources import order


@dataclass(frozen=True)
class Source:
    """Random access to labelled pictures.

    Attributes:
        count: Number of examples.
        lookup: Positions, int64 `(batch,)`, to a structure of tensors with leading axis
            `batch`: paths, records or pixels. Called once per batch.
        open: One element of that structure to the contents and the label: an int64 scalar, or
            float32 `(labels,)` where an image has several labels or numbers. Called per example,
            in parallel. Contents are the bytes of an image file, a scalar string.
        name: Position to what a person can find the example by: a path, or split and number.
        read_labels: Returns all labels, int64 `(count,)` or float32 `(count, labels)`; may have to
            read the whole set.
        fingerprint: Text that changes when the contents do: the key of what is remembered.
        order: How training orders the examples, for a person.
        portable: Whether another process can run `lookup` and `open`: they do not call Python.
    """

    count: int
    lookup: Callable[[tf.Tensor], Any]
    open: Callable[[Any], tuple[tf.Tensor, tf.Tensor]]
    name: Callable[[int], str]
    read_labels: Callable[[], np.ndarray]
    fingerprint: Callable[[], str]
    order: str = "a full permutation per epoch"
    portable: bool = True

    def subset(self, kept: np.ndarray) -> Source:
        """Returns the source of the examples at the positions `kept`, in that order."""
        positions = tf.constant(kept, tf.int64)
        return dataclasses.replace(
            self,
            count=len(kept),
            lookup=lambda batch: self.lookup(tf.gather(positions, batch)),
            name=lambda position: self.name(int(kept[position])),
            read_labels=lambda: self.read_labels()[kept],
            fingerprint=lambda: f"{self.fingerprint()} {digest(np.asarray(kept, np.int64))}",
        )

    def contents(self, position: int) -> tf.Tensor:
        """Returns the contents of one example."""
        reference = self.lookup(tf.constant([position], tf.int64))
        return self.open(tf.nest.map_structure(lambda part: part[0], reference))[0]

    def pick(self, positions: Iterable[int]) -> Iterator[tf.Tensor]:
        """Yields the contents of the examples at `positions`."""
        return map(self.contents, map(int, positions))

    def train_references(
        self, start_step: int, *, seed: int, global_batch: int, shard: int, shards: int
    ) -> tf.data.Dataset:
        """Returns endless `(references, keys)`, one element per step; keys int64 `(batch, 2)`."""

        def look_up(step):
            positions = order.step_positions(
                step,
                examples=self.count,
                global_batch=global_batch,
                seed=seed,
                shard=shard,
                shards=shards,
            )
            epoch = step // (self.count // global_batch)
            return self.lookup(positions), order.example_keys(seed, epoch, positions)

        return tf.data.Dataset.range(start_step, tf.int64.max).map(look_up)

    def view_references(self, view: int, *, seed: int, batch: int) -> tf.data.Dataset:
        """Returns one pass in order, each example with its key of epoch `view`.

        Elements are as those of `train_references`. The last batch is filled up with the last
        example.
        """

        def look_up(step):
            positions, _ = order.positions_of_pass(step, examples=self.count, global_batch=batch)
            epoch = tf.constant(view, tf.int64)
            return self.lookup(positions), order.example_keys(seed, epoch, positions)

        return order.steps_of_pass(self.count, batch).map(look_up)

    def references(self, global_batch: int, shard: int = 0, shards: int = 1) -> tf.data.Dataset:
        """Returns one pass in order: `(references, weights)`, weights float32 `(batch,)`.

        The last batch is filled up with the last example at weight 0.
        """

        def look_up(step):
            positions, weights = order.positions_of_pass(
                step, examples=self.count, global_batch=global_batch, shard=shard, shards=shards
            )
            return self.lookup(positions), weights

        return order.steps_of_pass(self.count, global_batch).map(look_up)


def labels_of(references: tf.data.Dataset, source: Any) -> Iterator[Any]:
    """Yields the labels of one pass over a source without decoding."""
    pairs = references.unbatch().map(lambda reference, weight: (source.open(reference)[1], weight))
    for labels, weights in pairs.batch(1024).as_numpy_iterator():
        yield from labels[weights > 0].tolist()


def digest(array: np.ndarray) -> str:
    """Returns the first 16 hexadecimal digits of the SHA-256 of an array's bytes."""
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()[:16]


def spread(count: int, most: int) -> np.ndarray:
    """Returns int64 positions, at most `most`, spread evenly over `count` examples."""
    return np.unique(np.linspace(0, max(count - 1, 0), most if count else 0).astype(np.int64))
