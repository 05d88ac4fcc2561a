"""Which images a network is measured on: those it was not trained on, by split."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import pathlib
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from lightnets.data.dataset import Dataset, relabelled
from lightnets.data.sources import layout, listing
from lightnets.data.sources.stream import AnySource
from lightnets.data.splits import Splits
from lightnets.support.errors import UserError


@dataclass
class HeldOut:
    """Images to measure on.

    Attributes:
        dataset: Where they come from.
        labels: Names of the classes, in the order of the network's outputs.
        sources: By split.
        left_out: Splits that are not measured, with the reason.
        chose: The split among them by which a run chose its best epoch, if there is one.
    """

    dataset: Dataset
    labels: list[str]
    sources: dict[str, AnySource] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    chose: str | None = None

    def add(self, name: str, whose: str) -> None:
        """Adds a split that has labels, its classes mapped by name; `whose` names the network."""
        source = self.dataset.open(name).source
        if not source.count:
            self.left_out[name] = "no picture that can be read"
        elif not self.dataset.is_labelled(source):
            self.left_out[name] = "no labels"
        else:
            self.sources[name] = self.dataset.labelled(name, self.labels, whose)

    def for_network(self, labels: Sequence[str], whose: str) -> HeldOut:
        """Returns the same images with labels that are indices into other class names."""
        sources = {
            name: relabelled(source, self.labels, labels, self.dataset.name, whose)
            for name, source in self.sources.items()
        }
        return dataclasses.replace(self, labels=list(labels), sources=sources)

    def missing(self, true: np.ndarray) -> list[str]:
        """Returns the classes without an image.

        Args:
            true: Class numbers of all images, or what else they are labelled with.
        """
        if true.ndim > 1:
            true = np.flatnonzero(np.nan_to_num(true).any(0))
        there = set(true.tolist())
        return [name for number, name in enumerate(self.labels) if number not in there]


def of_run(splits: Splits) -> HeldOut:
    """Returns all that a run was not trained on, of its own data.

    Its evaluation images come first, as it has measured them itself, then further splits.
    """
    dataset = _dataset(splits)
    train, evaluation = dataset.choose(splits.config.data)
    chose = evaluation or "held out"
    found = HeldOut(dataset, splits.labels, {chose: splits.eval_source}, chose=chose)
    if evaluation is None:
        return found
    # TFDS takes parts of splits: of train[:80%] the rest is not measured unless it was named.
    used = {re.split(r"[\[+]", name)[0] for name in (train, evaluation)}
    for name in dataset.sizes:
        if name not in used:
            try:
                found.add(name, f"the split {train}")
            except UserError as error:
                found.left_out[name] = str(error)
    return found


def _dataset(splits: Splits) -> Dataset:
    if splits.dataset is None:
        raise UserError("Images of arrays or of a tf.data.Dataset cannot be chosen by split.")
    return splits.dataset


def of_split(splits: Splits, split: str) -> tuple[HeldOut, bool]:
    """Returns a split of a run's own data, and whether the run was trained on it."""
    dataset = _dataset(splits)
    name = dataset.split(split)
    train, evaluation = dataset.choose(splits.config.data)
    found = of_dataset(dataset, splits.labels, f"the split {train}", split=name, known=True)
    if name == evaluation:
        found.sources[name], found.chose = splits.eval_source, name
    return found, name == train


def of_dataset(
    dataset: Dataset, labels: Sequence[str], whose: str, *, split: str | None, known: bool
) -> HeldOut:
    """Returns a split of a data set, or all that a network was not trained on.

    Args:
        dataset: The data.
        labels: Names of the network's classes.
        whose: The network, for a message.
        split: What to measure; None: everything, but a training split if there are others and
            what the network was trained on is not known.
        known: Whether that is known, and it was other data.
    """
    found = HeldOut(dataset, list(labels))
    if split is not None:
        name = dataset.split(split)
        dataset.check_labelled(dataset.open(name).source)
        found.add(name, whose)
        return found
    names = list(dataset.sizes)
    trained = [name for name in names if layout.role(name) == "train"]
    if not known and len(trained) < len(names):
        found.left_out |= dict.fromkeys(trained, "it may have been trained on")
    for name in names:
        if name not in found.left_out:
            found.add(name, whose)
    if not found.sources:
        raise UserError(f"{dataset.name} has no split with labels.")
    return found


def seen_in_training(trained: Collection[AnySource], sources: Collection[AnySource]) -> int:
    """Returns how many images of `sources` are among those that were trained on, as `copies`."""
    return sum(len(copies(source, trained)) for source in sources)


def copies(source: AnySource, others: Collection[AnySource]) -> list[int]:
    """Returns the positions of the images that are files, or copies of files, of other sources.

    Files are compared by their bytes; none if they are no files, or too many to look at.
    """
    if max((one.count for one in (source, *others)), default=0) > listing.UNASKED_LIMIT:
        return []
    known: dict[int, list[pathlib.Path]] = {}
    for other in others:
        for _, path in _files(other):
            known.setdefault(path.stat().st_size, []).append(path)

    @functools.cache
    def digests(size: int) -> set[bytes]:
        return {_digest(path) for path in known[size]}

    # Only files of the size of one of the others are read.
    return [
        place
        for place, path in _files(source)
        if (size := path.stat().st_size) in known and _digest(path) in digests(size)
    ]


def _files(source: AnySource) -> Iterator[tuple[int, pathlib.Path]]:
    for place in range(source.count):
        path = pathlib.Path(source.name(place))
        if path.is_file():  # names of TFDS are none
            yield place, path


def _digest(path: pathlib.Path) -> bytes:
    return hashlib.sha256(path.read_bytes()).digest()
