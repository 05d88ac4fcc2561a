"""Pictures that a CSV or JSONL file lists."""

from __future__ import annotations

import csv
import itertools
import json
import os
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from lightnets.data.sources import listing
from lightnets.data.sources.files import Listing, Tree
from lightnets.support.errors import UserError

_PATHS = ("path", "file", "filename", "image", "image_path")
_LABELS = ("label", "class", "category", "target")


# Line, path, label and split, each as text; a plain tuple, because there may be a million.
_Row = tuple[int, str, str, str]


def read_list(path: pathlib.Path) -> Tree:
    """Reads a CSV (with a header) or JSONL file of paths and labels.

    Columns or keys: `path` (or file, filename, image), relative to the list's folder; `label`
    (or class); and, if the list holds several splits, `split`. Spaces around labels and splits do
    not count.

    Raises:
        UserError: The file cannot be read, or a row lacks a value; the row is named.
    """
    rows = _jsonl_rows(path) if path.suffix.lower() == ".jsonl" else _csv_rows(path)
    folder = os.path.join(str(path.parent), "")  # noqa: PTH118 (a text with a separator at its end)
    paths: dict[str, list[str]] = {}
    names: dict[str, list[str]] = {}
    shared: dict[str, str] = {}  # one string object per class, however many rows
    backslashes = 0
    try:
        for line, file, label, split in rows:
            if not file or not label or "\n" in label:
                _check_row(path, line, file, label)
            if paths and ("" in paths) != (not split):
                raise UserError(f"{path} names a split for some images only; see line {line}.")
            # Not os.path.join, which takes 2 of the 10 seconds that a million rows take.
            whole = file if file.startswith(os.sep) else folder + file
            if "\\" in file and not backslashes:
                backslashes = line
                _check_separators(path, line, file, whole)
            paths.setdefault(split, []).append(whole)
            names.setdefault(split, []).append(shared.setdefault(label, label))
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 ({error.reason}). Save it as UTF-8.") from None
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror}.") from None
    if not paths:
        raise UserError(f"{path} lists no images.")
    if sum(map(len, paths.values())) <= listing.UNASKED_LIMIT:
        for file in itertools.chain(*paths.values()):
            # Files that are missing are named later, all at once.
            if (what := listing.obstacle(file)) and os.path.exists(file):  # noqa: PTH110
                raise UserError(f"{path} lists {file}, which is {what}.")
    splits = {split or "train": _listing(files, names[split]) for split, files in paths.items()}
    return Tree(splits, divided="" not in paths)


def _listing(paths: list[str], names: list[str]) -> Listing:
    classes = _sorted(set(names))
    index = {name: number for number, name in enumerate(classes)}
    labels = np.fromiter((index[name] for name in names), np.int32, len(names))
    return Listing(paths, labels, classes)


def _sorted(names: set[str]) -> list[str]:
    """Returns names sorted: as numbers where all are whole numbers, else as text."""
    numeric = all(name.removeprefix("-").isdecimal() for name in names)
    return sorted(names, key=(lambda name: (int(name), name)) if numeric else None)


def _check_separators(path: pathlib.Path, line: int, file: str, whole: str) -> None:
    """Raises UserError for a path as Windows writes it."""
    if os.sep != "\\" and not os.path.lexists(whole):
        raise UserError(
            f"Line {line} of {path}: there is no file {file}. Separate folders by /, not by \\."
        )


def _csv_rows(path: pathlib.Path) -> Iterator[_Row]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        # Strict: else a quote that is not closed swallows the lines behind it.
        reader = csv.reader(file, strict=True)
        line = 1
        try:
            header = [name.strip().lower() for name in next(reader, [])]
            at_path, at_label, at_split = (
                next((header.index(name) for name in choices if name in header), None)
                for choices in (_PATHS, _LABELS, ("split",))
            )
            if at_path is None or at_label is None:
                raise UserError(
                    f"The first line of {path} must name the columns `path` and `label`. "
                    f"Received: {','.join(header)[:80]!r}."
                )
            least = max(at_path, at_label, at_split or 0)
            line = reader.line_num + 1
            for row in reader:
                if len(row) > least:
                    split = "" if at_split is None else row[at_split].strip().lower()
                    yield line, row[at_path], row[at_label].strip(), split
                elif row:
                    raise UserError(f"Line {line} of {path} lacks a column.")
                line = reader.line_num + 1
        except csv.Error as error:
            raise UserError(
                f"Line {line} of {path} holds a quote that is not closed, or not doubled: {error}."
            ) from None


def _jsonl_rows(path: pathlib.Path) -> Iterator[_Row]:
    with path.open(encoding="utf-8-sig") as file:
        for line, text in enumerate(file, 1):
            if not text.strip():
                continue
            try:
                row = json.loads(text)
            except (ValueError, RecursionError) as error:
                raise UserError(f"Line {line} of {path} is not JSON: {error}.") from None
            found, label, split = (
                next((row[name] for name in choices if name in row), None)
                if isinstance(row, dict)
                else None
                for choices in (_PATHS, _LABELS, ("split",))
            )
            if found is None or label is None:
                raise UserError(f'Line {line} of {path} needs the keys "path" and "label".')
            found, label = _text(path, line, found), _text(path, line, label).strip()
            split = "" if split is None else _text(path, line, split).strip().lower()
            yield line, found, label, split


def _text(path: pathlib.Path, line: int, value: Any) -> str:
    """Returns a text or a whole number as text."""
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise UserError(
            f"Line {line} of {path}: a path, label or split is a text (or a whole number), one for "
            f"each image. Received: {json.dumps(value)[:80]}."
        )
    return str(value)


def _check_row(path: pathlib.Path, line: int, file: str, label: str) -> None:
    """Raises UserError for a row without a path or label, and one that swallows others."""
    if not file or not label:
        raise UserError(f"Line {line} of {path} has an empty path or label.")
    if "," in label.partition("\n")[2]:
        raise UserError(
            f"Line {line} of {path}: the label {label[:40]!r} goes on in the next line. "
            "Is a quote open?"
        )
