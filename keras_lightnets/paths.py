"""Paths for functions of TensorFlow that take a name for a pattern of names; the home folder."""

from __future__ import annotations

import contextlib
import os
import pathlib
import re
import tempfile
from collections.abc import Iterator

_PATTERN = re.compile(r"[\[\]*?\\]")


def home() -> pathlib.Path:
    """The user's folder; `/`, as container runtimes have it, for a user whom nobody knows."""
    try:
        return pathlib.Path.home()
    except RuntimeError:
        return pathlib.Path("/")


@contextlib.contextmanager
def literal_path(path: str | os.PathLike) -> Iterator[pathlib.Path]:
    r"""Yields a path to the folder `path` that is no pattern: itself, or a link for a moment.

    TensorFlow finds checkpoints, and the variables of a SavedModel, by a pattern, and opens what
    it found under the same text. So `[` and `\` in the name of a folder above can neither stay
    nor be escaped; `*` also fits the names of others.
    """
    path = pathlib.Path(path)
    if not _PATTERN.search(str(path)):
        yield path
        return
    usual = tempfile.gettempdir()
    with tempfile.TemporaryDirectory(
        prefix="lightnets-", dir="/tmp" if _PATTERN.search(usual) else usual
    ) as folder:
        link = pathlib.Path(folder, "folder")
        link.symlink_to(path.absolute(), target_is_directory=True)
        yield link
