"""Labelled pictures that can only be read in order: TFRecord files, a `tf.data.Dataset`.

An epoch reads the parts (files) in a shuffled order, several in turn, and shuffles what comes out
in windows. All of it follows from (seed, epoch). A resumed run skips records, undecoded, up to its
step, so it sees the same batches.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from lightnets.data.sources import order
from lightnets.data.sources.source import Source, digest, labels_of
from lightnets.support.words import count

# Parts that are read in turn, and records in one turn.
_CYCLE, _TURN = 16, 8
# Undecoded bytes in a window, and the fewest and most records.
_WINDOW_BYTES, _WINDOW_LEAST, _WINDOW_MOST = 2**28, 1024, 16384


@dataclass(frozen=True)
class Stream:
    """Labelled pictures in parts; the interface is that of `Source`.

    Attributes:
        part: Number of a part, int64 scalar, to the dataset of its references.
        part_sizes: References in each part, int64 `(parts,)`.
        open: As in `Source`.
        name: As in `Source`; the position counts through the parts in their order.
        fingerprint: As in `Source`.
        record_bytes: About how large a reference is.
        kept: bool `(references,)`, which of them are examples.
        portable: As in `Source`.
    """

    part: Callable[[tf.Tensor], tf.data.Dataset]
    part_sizes: np.ndarray
    open: Callable[[Any], tuple[tf.Tensor, tf.Tensor]]
    name: Callable[[int], str]
    fingerprint: Callable[[], str]
    record_bytes: int = 2**17
    kept: np.ndarray | None = None
    portable: bool = True

    @property
    def count(self) -> int:
        return int(self.part_sizes.sum() if self.kept is None else self.kept.sum())

    @property
    def window(self) -> int:
        """How many examples are shuffled together."""
        fitting = _WINDOW_BYTES // max(self.record_bytes, 1)
        return min(max(fitting, _WINDOW_LEAST), _WINDOW_MOST, self.count)

    @property
    def order(self) -> str:
        parts = len(self.part_sizes)
        return (
            f"{count(parts, 'shuffled part')}, {min(_CYCLE, parts)} by turns, "
            f"in shuffled windows of {count(self.window, 'example')}"
        )

    def subset(self, kept: np.ndarray) -> Stream:
        """Returns the stream of the examples at the positions `kept`, sorted."""
        positions = np.arange(self.part_sizes.sum())
        if self.kept is not None:
            positions = positions[self.kept]
        mask = np.zeros(self.part_sizes.sum(), bool)
        mask[positions[kept]] = True
        return dataclasses.replace(
            self,
            kept=mask,
            name=lambda position: self.name(int(kept[position])),
            fingerprint=lambda: f"{self.fingerprint()} {digest(mask)}",
        )

    def read_labels(self) -> np.ndarray:
        return np.fromiter(labels_of(self.references(256), self), np.int64, self.count)

    def contents(self, position: int) -> tf.Tensor:
        """Returns the contents of one example; reads all before it."""
        _, reference = next(iter(self._in_order().skip(position)))
        return self.open(reference)[0]

    def pick(self, positions: Iterable[int]) -> Iterator[tf.Tensor]:
        """Yields the contents of the examples at `positions`; reads the records up to the last."""
        wanted = [int(position) for position in positions]
        chosen = set(wanted)
        records = self._in_order().take(max(wanted, default=-1) + 1)
        references = enumerate(reference for _, reference in records)
        found = {n: self.open(reference)[0] for n, reference in references if n in chosen}
        return (found[position] for position in wanted)

    def train_references(
        self, start_step: int, *, seed: int, global_batch: int, shard: int, shards: int
    ) -> tf.data.Dataset:
        """Returns endless `(references, keys)`, one element per step; keys int64 `(batch, 2)`."""
        steps_per_epoch = self.count // global_batch
        start_epoch, done = divmod(start_step, steps_per_epoch)
        mine = _slice(global_batch, shard, shards)

        def one_epoch(epoch):
            skip = tf.where(tf.equal(epoch, start_epoch), done * global_batch, 0)
            examples = self._shuffled(seed, epoch, tf.cast(skip, tf.int64))
            batches = examples.batch(global_batch, drop_remainder=True)

            def cut(positions, references):
                references = tf.nest.map_structure(lambda part: part[mine], references)
                return references, order.example_keys(seed, epoch, positions[mine])

            return batches.map(cut)

        return tf.data.Dataset.range(start_epoch, tf.int64.max).flat_map(one_epoch)

    def references(self, global_batch: int, shard: int = 0, shards: int = 1) -> tf.data.Dataset:
        """Returns one pass in order: `(references, weights)`, weights float32 `(batch,)`.

        The last batch is filled up with the first example at weight 0.
        """
        mine = _slice(global_batch, shard, shards)
        examples = self._in_order()
        filling = examples.take(1).repeat(-self.count % global_batch)
        weighted = examples.map(lambda _, reference: (reference, tf.constant(1.0)))
        unweighted = filling.map(lambda _, reference: (reference, tf.constant(0.0)))
        batches = weighted.concatenate(unweighted).batch(global_batch, drop_remainder=True)
        return batches.map(lambda *parts: tf.nest.map_structure(lambda part: part[mine], parts))

    def _in_order(self) -> tf.data.Dataset:
        return self._kept(tf.data.Dataset.range(len(self.part_sizes)).flat_map(self._numbered))

    def _numbered(self, number: tf.Tensor) -> tf.data.Dataset:
        """Returns `(position, reference)` of one part."""
        starts = tf.constant(np.cumsum(self.part_sizes) - self.part_sizes, tf.int64)
        return self.part(number).enumerate(starts[number])

    def _kept(self, examples: tf.data.Dataset) -> tf.data.Dataset:
        if self.kept is None:
            return examples
        mask = tf.constant(self.kept)
        return examples.filter(lambda *example: mask[example[0]])

    def _shuffled(self, seed: int, epoch: tf.Tensor, skip: tf.Tensor) -> tf.data.Dataset:
        """Returns `(position, reference)` of an epoch without its first `skip` examples."""
        parts = len(self.part_sizes)
        shuffled_parts = _shuffled_range(parts, seed, epoch, 0)
        cycle = min(_CYCLE, parts)
        # Not `Dataset.shuffle`: its order also depends on TensorFlow's global seed.
        examples = self._kept(
            tf.data.Dataset.from_tensor_slices(shuffled_parts).interleave(
                self._numbered,
                cycle_length=cycle,
                block_length=_TURN,
                num_parallel_calls=min(cycle, 4),
                deterministic=True,
            )
        )
        first = skip // self.window
        windows = examples.skip(first * self.window).batch(self.window).enumerate(first)

        def mix(number, window):
            size = tf.shape(window[0])[0]
            indices = _shuffled_range(size, seed, epoch, number + 1)
            return tf.nest.map_structure(lambda part: tf.gather(part, indices), window)

        return windows.map(mix).unbatch().skip(skip - first * self.window)


def _shuffled_range(
    size: int | tf.Tensor, seed: int, epoch: tf.Tensor, number: tf.Tensor | int
) -> tf.Tensor:
    """Returns a permutation of `range(size)` that depends on (seed, epoch, number)."""
    high = tf.constant(seed, tf.int64) * 2**31 + epoch
    # index_shuffle takes 32 bits of each seed only; this mixes all of them into those.
    seeds = tf.random.stateless_uniform(
        (2,),
        seed=tf.stack([high, tf.cast(number, tf.int64)]),
        minval=None,  # pyright: ignore[reportArgumentType]
        dtype=tf.int32,
    )
    size = tf.cast(size, tf.int64)
    return order.index_shuffle(tf.range(size), seed=seeds, max_index=size - 1)


def _slice(global_batch: int, shard: int, shards: int) -> slice:
    local = global_batch // shards
    return slice(shard * local, (shard + 1) * local)


AnySource = Source | Stream
