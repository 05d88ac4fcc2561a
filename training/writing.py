"""Files that are written whole or not at all."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import uuid
from collections.abc import Iterator
from typing import IO, Any


@contextlib.contextmanager
def replacing(path: pathlib.Path, mode: str = "w") -> Iterator[IO]:
    """Opens a temporary sibling and renames it to `path` when all was written.

    A crash or a full disk leaves the old file as it was.
    """
    # Not longer than any name of a file may be, whatever the name of this one.
    temporary = path.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open(mode, encoding=None if "b" in mode else "utf-8") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: pathlib.Path, text: str) -> None:
    """Writes `text` to `path`, whole or not at all."""
    with replacing(path) as file:
        file.write(text)


def write_json(path: pathlib.Path, value: Any) -> None:
    """Writes `value` as JSON to `path`, whole or not at all."""
    write_text(path, json.dumps(value, indent=2) + "\n")
