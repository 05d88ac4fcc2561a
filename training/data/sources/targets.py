"""What a list says of each picture: its class, any of several labels, or numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from lightnets.support.errors import UserError

# What may be the name of the column of a class, and of that of several labels.
LABELS = ("label", "class", "category", "target")
SEVERAL = ("labels", "tags", *LABELS)

# Of each split: the labels of its images, and the names of classes, labels or numbers.
Found = Mapping[str, tuple[np.ndarray, list[str]]]


class Reading(NamedTuple):
    """How the labels of a list are read.

    Attributes:
        columns: Their names; None: one of `LABELS`.
        parse: What stands there to a value. Raises ValueError: the rest of the sentence.
        found: From the values of each split to its labels: class numbers int32 `(images,)`, or
            float32 `(images, names)`, where NaN is not known.
    """

    columns: Sequence[str] | None
    parse: Callable[[Any], Any]
    found: Callable[[Mapping[str, list[Any]]], Found]


def reading(task: str, columns: Sequence[str], chosen: str | None, where: str) -> Reading:
    """Returns how the labels are read.

    Args:
        task: Of `lightnets.config.tasks`.
        columns: Names of all columns but those of paths and splits.
        chosen: Those that `data.targets` names, with commas.
        where: The list, for a message.

    Raises:
        UserError: The columns are not those that the task needs.
    """
    if task == "classification":
        return _one_class()
    taken = [name.strip() for name in chosen.split(",")] if chosen else list(columns)
    if lacks := [name for name in taken if name not in columns]:
        raise UserError(f"{where} has no column {lacks[0]!r}. It has: {', '.join(columns)}.")
    if not taken:
        raise UserError(f"{where} has no column for --task {task} beside the paths.")
    if task == "regression":
        return _table(taken, _number)
    several = [name for name in taken if name.lower() in SEVERAL]
    if several and len(taken) > 1:
        others = ", ".join(name for name in taken if name not in several)
        raise UserError(
            f"{where} has labels in the column {several[0]!r} and columns beside it ({others}). "
            "Name those that are meant: --set data.targets=NAME,..."
        )
    return _several(taken) if several else _table(taken, _flag)


def guessed(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Returns the task that a list seems to be for, by its columns and what stands there."""
    label = next((k for k, name in enumerate(columns) if name.lower() in SEVERAL), None)
    if label is not None:
        several = columns[label].lower() not in LABELS or any(
            isinstance(row[label], list) or ";" in str(row[label]) for row in rows
        )
        return "multi-label" if several else "classification"
    if not columns:
        return "classification"
    flags = all(_says(value) in _FLAGS for row in rows for value in row)
    return "multi-label" if flags else "regression"


def words(task: str, row: np.ndarray, names: Sequence[str]) -> str:
    """Returns what numbers of an image, `(names,)`, say of it: class, labels or values."""
    if task == "regression":
        return ", ".join(f"{name} {value:.4g}" for name, value in zip(names, row, strict=True))
    if task == "multi-label":
        return ", ".join(names[int(k)] for k in np.flatnonzero(row > 0.5)) or "none"
    return names[int(row.argmax())]


def _one_class() -> Reading:
    shared: dict[str, str] = {}  # one string object per class, however many rows

    def parse(label: str) -> str:
        if "\n" in label and "," in label.partition("\n")[2]:
            raise ValueError(
                f"has a label that goes on in the next line: {label[:40]!r}. Is a quote open?"
            )
        return shared.setdefault(label, label)

    def of_split(names: list[str]) -> tuple[np.ndarray, list[str]]:
        numeric = all(name.removeprefix("-").isdecimal() for name in set(names))
        classes = sorted(set(names), key=(lambda name: (int(name), name)) if numeric else None)
        index = {name: number for number, name in enumerate(classes)}
        return np.fromiter((index[name] for name in names), np.int32, len(names)), classes

    return Reading(None, parse, lambda values: {key: of_split(own) for key, own in values.items()})


def _several(columns: Sequence[str]) -> Reading:
    """Labels with `;` between them, or a list of JSON; whatever is not named is absent."""

    def parse(cells: Sequence[Any]) -> frozenset[str]:
        (value,) = cells
        if isinstance(value, str):
            value = value.split(";")
        elif not isinstance(value, list) or any(isinstance(one, list | dict) for one in value):
            raise ValueError(f"has labels that are no list. Received: {str(value)[:40]!r}.")
        return frozenset(name for one in value if (name := str(one).strip()))

    def found(values: Mapping[str, list[frozenset[str]]]) -> Found:
        names = sorted(frozenset().union(*(one for own in values.values() for one in own)))
        index = {name: number for number, name in enumerate(names)}
        of_split = {}
        for split, own in values.items():
            labels = np.zeros((len(own), len(names)), np.float32)
            for row, one in zip(labels, own, strict=True):
                row[[index[name] for name in one]] = 1
            of_split[split] = labels, names
        return of_split

    return Reading(columns, parse, found)


def _table(columns: Sequence[str], cell: Callable[[str, Any], float]) -> Reading:
    """A number in each column."""

    def parse(cells: Sequence[Any]) -> tuple[float, ...]:
        return tuple(map(cell, columns, cells))

    def found(values: Mapping[str, list[tuple[float, ...]]]) -> Found:
        return {key: (np.array(own, np.float32), list(columns)) for key, own in values.items()}

    return Reading(columns, parse, found)


# As people and programs write them: pandas has 1.0 in a column that lacks a value.
_FLAGS = {
    **dict.fromkeys(("1", "1.0", "true"), 1.0),
    **dict.fromkeys(("0", "0.0", "false"), 0.0),
    "": math.nan,
}


def _says(value: Any) -> str:
    return "" if value is None else str(value).lower()


def _flag(name: str, value: Any) -> float:
    if _says(value) not in _FLAGS:
        raise ValueError(f"says {value!r} of {name!r}: 1, 0, or nothing where it is not known.")
    return _FLAGS[_says(value)]


_LARGEST = float(np.finfo(np.float32).max)


def _number(name: str, value: Any) -> float:
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not abs(number) <= _LARGEST:
        hint = " Write decimals with a point." if "," in str(value) else ""
        raise ValueError(f"says {value!r} of {name!r}, which is no number.{hint}")
    return number
