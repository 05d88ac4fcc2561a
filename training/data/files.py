"""Pictures that are files: folders of classes, CSV and JSONL lists."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import json
import os
import pathlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import tensorflow as tf

from training.config import DataConfig
from training.data import listing
from training.data.source import Source
from training.errors import UserError

# Folder or split names that hold evaluation images, the best one first.
TRAIN_NAMES = ("train", "training")
EVAL_NAMES = ("val", "valid", "validation", "test", "testing")

BESIDE = "beside the class folders"

_PATH_COLUMNS = ("path", "file", "filename", "image", "image_path")
_LABEL_COLUMNS = ("label", "class", "category", "target")


@dataclass(frozen=True)
class Listing:
    """Paths of files with a class each.

    Attributes:
        paths: Of the files.
        labels: int32 `(files,)`, indices into `classes`.
        classes: Names, sorted.
        skipped: What lies among them but is no picture that is read, with the reason.
        beside: What lies beside the class folders, with the reason.
    """

    paths: list[str]
    labels: np.ndarray
    classes: list[str]
    skipped: Mapping[str, str] = field(default_factory=dict)
    beside: Mapping[str, str] = field(default_factory=dict)

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

    def with_classes(self, classes: list[str]) -> Listing:
        """Returns the listing with indices into another, larger list of classes."""
        new = np.array([classes.index(name) for name in self.classes], np.int32)
        return dataclasses.replace(self, labels=new[self.labels], classes=classes)


def find_folders(root: pathlib.Path) -> dict[str, pathlib.Path]:
    """Returns the folders of the splits below `root` by name; empty if it is one tree."""
    names = {
        entry.name.lower(): pathlib.Path(entry) for entry in os.scandir(root) if entry.is_dir()
    }
    train = next((name for name in TRAIN_NAMES if name in names), None)
    if train is None:
        return {}
    found = {"train": names[train]}
    return found | {name: names[name] for name in EVAL_NAMES if name in names}


def choose_splits(
    names: Collection[str], data: DataConfig, fallback: str | None = None
) -> tuple[str | None, str | None]:
    """Returns the split to train on and the one to evaluate on: those asked for, else by name.

    Args:
        names: Of all splits.
        data: May name them.
        fallback: To train on, where none is named like a training split.
    """
    train = data.train_split or next((name for name in TRAIN_NAMES if name in names), fallback)
    # imagenet2012's `test` has no labels, so validation splits come first.
    found = next((name for name in EVAL_NAMES if name in names and name != train), None)
    return train, data.eval_split or found


def scan(root: pathlib.Path) -> Listing:
    """Lists a folder with one subfolder per class, however deep the files lie in them.

    Raises:
        UserError: There are no classes or no images.
    """
    beside, found, counts = listing.Found(), listing.Found(), []
    folders = listing.look(root, beside)
    for folder in folders:
        before = len(found.images)
        listing.find_images(folder, found)
        counts.append(len(found.images) - before)
    if not found.images:
        raise UserError(
            f"{root} holds no images in class folders. Wanted: {root}/<class>/<image>, or "
            "train/ and val/ with those in them."
        )
    return Listing(
        found.images,
        np.repeat(np.arange(len(folders), dtype=np.int32), counts),
        [os.path.basename(folder) for folder in folders],  # noqa: PTH119
        found.skipped,
        beside.skipped | dict.fromkeys(beside.images, BESIDE),
    )


def read_list(path: pathlib.Path) -> dict[str | None, Listing]:
    """Reads a CSV (with a header) or JSONL file of paths and labels.

    Columns or keys: `path` (or file, filename, image), relative to the list's folder; `label`
    (or class); and, if the list holds several splits, `split`.

    Returns:
        A listing by split; one under None when there is no split column.

    Raises:
        UserError: The file cannot be read, or a row lacks a value; the row is named.
    """
    rows = _jsonl_rows(path) if path.suffix.lower() == ".jsonl" else _csv_rows(path)
    folder = os.path.join(str(path.parent), "")  # noqa: PTH118 (a text with a separator at its end)
    paths: dict[str | None, list[str]] = {}
    names: dict[str | None, list[str]] = {}
    shared: dict[str, str] = {}  # one string object per class, however many rows
    try:
        for file, label, split in rows:
            key = split.lower() if split else None
            # Not os.path.join, which takes 2 of the 10 seconds that a million rows take.
            file = file if file.startswith(os.sep) else folder + file
            paths.setdefault(key, []).append(file)
            names.setdefault(key, []).append(shared.setdefault(label, label))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(
            f"Cannot read {path}: {getattr(error, 'strerror', None) or error}."
        ) from None
    if not paths:
        raise UserError(f"{path} lists no images.")
    classes = sort_classes(shared)
    index = {name: number for number, name in enumerate(classes)}
    return {
        split: Listing(
            files,
            np.fromiter((index[name] for name in names[split]), np.int32, len(files)),
            classes,
        )
        for split, files in paths.items()
    }


def sort_classes(names: Iterator[str] | dict[str, str]) -> list[str]:
    """Returns names sorted: as numbers where all are whole numbers, else as text."""
    names = list(names)
    numeric = all(name.lstrip("-").isdigit() for name in names)
    return sorted(names, key=(lambda name: (int(name), name)) if numeric else None)


def _csv_rows(path: pathlib.Path) -> Iterator[tuple[str, str, str | None]]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file)
        header = [name.strip().lower() for name in next(reader, [])]
        columns = [
            next((header.index(name) for name in choices if name in header), None)
            for choices in (_PATH_COLUMNS, _LABEL_COLUMNS, ("split",))
        ]
        if None in columns[:2]:
            raise UserError(
                f"The first line of {path} must name the columns `path` and `label`. "
                f"Received: {','.join(header)[:80]!r}."
            )
        at_path, at_label, at_split = columns
        for row in reader:
            if not row:
                continue
            try:
                values = row[at_path], row[at_label], None if at_split is None else row[at_split]
            except IndexError:
                raise UserError(f"Line {reader.line_num} of {path} lacks a column.") from None
            if not values[0] or not values[1]:
                raise UserError(f"Line {reader.line_num} of {path} has an empty path or label.")
            yield values


def _jsonl_rows(path: pathlib.Path) -> Iterator[tuple[str, str, str | None]]:
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise UserError(f"Line {number} of {path} is not JSON: {error}.") from None
            found = [
                next((row[name] for name in choices if name in row), None)
                if isinstance(row, dict)
                else None
                for choices in (_PATH_COLUMNS, _LABEL_COLUMNS, ("split",))
            ]
            if found[0] is None or found[1] is None:
                raise UserError(f'Line {number} of {path} needs the keys "path" and "label".')
            yield str(found[0]), str(found[1]), None if found[2] is None else str(found[2])
