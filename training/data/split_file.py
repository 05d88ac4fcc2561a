"""`split.json` of a run: which images were held out and which were left out.

Resuming and evaluating a run read it, so that they see what the run was started with.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lightnets.data.sources.listing import UNASKED_LIMIT
from lightnets.data.sources.source import Source
from lightnets.data.sources.stream import Stream
from lightnets.support.errors import UserError
from lightnets.support.writing import write_json

NAME = "split.json"
# Files of a source whose contents are compared.
_READ = 1000


@dataclass(frozen=True)
class Saved:
    """What the file says.

    Attributes:
        labels: Names of the classes.
        count: Images to train and to evaluate on together.
        digest: Of the names of them all, in order, below the folder of the data set.
        names: Of the images held out by the run itself; None when the data has its own split.
        excluded: Damaged images that were left out, with the reason.
        contents: Digest of labels, sizes and contents; None where images are no files.
    """

    labels: list[str]
    count: int
    digest: str
    names: list[str] | None
    excluded: dict[str, str]
    contents: str | None = None


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


def save(
    path: pathlib.Path,
    sources: Sequence[Source | Stream],
    held_out: Source | Stream | None,
    labels: Sequence[str],
    excluded: Mapping[str, str],
    dataset: str,
) -> None:
    """Writes the file.

    Args:
        path: Of the file.
        sources: All images: as one, or those to train on and those to evaluate on.
        held_out: What the run itself holds out of the one.
        labels: Names of the classes.
        excluded: Damaged images that were left out before, with the reason.
        dataset: Where they are, as given.
    """
    prefix = _prefix(dataset)
    saved = Saved(
        labels=list(labels),
        count=sum(source.count for source in sources),
        digest=_digest_names(sources, dataset),
        names=None if held_out is None else _names(held_out, dataset),
        excluded={name.removeprefix(prefix): reason for name, reason in excluded.items()},
        contents=_digest_contents(sources),
    )
    write_json(path, dataclasses.asdict(saved))


def _prefix(dataset: str) -> str:
    """Returns the part of paths that changes when the whole data set moves."""
    root = pathlib.Path(dataset).expanduser()
    return os.path.join(str(root if root.is_dir() else root.parent), "")  # noqa: PTH118


def _names(source: Source | Stream, dataset: str) -> list[str]:
    prefix = _prefix(dataset)
    return [source.name(position).removeprefix(prefix) for position in range(source.count)]


def _digest_names(sources: Sequence[Source | Stream], dataset: str) -> str:
    state = hashlib.sha256()
    for source in sources:
        ends = [source.name(0), source.name(source.count - 1)]
        for name in _names(source, dataset) if _are_files(source) else ends:
            state.update(name.encode(errors="surrogateescape") + b"\0")
        state.update(b"%d\0" % source.count)
    return state.hexdigest()


def _are_files(source: Source | Stream) -> bool:
    return pathlib.Path(source.name(0)).is_file()


def _digest_contents(sources: Sequence[Source | Stream]) -> str | None:
    """Returns a digest of files: labels and sizes of all, contents of some spread over them.

    None where images are no files: TFDS' names hold the version. Of very many files the sizes of
    those some: to ask for all takes minutes on network storage.
    """
    if not all(map(_are_files, sources)):
        return None
    state = hashlib.sha256()
    for source in sources:
        state.update(np.ascontiguousarray(source.read_labels()).tobytes())
        some = np.unique(np.linspace(0, source.count - 1, _READ).astype(np.int64))
        for place in some if source.count > UNASKED_LIMIT else range(source.count):
            state.update(b"%d\0" % _size(source.name(place)))
        for place in some:
            with contextlib.suppress(OSError):
                state.update(hashlib.sha256(pathlib.Path(source.name(place)).read_bytes()).digest())
    return state.hexdigest()


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size  # noqa: PTH116 (of very many: Path costs as much)
    except OSError:
        return -1


def verify_names(sources: Sequence[Source | Stream], saved: Saved, dataset: str) -> None:
    """Raises UserError unless the images have the names for which the file was written."""
    if _digest_names(sources, dataset) != saved.digest:
        now = sum(source.count for source in sources)
        raise UserError(
            f"The images of {dataset} have changed since the run was started "
            f"({saved.count} then, {now} now). Restore them, or start a new run."
        )


def verify(sources: Sequence[Source | Stream], saved: Saved, dataset: str) -> None:
    """Raises UserError unless the images are those for which the file was written."""
    verify_names(sources, saved, dataset)
    if saved.contents not in (None, _digest_contents(sources)):
        raise UserError(
            f"The images of {dataset} have the names of those that the run was started with, but "
            "not their contents. Restore them, or start a new run."
        )


def restore(
    source: Source | Stream, saved: Saved, dataset: str
) -> tuple[Source | Stream, Source | Stream]:
    """Splits `source` as it was split when the file was written.

    Raises:
        UserError: Images came, went or were renamed since.
    """
    verify_names([source], saved, dataset)
    names = _names(source, dataset)
    index = {name: position for position, name in enumerate(names)}
    held_out = np.sort(np.array([index[name] for name in saved.names or ()], np.int64))
    rest = np.setdiff1d(np.arange(len(names)), held_out, assume_unique=True)
    return source.subset(rest), source.subset(held_out)


def without(source: Source | Stream, saved: Saved, dataset: str) -> Source | Stream:
    """Returns the source without the images that were left out."""
    if not saved.excluded:
        return source
    names = _names(source, dataset)
    kept = [place for place, name in enumerate(names) if name not in saved.excluded]
    return source if len(kept) == source.count else source.subset(np.array(kept, np.int64))
