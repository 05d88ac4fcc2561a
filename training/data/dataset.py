"""From the name of a data set to its splits, its classes and what is left over."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import tensorflow as tf

from keras_lightnets.catalogue import imagenet
from lightnets.config.keys import DataConfig
from lightnets.data.sources import folders, layout, listing, lists
from lightnets.data.sources import tfds as tfds_source
from lightnets.data.sources.files import Tree
from lightnets.data.sources.source import Source
from lightnets.data.sources.stream import Stream
from lightnets.support import console
from lightnets.support.errors import UserError
from lightnets.support.words import count, is_path, some


@dataclass(frozen=True)
class Part:
    """One split.

    Attributes:
        source: Its images.
        classes: Names, in the order of the labels.
        skipped: What lies among the images but is none that is read, with the reason.
        unread: Why a class has no picture that is read, by its name.
        beside: What lies beside its classes, with the reason.
    """

    source: Source | Stream
    classes: list[str]
    skipped: Mapping[str, str] = field(default_factory=dict)
    unread: Mapping[str, str] = field(default_factory=dict)
    beside: Mapping[str, str] = field(default_factory=dict)

    def of_classes(self, classes: Sequence[str], where: str, whose: str) -> Source | Stream:
        """Returns the source with labels that are indices into `classes`, mapped by name.

        Args:
            classes: Of a network, say.
            where: This split, for a message.
            whose: The classes, for a message.

        Raises:
            UserError: The split has another class.
        """
        if list(classes) == list(self.classes):
            return self.source
        index = {name: number for number, name in enumerate(classes)}
        if tuple(classes) == imagenet.class_names():
            # Sets name these by identifier, or by a word that is written in several ways.
            index = {name: imagenet.index(name) for name in self.classes}
        if unknown := [name for name in self.classes if index.get(name) is None]:
            raise UserError(
                f"{where} has classes that {whose} lacks: {some(unknown)}. It has: {some(classes)}."
            )
        table = np.array([index[name] for name in self.classes], np.int64)
        return _relabelled(self.source, table)


def _relabelled(source: Source | Stream, table: np.ndarray) -> Source | Stream:
    """Returns the source with `table[label]` as labels."""

    def open_one(reference):
        contents, label = source.open(reference)
        return contents, tf.gather(tf.constant(table), label)

    if isinstance(source, Stream):
        return dataclasses.replace(source, open=open_one)
    return dataclasses.replace(
        source, open=open_one, read_labels=lambda: table[source.read_labels()]
    )


@dataclass(frozen=True)
class Dataset:
    """What a folder, a list or the name of a TFDS data set leads to.

    Attributes:
        name: As it was given.
        sizes: Images in each split. A set without splits has one called `train`.
        divided: Whether it has splits.
        classes: Names of the classes of all splits.
        open: Returns a split of `sizes`, or what TFDS takes for one.
        left_over: What belongs to no split, or is no picture that is read, with the reason.
        prepared: Whether it is TFDS's, which has splits without labels.
    """

    name: str
    sizes: Mapping[str, int]
    divided: bool
    classes: list[str]
    open: Callable[[str], Part]
    left_over: Mapping[str, str] = field(default_factory=dict)
    prepared: bool = False

    def choose(self, data: DataConfig) -> tuple[str, str | None]:
        """Returns the split to train on and the one to evaluate on, None if there is none.

        Raises:
            UserError: It cannot be decided, or there is no such split.
        """
        first = next(iter(self.sizes)) if self.prepared else None
        train, evaluation = layout.choose(self.sizes, data, self.name, first)
        return self.split(train), None if evaluation is None else self.split(evaluation)

    def split(self, name: str) -> str:
        """Returns the name of the split that is meant by `name`.

        Raises:
            UserError: There is none.
        """
        found = layout.match(name, self.sizes)
        if found is None and not self.prepared:
            raise UserError(f"{self.name} has no split {name!r}. It has: {', '.join(self.sizes)}.")
        return found or name  # TFDS has a syntax for parts of splits

    def describe(self) -> str:
        """Returns one line for a person: splits, classes, and what is left over."""
        sizes = [f"{name} ({count(size, 'image')})" for name, size in self.sizes.items()]
        parts = [
            f"Splits: {', '.join(sizes)}"
            if self.divided
            else f"No splits: {count(sum(self.sizes.values()), 'image')}",
            f"{count(len(self.classes), 'class', 'classes')}: {some(self.classes)}",
        ]
        if similar := layout.alike(self.classes):
            parts.append(f"nearly the same: {some([' and '.join(group) for group in similar])}")
        if self.left_over:
            parts.append(f"left out: {listing.counted(self.left_over)}")
        return "; ".join(parts)


def find(data: DataConfig) -> Dataset:
    """Opens the folder, list or TFDS data set that `data.dataset` names.

    This alone decides, for every command, what a split and what a class is.

    Raises:
        UserError: There is no such data set, it cannot be used, or `data.layout` must say what
            is meant.
    """
    name = data.dataset
    path = pathlib.Path(name).expanduser()
    if tfds_source.is_prepared_folder(path):
        return _prepared(data)
    if path.is_dir():
        _say_which(path)
        return _of_tree(folders.read_folder(path, data.layout), name)
    if path.is_file():
        if path.suffix.lower() not in (".csv", ".jsonl"):
            raise UserError(f"{path} is a file, but no .csv or .jsonl list of images.")
        return _of_tree(lists.read_list(path), name)
    if path.exists():
        raise UserError(f"{path} is {listing.obstacle(path)}, no folder and no list.")
    if is_path(name):
        raise UserError(f"There is no file or folder {name}.")
    return _prepared(data)


def _say_which(path: pathlib.Path) -> None:
    """Tells if a folder here is called as a data set, which it then stands for."""
    here = path.absolute().parent == pathlib.Path.cwd()
    if here and tfds_source.is_known(path.name):
        console.line(
            f"{path.name} is read as the folder {path.absolute()}, not as the data set of that "
            "name: for that one, work in another folder."
        )


def _of_tree(tree: Tree, name: str) -> Dataset:
    def open_split(split: str) -> Part:
        found = tree.splits[split]
        return Part(found.source(), found.classes, found.skipped, found.unread, found.beside)

    left_over = dict(tree.left_over)
    for found in tree.splits.values():
        left_over |= found.skipped
    return Dataset(
        name,
        {split: len(found.paths) for split, found in tree.splits.items()},
        tree.divided,
        list(dict.fromkeys(name for found in tree.splits.values() for name in found.classes)),
        open_split,
        left_over,
    )


def _prepared(data: DataConfig) -> Dataset:
    builder = tfds_source.find_builder(data)
    classes = list(builder.info.features[tfds_source.feature_keys(builder)[1]].names)
    splits = {split: int(info.num_examples) for split, info in builder.info.splits.items()}
    return Dataset(
        builder.name,
        {split: size for split, size in splits.items() if size} or splits,
        len(splits) > 1,
        classes,
        lambda split: Part(tfds_source.open_split(builder, split), classes),
        prepared=True,
    )
