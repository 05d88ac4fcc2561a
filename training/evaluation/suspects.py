"""Pictures whose label is probably wrong: confident learning (C. Northcutt et al., 2021)."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from lightnets.evaluation import features, scoring
from lightnets.support.writing import csv_text, write_paths, write_text

if TYPE_CHECKING:
    from lightnets.data import Splits
    from lightnets.data.sources.stream import AnySource

# What a run keeps of them: the classes of each, and the files alone.
TABLE, LIST = "suspects.csv", "suspects.txt"


class Suspect(NamedTuple):
    """A picture that looks like another class than its own.

    Attributes:
        place: Its number among the pictures.
        likely: Number of the class that it looks like.
        margin: What its own class has more than that one, in -1..0.
    """

    place: int
    likely: int
    margin: float


def find(labels: np.ndarray, probabilities: np.ndarray) -> list[Suspect]:
    """Returns the suspects, the most certain first.

    A class is confident of an image if it gives it no less than it gives its own images on average.
    The share of those of which another class is most confident says how many labels of a class
    are wrong. As many again may be, of which no class is confident: suspects are at most twice
    that number, those with the lowest margins below 0.

    Args:
        labels: Class numbers, `(images,)`.
        probabilities: `(images, classes)`, from a classifier that was not fitted to the images.
    """
    classes = probabilities.shape[1]
    own = probabilities[np.arange(len(labels)), labels]
    counts = np.bincount(labels, minlength=classes)
    # A class without images is confident of none.
    least = np.where(counts, np.bincount(labels, own, classes) / np.maximum(counts, 1), np.inf)
    confident = np.where(probabilities >= least, probabilities, -1.0)
    told = confident.max(-1) >= 0
    wrong = told & (confident.argmax(-1) != labels)
    shares = np.bincount(labels[wrong], minlength=classes) / np.maximum(
        np.bincount(labels[told], minlength=classes), 1
    )
    likely, margins = scoring.rivals(labels, probabilities)
    order = np.argsort(margins, kind="stable")[: round(2 * float(counts @ shares))]
    return [
        Suspect(place, int(likely[place]), float(margins[place]))
        for place in order.tolist()
        if margins[place] < 0
    ]


class Row(NamedTuple):
    """A suspect with the names of all things."""

    split: str
    name: str
    label: str
    likely: str
    margin: float
    source: AnySource
    place: int


def of_run(
    splits: Splits, true: np.ndarray, probabilities: np.ndarray, known: features.Known | None
) -> Iterator[Row]:
    """Yields the suspects of a run, the most certain first.

    Args:
        splits: Its data.
        true: Of the held-out images.
        probabilities: Of the held-out images.
        known: Training images, of which a linear classifier is asked that was fitted to others.
    """
    parts = [("held out", splits.eval_source, true, probabilities)]
    if known is not None:
        labels = known.source.read_labels()
        told = features.cross_validated(known.features, labels, len(splits.labels))
        if told is not None:
            parts.append(("training", known.source, labels, told))
    rows = [
        Row(
            split,
            source.name(one.place),
            splits.labels[labels[one.place]],
            splits.labels[one.likely],
            one.margin,
            source,
            one.place,
        )
        for split, source, labels, told in parts
        for one in find(labels, told)
    ]
    yield from sorted(rows, key=lambda row: row.margin)


def write(rows: Sequence[Row], folder: pathlib.Path) -> None:
    """Writes the table, and the list of those that are files."""
    header = "split", "image", "label", "likely", "margin"
    cells = [(*row[:4], f"{row.margin:.4f}") for row in rows]
    write_text(folder / TABLE, csv_text(header, cells))
    files = [row.name for row in rows if pathlib.Path(row.name).is_file() and "\n" not in row.name]
    write_paths(folder / LIST, files)
