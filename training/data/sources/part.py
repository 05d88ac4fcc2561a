"""One split of a data set; and image files as such a split."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from lightnets.data.sources import listing
from lightnets.data.sources.source import Source
from lightnets.data.sources.stream import AnySource


@dataclass(frozen=True)
class Part:
    """One split.

    Attributes:
        source: Its images.
        classes: Names, in the order of the labels.
        skipped: Files among the images that are not read, with the reason.
        unread: Classes without a readable image, with the reason.
        beside: What lies beside the class folders, with the reason that it is left out.
    """

    source: AnySource
    classes: list[str]
    skipped: Mapping[str, str] = field(default_factory=dict)
    unread: Mapping[str, str] = field(default_factory=dict)
    beside: Mapping[str, str] = field(default_factory=dict)

    def readable(self) -> Part:
        """Returns it without files that are gone or too large: these are skipped."""
        names = [self.source.name(place) for place in range(self.source.count)]
        reasons = {name: why for name in names if (why := listing.obstacle(name))}
        if not reasons:
            return self
        labels = self.source.read_labels()
        kept = np.flatnonzero([name not in reasons for name in names])
        emptied = set(labels) - set(labels[kept])
        unread = {
            self.classes[label]: reasons[name]
            for name, label in zip(names, labels, strict=True)
            if label in emptied
        }
        return dataclasses.replace(
            self,
            source=self.source.subset(kept),
            skipped={**self.skipped, **reasons},
            unread={**self.unread, **unread},
        )


class Tree(NamedTuple):
    """What a folder or a list holds.

    Attributes:
        parts: By the name of the split, in lower case. One called `train` without splits.
        divided: Whether it has splits.
        left_over: What lies outside the splits, with the reason that it is left out.
    """

    parts: Mapping[str, Part]
    divided: bool
    left_over: Mapping[str, str]


def file_source(paths: list[str], labels: np.ndarray) -> Source:
    """Returns the pipeline's view of files, with a class number each, or several numbers."""
    # Bytes: a file's name need not be UTF-8.
    all_paths = tf.constant(list(map(os.fsencode, paths)), tf.string)
    labels = labels if labels.dtype == np.float32 else np.asarray(labels, np.int64)
    all_labels = tf.constant(labels)

    def lookup(positions: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return tf.gather(all_paths, positions), tf.gather(all_labels, positions)

    def fingerprint() -> str:
        state = hashlib.sha256(labels.tobytes())
        for path in paths:
            try:
                info = os.stat(path)  # noqa: PTH116 (a million of them: Path costs as much)
                facts = f"\0{info.st_size}\0{info.st_mtime_ns}\n"
            except OSError:
                facts = "\0missing\n"
            state.update(os.fsencode(path) + facts.encode())
        return state.hexdigest()

    return Source(
        count=len(paths),
        lookup=lookup,
        open=lambda reference: (tf.io.read_file(reference[0]), reference[1]),
        name=paths.__getitem__,
        read_labels=lambda: labels,
        fingerprint=fingerprint,
    )
