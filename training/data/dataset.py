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
from lightnets.config.tasks import DEFAULT
from lightnets.data.sources import folders, layout, listing, lists
from lightnets.data.sources import tfds as tfds_source
from lightnets.data.sources.part import Part, Tree
from lightnets.data.sources.source import labels_of
from lightnets.data.sources.stream import AnySource, Stream
from lightnets.support import console
from lightnets.support.errors import UserError
from lightnets.support.words import count, is_path, some


def places(own: Sequence[str], classes: Sequence[str], where: str, whose: str) -> np.ndarray:
    """Returns the place of each class among others, by name, int64.

    Args:
        own: Names of the classes.
        classes: Those of a network, for instance.
        where: What has the former, for a message.
        whose: What has the latter, for a message.

    Raises:
        UserError: One is not among them.
    """
    index = {name: number for number, name in enumerate(classes)}
    if tuple(classes) == imagenet.class_names():
        # Sets name these by identifier, or by a word that is written in several ways.
        index = {name: imagenet.index(name) for name in own}
    if unknown := [name for name in own if index.get(name) is None]:
        raise UserError(
            f"{where} has classes that {whose} lacks: {some(unknown)}. It has: {some(classes)}."
        )
    return np.array([index[name] for name in own], np.int64)


def relabelled(
    source: AnySource, own: Sequence[str], classes: Sequence[str], where: str, whose: str
) -> AnySource:
    """Returns a source with labels that are indices into `classes`, mapped by name.

    The other arguments are those of `places`, which raises UserError for another class.
    """
    if list(classes) == list(own):
        return source
    table = places(own, classes, where, whose)
    # Of several numbers an image those that the source lacks are not known.
    column = [list(table).index(k) if k in table else len(own) for k in range(len(classes))]

    def open_one(reference):
        contents, label = source.open(reference)
        if label.dtype.is_integer:
            return contents, tf.gather(tf.constant(table), label)
        return contents, tf.gather(tf.concat([label, [np.nan]], 0), column)

    def read_labels():
        labels = source.read_labels()
        if labels.ndim == 1:
            return table[labels]
        return np.insert(labels, len(own), np.nan, axis=1)[:, column]

    if isinstance(source, Stream):
        return dataclasses.replace(source, open=open_one)
    return dataclasses.replace(source, open=open_one, read_labels=read_labels)


@dataclass(frozen=True)
class Dataset:
    """What a folder, a list or the name of a TFDS data set leads to.

    Attributes:
        name: As it was given.
        sizes: Images in each split. A set without splits has one called `train`.
        divided: Whether it has splits.
        classes: Names of the classes of all splits.
        open: Returns a split of `sizes`, or what TFDS takes for one.
        left_over: Files and folders that are not read, with the reason.
        prepared: Whether it is TFDS's, which has splits without labels.
        task: What its labels are for.
    """

    name: str
    sizes: Mapping[str, int]
    divided: bool
    classes: list[str]
    open: Callable[[str], Part]
    left_over: Mapping[str, str] = field(default_factory=dict)
    prepared: bool = False
    task: str = DEFAULT

    def choose(self, data: DataConfig) -> tuple[str, str | None]:
        """Returns the split to train on and the one to evaluate on, None if there is none.

        Those that `data` names, else those whose names say so.

        Raises:
            UserError: It cannot be decided, or there is no such split.
        """
        names = list(self.sizes)
        train = data.train_split
        if train is None:
            found = [name for name in names if layout.role(name) == "train"]
            if "train" in found:
                found = ["train"]
            if not found and self.prepared:
                found = names[:1]
            if len(found) != 1:
                problem = f"several splits to train on: {', '.join(found)}"
                if not found:
                    problem = f"no split to train on. It has: {', '.join(names)}"
                raise UserError(
                    f"{self.name} has {problem}. Choose one by --set data.train_split=NAME."
                )
            train = found[0]
        others = [name for name in layout.held_out(names) if name != train]
        evaluation = data.eval_split or next(iter(others), None)
        return self.split(train), None if evaluation is None else self.split(evaluation)

    def is_labelled(self, source: AnySource) -> bool:
        """Whether a split of it has labels."""
        if self.prepared:  # as a whole, or not at all: -1. To read them all is to read the set
            return next(labels_of(source.references(1).take(1), source)) >= 0
        labels = source.read_labels()
        return labels.ndim == 1 or not np.isnan(labels).all()

    def check_labelled(self, source: AnySource) -> None:
        """Raises UserError if a split has no labels, as the `test` of some sets."""
        if not self.is_labelled(source):
            raise UserError(
                f"{source.name(0)} has no label, so this split can be neither trained nor "
                "evaluated on. Choose others by --set data.train_split=... and "
                "--set data.eval_split=..."
            )

    def split(self, wanted: str) -> str:
        """Returns the name of the split that is meant: itself, in other case, or by its purpose.

        Raises:
            UserError: There is none.
        """
        same = (
            lambda name: name == wanted,
            lambda name: name.lower() == wanted.strip().lower(),
            lambda name: layout.role(name) is not None and layout.role(name) == layout.role(wanted),
        )
        for test in same:
            if len(found := list(filter(test, self.sizes))) == 1:
                return found[0]
        if self.prepared:
            return wanted  # TFDS has a syntax for parts of splits
        raise UserError(f"{self.name} has no split {wanted!r}. It has: {', '.join(self.sizes)}.")

    def labelled(self, split: str, classes: Sequence[str], whose: str) -> AnySource:
        """Returns the images of a split with labels that are indices into `classes`.

        Raises:
            UserError: The split has another class than `whose`.
        """
        part, where = self.open(split), f"{self.name}: the split {split}"
        lacks = set(classes) - set(part.classes) if self.task == "regression" else ()
        if lacks:
            raise UserError(f"{where} lacks the column {some(sorted(lacks))}, which {whose} has.")
        return relabelled(part.source, part.classes, classes, where, whose)

    def describe(self) -> str:
        """Returns one line for a person: splits, classes, and what is left over."""
        sizes = [f"{name} ({count(size, 'image')})" for name, size in self.sizes.items()]
        parts = [
            f"Splits: {', '.join(sizes)}"
            if self.divided
            else f"No splits: {count(sum(self.sizes.values()), 'image')}",
            f"{count(len(self.classes), *_NOUNS[self.task])}: {some(self.classes)}",
        ]
        if similar := layout.alike(self.classes):
            parts.append(f"nearly the same: {some([' and '.join(group) for group in similar])}")
        if self.task == DEFAULT and any(";" in name for name in self.classes):
            parts.append("of names with ; train --task multi-label makes several labels")
        if self.left_over:
            parts.append(f"left out: {listing.counted(self.left_over)}")
        return "; ".join(parts)


_NOUNS = {
    DEFAULT: ("class", "classes"),
    "multi-label": ("label", "labels, any of which an image may have"),
    "regression": ("number an image", "numbers an image"),
}


def find(data: DataConfig, task: str = DEFAULT) -> Dataset:
    """Opens the folder, list or TFDS data set that `data.dataset` names.

    This alone decides, for every command, what a split and what a class is.

    Args:
        data: The data.
        task: What is learned: a list may hold more than classes.

    Raises:
        UserError: There is no such data set, it cannot be used, or `data.layout` must say what
            is meant.
    """
    name = data.dataset
    path = pathlib.Path(name).expanduser()
    if lists.is_list(path):
        return _of_tree(lists.read_list(path, task, data.targets), name, task)
    if task != DEFAULT and (path.exists() or not is_path(name)):
        raise UserError(f"--task {task} takes a CSV or JSONL list. {name} is none.")
    if tfds_source.is_prepared_folder(path):
        return _prepared(data)
    if path.is_dir():
        if path.absolute().parent == pathlib.Path.cwd() and path.name in tfds_source.known_names():
            console.line(
                f"{path.name} is read as the folder {path.absolute()}, not as the data set of that "
                "name: for that one, work in another folder."
            )
        return _of_tree(folders.read_folder(path, data.layout), name)
    if path.is_file():
        raise UserError(f"{path} is a file, but no .csv or .jsonl list of images.")
    if path.exists():
        raise UserError(f"{path} is {listing.obstacle(path)}, no folder and no list.")
    if is_path(name):
        raise UserError(f"There is no file or folder {name}.")
    return _prepared(data)


def _of_tree(tree: Tree, name: str, task: str = DEFAULT) -> Dataset:
    parts, left_over = tree.parts, dict(tree.left_over)
    for part in parts.values():
        left_over |= part.skipped
    return Dataset(
        name,
        {split: part.source.count for split, part in parts.items()},
        tree.divided,
        list(dict.fromkeys(name for part in parts.values() for name in part.classes)),
        parts.__getitem__,
        left_over,
        task=task,
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
