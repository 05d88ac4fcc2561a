"""Pictures that a CSV or JSONL file lists."""

from __future__ import annotations

import contextlib
import csv
import itertools
import json
import os
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TextIO

import numpy as np

from lightnets.config.tasks import DEFAULT
from lightnets.data.sources import listing, targets
from lightnets.data.sources.part import Part, Tree, file_source
from lightnets.support.errors import UserError

_PATHS = ("path", "file", "filename", "image", "image_path")

# Line, path, what stands of its label, and split; a plain tuple, because there may be a million.
# The label is text, or with columns of its own what stands in each.
_Row = tuple[int, str, Any, str]


class _LineError(Exception):
    """What is wrong with a line: its number, and the rest of the sentence."""


def is_list(path: pathlib.Path) -> bool:
    """Whether a path is a file that `read_list` reads, by its name."""
    return path.is_file() and path.suffix.lower() in (".csv", ".jsonl")


def read_list(path: pathlib.Path, task: str = DEFAULT, chosen: str | None = None) -> Tree:
    """Reads a CSV (with a header) or JSONL file of paths and labels.

    Columns or keys: `path` (or file, filename, image), relative to the list's folder; `label`
    (or class), or what another task learns; and, if the list holds several splits, `split`.
    Spaces around labels and splits do not count. A CSV file is separated by commas, semicolons or
    tabs.

    Args:
        path: The file.
        task: What is learned, see `lightnets.config.tasks`.
        chosen: Columns of what is learned, with commas; None: all that are left.

    Raises:
        UserError: The file cannot be read, or a row lacks a value; the row is named.
    """
    with _told(path):
        reading = targets.reading(task, _others(path), chosen, str(path))
        paths, values = _by_split(path, _rows(path, reading.columns), reading.parse)
    if not paths:
        raise UserError(f"{path} lists no images.")
    if sum(map(len, paths.values())) <= listing.UNASKED_LIMIT:
        for file in itertools.chain(*paths.values()):
            # Files that are missing are named later, all at once.
            if (what := listing.obstacle(file)) and os.path.exists(file):  # noqa: PTH110
                raise UserError(f"{path} lists {file}, which is {what}.")
    found = reading.found(values)
    if not any(labels.ndim == 1 or np.nan_to_num(labels).any() for labels, _ in found.values()):
        raise UserError(f"{path} gives no image a label.")
    parts = {
        split or "train": Part(file_source(files, found[split][0]), found[split][1])
        for split, files in paths.items()
    }
    return Tree(parts, "" not in paths, {})


def read_paths(path: pathlib.Path) -> list[str]:
    """Returns the paths of all pictures of a list, whatever else it says of them.

    Raises:
        UserError: The file cannot be read, or a row lacks a path.
    """
    with _told(path):
        paths, _ = _by_split(path, _rows(path, []), lambda cells: cells)
    return [*itertools.chain(*paths.values())]


def guess_task(path: pathlib.Path) -> str:
    """Returns the task that a list seems to be for."""
    with _told(path):
        columns = _others(path)
        return targets.guessed(columns, [row[2] for row in _rows(path, columns)])


@contextlib.contextmanager
def _told(path: pathlib.Path) -> Iterator[None]:
    """Raises UserError in place of what is wrong with a list."""
    try:
        yield
    except _LineError as error:
        raise UserError(f"Line {error.args[0]} of {path} {error.args[1]}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 ({error.reason}). Save it as UTF-8.") from None
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror}.") from None


def _rows(path: pathlib.Path, columns: Sequence[str] | None) -> Iterator[_Row]:
    rows = _jsonl_rows if path.suffix.lower() == ".jsonl" else _csv_rows
    return rows(path, columns)


def _others(path: pathlib.Path) -> list[str]:
    """Returns the names of all columns but those of paths and splits."""
    names: list[str] = []  # what is wrong is named with its line when the rows are read
    with path.open(newline="", encoding="utf-8-sig") as file:
        if path.suffix.lower() == ".jsonl":
            with contextlib.suppress(ValueError, RecursionError):
                row = json.loads(next((line for line in file if line.strip()), "{}"))
                names = list(row) if isinstance(row, dict) else []
        else:
            with contextlib.suppress(csv.Error):
                names = [name.strip() for name in next(_reader(file), [])]
    return [name for name in names if name and name.lower() not in (*_PATHS, "split")]


def _by_split(
    path: pathlib.Path, rows: Iterator[_Row], parse: Callable[[Any], Any]
) -> tuple[dict[str, list[str]], dict[str, list[Any]]]:
    """Returns the paths and the labels of each split, which is "" where none is named."""
    folder = os.path.join(str(path.parent), "")  # noqa: PTH118 (a text with a separator at its end)
    paths: dict[str, list[str]] = {}
    values: dict[str, list[Any]] = {}
    backslashes = os.sep == "\\"
    for line, file, label, split in rows:
        if not file or label == "":
            raise _LineError(line, "has an empty path or label.")
        try:
            value = parse(label)
        except ValueError as error:
            raise _LineError(line, str(error)) from None
        if paths and ("" in paths) != (not split):
            raise UserError(f"{path} names a split for some images only; see line {line}.")
        # Not os.path.join, which takes 2 of the 10 seconds that a million rows take.
        whole = file if file.startswith(os.sep) else folder + file
        if "\\" in file and not backslashes:
            backslashes = True
            if not os.path.lexists(whole):
                raise _LineError(line, f"names {file}, which is not there. Separate folders by /.")
        paths.setdefault(split, []).append(whole)
        values.setdefault(split, []).append(value)
    return paths, values


def _reader(file: TextIO) -> Any:
    """Returns a reader of the file's rows, whose cells are separated as those of its first line."""
    header = file.readline()
    file.seek(0)
    # Spreadsheets write semicolons where numbers have decimal commas.
    separator = next((one for one in ",;\t" if one in header), ",")
    # Strict: else a quote that is not closed swallows the lines behind it.
    return csv.reader(file, strict=True, delimiter=separator, skipinitialspace=True)


def _csv_rows(path: pathlib.Path, columns: Sequence[str] | None) -> Iterator[_Row]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = _reader(file)
        line = 1
        try:
            names = [name.strip() for name in next(reader, [])]
            header = [name.lower() for name in names]
            at_path, at_label, at_split = (
                next((header.index(name) for name in choices if name in header), None)
                for choices in (_PATHS, targets.LABELS, ("split",))
            )
            if at_path is None or (columns is None and at_label is None):
                raise UserError(
                    f"The first line of {path} must name the columns `path` and `label`. "
                    f"Received: {','.join(header)[:80]!r}.{_OTHER_TASKS}"
                )
            places = [at_label or 0] if columns is None else [names.index(one) for one in columns]
            least = max(at_path, at_split or 0, *places)
            line = reader.line_num + 1
            for row in reader:
                if any(row[len(header) :]):
                    raise _LineError(
                        line,
                        "has more columns than the first line: put quotes around what holds a "
                        f"{reader.dialect.delimiter!r}.",
                    )
                if len(row) > least:
                    split = "" if at_split is None else row[at_split].strip().lower()
                    cells = [row[place].strip() for place in places]
                    yield line, row[at_path], cells[0] if columns is None else cells, split
                elif row:
                    raise _LineError(line, "lacks a column.")
                line = reader.line_num + 1
        except csv.Error as error:
            raise _LineError(
                line, f"holds a quote that is not closed, or not doubled: {error}."
            ) from None


_OTHER_TASKS = " Numbers or several labels of an image are for lightnets train --task."


def _jsonl_rows(path: pathlib.Path, columns: Sequence[str] | None) -> Iterator[_Row]:
    with path.open(encoding="utf-8-sig") as file:
        for line, text in enumerate(file, 1):
            if not text.strip():
                continue
            try:
                row = json.loads(text)
            except (ValueError, RecursionError) as error:
                raise _LineError(line, f"is not JSON: {error}.") from None
            row = row if isinstance(row, dict) else {}
            found, label, split = (
                next((row[name] for name in choices if name in row), None)
                for choices in (_PATHS, targets.LABELS, ("split",))
            )
            cells = None if columns is None else [row.get(name) for name in columns]
            label = label if cells is None else ""
            if found is None or label is None:
                needed = 'keys "path" and "label"' if cells is None else 'key "path"'
                raise _LineError(line, f"needs the {needed}.")
            for value in (found, label, "" if split is None else split):
                if isinstance(value, bool) or not isinstance(value, (str, int)):
                    raise _LineError(
                        line,
                        "has a path, label or split that is no text (or whole number). "
                        f"Received: {json.dumps(value)[:80]}.",
                    )
            label = str(label).strip() if cells is None else cells
            split = "" if split is None else str(split)
            yield line, str(found), label, split.strip().lower()
