"""Files that are written whole or not at all, to places that were tested before the work."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import pathlib
import re
import tempfile
import uuid
from collections.abc import Iterable, Iterator, Sequence
from typing import IO, Any

from keras_lightnets.text import first_line, is_utf8, visible
from lightnets.support.errors import UserError

# How a formula begins, also in the wide forms of East Asia; blanks before it are passed over.
_FORMULA = re.compile(r"\s*[=+\-@\uff1d\uff0b\uff0d\uff20]|[\t\r\n]")
_NUMBER = re.compile(r"[+-]?\d+(\.\d*)?(e[+-]?\d+)?", re.ASCII)


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


def check_file(path: pathlib.Path, flag: str) -> None:
    """Raises UserError, before hours of work, if the file of `flag` cannot be written."""
    if path.is_dir():
        raise UserError(f"{flag}: {path} is a folder. Name a file in it.")
    folder = path.absolute().parent
    if not folder.exists():
        raise UserError(f"{flag}: there is no folder {folder}.")
    check_folder(folder, flag)


def check_folder(path: pathlib.Path, flag: str) -> None:
    """Raises UserError, before hours of work, if nothing can be written into a folder."""
    absolute = path.absolute()
    folder = next(place for place in (absolute, *absolute.parents) if place.exists())
    if not folder.is_dir():
        raise UserError(f"{flag}: {folder} is no folder.")
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(f"{flag}: cannot write to {folder} ({first_line(error)}).") from None


def csv_text(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Returns CSV that a spreadsheet shows and never runs.

    Text that it would take for a formula gets an apostrophe before it, and a byte that is not
    UTF-8 becomes an escape.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([_field(value) for value in row] for row in (header, *rows))
    return text.getvalue()


def _field(value: object) -> object:
    if not isinstance(value, str):
        return value
    text = value if is_utf8(value) else visible(value)
    return f"'{text}" if _FORMULA.match(text) and not _NUMBER.fullmatch(text) else text


def write_text(path: pathlib.Path, text: str) -> None:
    """Writes `text` to `path`, whole or not at all."""
    with replacing(path) as file:
        file.write(text)


def write_json(path: pathlib.Path, value: Any) -> None:
    """Writes `value` as JSON to `path`, whole or not at all."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def write_paths(path: pathlib.Path, names: Iterable[str], end: bytes = b"\n") -> None:
    """Writes names of files, which may be no valid text, each with `end` behind it."""
    with replacing(path, "wb") as file:
        file.write(b"".join(os.fsencode(name) + end for name in names))
