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
from lightnets.data.sources.source import spread
from lightnets.data.sources.stream import AnySource
from lightnets.support.errors import UserError
from lightnets.support.writing import write_json

NAME = "split.json"
# How many files of a source are compared by their contents.
_READ = 1000


@dataclass(frozen=True)
class Saved:
    """What the file says.

    Attributes:
        labels: Names of the classes.
        count: Images to train and to evaluate on together.
        digest: Of all their names, in order, relative to the folder of the data set.
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
    path = _file(path)
    if not path.is_file():
        return None
    try:
        return Saved(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{path} is damaged: {error}") from None


def save(
    path: str | os.PathLike,
    sources: Sequence[AnySource],
    held_out: AnySource | None,
    labels: Sequence[str],
    excluded: Mapping[str, str],
    dataset: str,
) -> None:
    """Writes the file.

    Args:
        path: Of the file, or its folder.
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
    write_json(_file(path), dataclasses.asdict(saved))


def _file(path: str | os.PathLike) -> pathlib.Path:
    path = pathlib.Path(path)
    return path / NAME if path.is_dir() else path


def of_unlabelled(path: str | os.PathLike) -> pathlib.Path:
    """Returns the file beside it, of the same form, that is about images without a label."""
    return _file(path).with_name("unlabelled.json")


def _prefix(dataset: str) -> str:
    """Returns the part of paths that changes when the whole data set moves."""
    root = pathlib.Path(dataset).expanduser()
    return os.path.join(str(root if root.is_dir() else root.parent), "")  # noqa: PTH118


def _names(source: AnySource, dataset: str) -> list[str]:
    prefix = _prefix(dataset)
    return [source.name(position).removeprefix(prefix) for position in range(source.count)]


def _digest_names(sources: Sequence[AnySource], dataset: str) -> str:
    state = hashlib.sha256()
    for source in sources:
        ends = [source.name(0), source.name(source.count - 1)]
        for name in _names(source, dataset) if _are_files(source) else ends:
            state.update(name.encode(errors="surrogateescape") + b"\0")
        state.update(b"%d\0" % source.count)
    return state.hexdigest()


def _are_files(source: AnySource) -> bool:
    return pathlib.Path(source.name(0)).is_file()


def _digest_contents(sources: Sequence[AnySource]) -> str | None:
    """Returns a digest of files: labels and sizes of all, contents of some spread over them.

    None where images are no files: TFDS' names hold the version. Of very many files only the
    sizes of those some: to ask for all takes minutes on network storage.
    """
    if not all(map(_are_files, sources)):
        return None
    state = hashlib.sha256()
    for source in sources:
        state.update(np.ascontiguousarray(source.read_labels()).tobytes())
        some = spread(source.count, _READ)
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


def verify(
    sources: Sequence[AnySource], saved: Saved, dataset: str, *, contents: bool = True
) -> None:
    """Raises UserError unless these are the images for which the file was written.

    They have the same names, and the same `contents` if that is asked for.
    """
    if _digest_names(sources, dataset) != saved.digest:
        now = sum(source.count for source in sources)
        raise UserError(
            f"The images of {dataset} have changed since the run was started "
            f"({saved.count} then, {now} now). Restore them, or start a new run."
        )
    if contents and saved.contents not in (None, _digest_contents(sources)):
        raise UserError(
            f"The images of {dataset} have the names of those that the run was started with, but "
            "not their contents. Restore them, or start a new run."
        )


def restore(source: AnySource, saved: Saved, dataset: str) -> tuple[AnySource, AnySource]:
    """Splits `source` as it was split when the file was written.

    Raises:
        UserError: Images came, went or were renamed since.
    """
    verify([source], saved, dataset, contents=False)
    index = {name: position for position, name in enumerate(_names(source, dataset))}
    return divide(source, np.array([index[name] for name in saved.names or ()], np.int64))


def divide(source: AnySource, held_out: np.ndarray) -> tuple[AnySource, AnySource]:
    """Returns the other examples of a source, and those at the positions `held_out`."""
    held_out = np.sort(held_out)
    rest = np.setdiff1d(np.arange(source.count), held_out, assume_unique=True)
    return source.subset(rest), source.subset(held_out)


def without(source: AnySource, saved: Saved, dataset: str) -> AnySource:
    """Returns the source without the images that were left out."""
    names = _names(source, dataset) if saved.excluded else []
    left_out = [place for place, name in enumerate(names) if name in saved.excluded]
    return divide(source, np.array(left_out))[0] if left_out else source
