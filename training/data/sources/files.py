"""Pictures that are files, with a class each."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import tensorflow as tf

from lightnets.data.sources import listing
from lightnets.data.sources.source import Source


@dataclass(frozen=True)
class Listing:
    """Paths of files with a class each.

    Attributes:
        paths: Of the files.
        labels: int32 `(files,)`, indices into `classes`.
        classes: Names, sorted.
        skipped: What lies among them but is no picture that is read, with the reason.
        unread: Why a class has no picture that is read, by its name.
        beside: What lies beside the classes, with the reason.
    """

    paths: list[str]
    labels: np.ndarray
    classes: list[str]
    skipped: Mapping[str, str] = field(default_factory=dict)
    unread: Mapping[str, str] = field(default_factory=dict)
    beside: Mapping[str, str] = field(default_factory=dict)

    def readable(self) -> Listing:
        """Returns it without files that are gone or too large: these are skipped."""
        reasons = {path: why for path in self.paths if (why := listing.obstacle(path))}
        if not reasons:
            return self
        kept = np.array([path not in reasons for path in self.paths])
        emptied = np.setdiff1d(self.labels, self.labels[kept])
        unread = {
            self.classes[label]: reasons[path]
            for path, label in zip(self.paths, self.labels, strict=True)
            if label in emptied
        }
        return dataclasses.replace(
            self,
            paths=[path for path in self.paths if path not in reasons],
            labels=self.labels[kept],
            skipped={**self.skipped, **reasons},
            unread={**self.unread, **unread},
        )

    def source(self) -> Source:
        """Returns the pipeline's view of it."""
        # Bytes: a file's name need not be UTF-8.
        paths = tf.constant(list(map(os.fsencode, self.paths)), tf.string)
        labels = tf.constant(self.labels, tf.int64)

        def fingerprint() -> str:
            state = hashlib.sha256()
            for path in self.paths:
                try:
                    info = os.stat(path)  # noqa: PTH116 (a million of them: Path costs as much)
                    facts = f"\0{info.st_size}\0{info.st_mtime_ns}\n"
                except OSError:
                    facts = "\0missing\n"
                state.update(os.fsencode(path) + facts.encode())
            return state.hexdigest()

        return Source(
            count=len(self.paths),
            lookup=lambda positions: (tf.gather(paths, positions), tf.gather(labels, positions)),
            open=lambda reference: (tf.io.read_file(reference[0]), reference[1]),
            name=lambda position: self.paths[position],
            read_labels=lambda: np.asarray(self.labels, np.int64),
            fingerprint=fingerprint,
        )


@dataclass(frozen=True)
class Tree:
    """What a folder or a list holds.

    Attributes:
        splits: By name, in lower case. One called `train` where it has no splits.
        divided: Whether it has splits.
        left_over: What belongs to no split, with the reason.
    """

    splits: Mapping[str, Listing]
    divided: bool
    left_over: Mapping[str, str] = field(default_factory=dict)
