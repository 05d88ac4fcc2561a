"""Pictures that a CSV or JSONL file lists."""

from __future__ import annotations

import csv
import itertools
import json
import os
import pathlib
from collections.abc import Iterator

import numpy as np

from lightnets.data.sources import listing
from lightnets.data.sources.part import Part, Tree, file_source
from lightnets.support.errors import UserError

_PATHS = ("path", "file", "filename", "image", "image_path")
_LABELS = ("label", "class", "category", "target")


# Line, path, label and split, each as text; a plain tuple, because there may be a million.
_Row = tuple[int, str, str, str]


class _LineError(Exception):
    """What is wrong with a line: its number, and the rest of the sentence."""


def read_list(path: pathlib.Path) -> Tree:
    """Reads a CSV (with a header) or JSONL file of paths and labels.

    Columns or keys: `path` (or file, filename, image), relative to the list's folder; `label`
    (or class); and, if the list holds several splits, `split`. Spaces around labels and splits do
    not count.

    Raises:
        UserError: The file cannot be read, or a row lacks a value; the row is named.
    """
    rows = _jsonl_rows(path) if path.suffix.lower() == ".jsonl" else _csv_rows(path)
    try:
        paths, labels = _by_split(path, rows)
    except _LineError as error:
        raise UserError(f"Line {error.args[0]} of {path} {error.args[1]}") from None
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
    parts = {split or "train": _part(files, labels[split]) for split, files in paths.items()}
    return Tree(parts, "" not in paths, {})


def _by_split(
    path: pathlib.Path, rows: Iterator[_Row]
) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """Returns the paths and the labels of each split, which is "" where none is named."""
    folder = os.path.join(str(path.parent), "")  # noqa: PTH118 (a text with a separator at its end)
    paths: dict[str, list[str]] = {}
    labels: dict[str, list[str]] = {}
    shared: dict[str, str] = {}  # one string object per class, however many rows
    backslashes = os.sep == "\\"
    for line, file, label, split in rows:
        if not file or not label:
            raise _LineError(line, "has an empty path or label.")
        if "\n" in label and "," in label.partition("\n")[2]:
            raise _LineError(
                line, f"has a label that goes on in the next line: {label[:40]!r}. Is a quote open?"
            )
        if paths and ("" in paths) != (not split):
            raise UserError(f"{path} names a split for some images only; see line {line}.")
        # Not os.path.join, which takes 2 of the 10 seconds that a million rows take.
        whole = file if file.startswith(os.sep) else folder + file
        if "\\" in file and not backslashes:
            backslashes = True
            if not os.path.lexists(whole):
                raise _LineError(line, f"names {file}, which is not there. Separate folders by /.")
        paths.setdefault(split, []).append(whole)
        labels.setdefault(split, []).append(shared.setdefault(label, label))
    return paths, labels


def _part(paths: list[str], names: list[str]) -> Part:
    numeric = all(name.removeprefix("-").isdecimal() for name in set(names))
    classes = sorted(set(names), key=(lambda name: (int(name), name)) if numeric else None)
    index = {name: number for number, name in enumerate(classes)}
    labels = np.fromiter((index[name] for name in names), np.int32, len(names))
    return Part(file_source(paths, labels), classes)


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
                    raise _LineError(line, "lacks a column.")
                line = reader.line_num + 1
        except csv.Error as error:
            raise _LineError(
                line, f"holds a quote that is not closed, or not doubled: {error}."
            ) from None


def _jsonl_rows(path: pathlib.Path) -> Iterator[_Row]:
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
                for choices in (_PATHS, _LABELS, ("split",))
            )
            if found is None or label is None:
                raise _LineError(line, 'needs the keys "path" and "label".')
            for value in (found, label, "" if split is None else split):
                if isinstance(value, bool) or not isinstance(value, (str, int)):
                    raise _LineError(
                        line,
                        "has a path, label or split that is no text (or whole number). "
                        f"Received: {json.dumps(value)[:80]}.",
                    )
            split = "" if split is None else str(split)
            yield line, str(found), str(label).strip(), split.strip().lower()
