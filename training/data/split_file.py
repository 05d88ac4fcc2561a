"""`split.json` of a run: which images were held out and which were left out.

Resuming and evaluating a run read it, so that they see what the run was started with.
"""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from training.data.source import Source
from training.data.stream import Stream
from training.errors import UserError

NAME = "split.json"


@dataclass(frozen=True)
class Saved:
    """What the file says.

    Attributes:
        labels: Names of the classes.
        count: Images to train and to evaluate on together.
        digest: Of the names of them all, in order; None when nothing was held out.
        names: Of the images held out by the run itself; None when the data has its own split.
        excluded: Damaged images that were left out, with the reason.
    """

    labels: list[str]
    count: int
    digest: str | None
    names: list[str] | None
    excluded: dict[str, str]


def read(path: str | os.PathLike | None) -> Saved | None:
    """Reads the file, given it or its folder; None if there is none.

    Raises:
        UserError: The file is damaged.
    """
    if path is None:
        return None
    path = pathlib.Path(path)
    path = path / NAME if path.is_dir() else path
    if not path.is_file():
        return None
    try:
        return Saved(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{path} is damaged: {error}") from None


def digest_names(names: Iterable[str]) -> str:
    """Returns a digest of names in their order."""
    state = hashlib.sha256()
    for name in names:
        state.update(name.encode(errors="surrogateescape") + b"\0")
    return state.hexdigest()


def restore(
    source: Source | Stream, saved: Saved, dataset: str
) -> tuple[Source | Stream, Source | Stream]:
    """Splits `source` as it was split when the file was written.

    Raises:
        UserError: Images came, went or were renamed since.
    """
    names = [source.name(position) for position in range(source.count)]
    if digest_names(names) != saved.digest:
        raise UserError(
            f"The images of {dataset} have changed since the run was started "
            f"({saved.count} then, {len(names)} now). Restore them, or start a new run."
        )
    index = {name: position for position, name in enumerate(names)}
    held_out = np.sort(np.array([index[name] for name in saved.names], np.int64))
    rest = np.setdiff1d(np.arange(len(names)), held_out, assume_unique=True)
    return source.subset(rest), source.subset(held_out)


def without(source: Source | Stream, excluded: Iterable[str]) -> Source | Stream:
    """Returns the source without the images of these names."""
    excluded = set(excluded)
    if not excluded:
        return source
    kept = [place for place in range(source.count) if source.name(place) not in excluded]
    return source if len(kept) == source.count else source.subset(np.array(kept, np.int64))
