"""From a configuration to `Splits`."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Collection, Mapping
from typing import NamedTuple

import numpy as np

from keras_lightnets.catalogue import class_names
from keras_lightnets.preprocessing import EvalTransform
from lightnets.config.keys import Config
from lightnets.data import cache, check, service, split_file
from lightnets.data.dataset import Dataset, find
from lightnets.data.sources import folders, listing
from lightnets.data.sources import tfds as tfds_source
from lightnets.data.sources.source import Source
from lightnets.data.sources.stream import Stream
from lightnets.data.splits import Splits
from lightnets.support.errors import UserError
from lightnets.support.words import command, some

# Of the shorter side of an image, what the centre crop of evaluation takes.
SHARE = 0.875


class Opened(NamedTuple):
    """What a run reads of a data set, before anything is held out."""

    labels: list[str]
    train: Source | Stream
    evaluation: Source | Stream | None
    unread: Mapping[str, str]
    dataset: Dataset


def load(
    config: Config,
    saved: str | os.PathLike | None = None,
    *,
    checked: bool = False,
    verified: bool = False,
) -> Splits:
    """Finds the images that `config.data` names.

    Args:
        config: Of the run.
        saved: Run directory, or the `split.json` in it: hold out the same images as then.
        checked: Look at the training images first: stop, naming those that are damaged, or
            leave them out if `config.data.skip_corrupt`. With `saved`: `verified`.
        verified: Make sure that the images, wherever they are now, are those of `saved`.

    Raises:
        UserError: There is no such data set, it cannot be used, or it is not what it was.
    """
    if config.data.data_service and checked:
        service.check(config.data.data_service)
    if saved is not None:
        _check_place(config.data.dataset)
    opened = open_dataset(config)
    if problem := class_names.problem(opened.labels):
        raise UserError(f"{config.data.dataset}: {problem}")
    _check_trainable(opened)
    saved_split = split_file.read(saved)
    if saved_split and saved_split.labels != opened.labels:
        raise UserError(
            f"The classes of {config.data.dataset} have changed since the run was started: "
            f"{len(saved_split.labels)} then, {len(opened.labels)} now."
        )
    excluded: dict[str, str] = {}
    sources = [source for source in (opened.train, opened.evaluation) if source is not None]
    if opened.dataset.prepared:
        for source in sources:
            tfds_source.check_labelled(source)
    if saved_split:
        excluded = saved_split.excluded
        dataset = config.data.dataset
        sources = [split_file.without(source, saved_split, dataset) for source in sources]
        if checked or verified:
            split_file.verify(sources, saved_split, dataset)
    elif checked:
        sources, excluded = check.sound(sources, config.data)
        _check_left(opened, sources[0], excluded)
    whole = None
    if len(sources) == 1:
        whole = sources[0]
        if saved_split and saved_split.names is not None:
            sources = split_file.restore(whole, saved_split, config.data.dataset)
        else:
            sources = split_stratified(whole, config)
    sources = cache.cached(list(sources), config.data)
    if config.data.data_service and checked:
        service.check_source(sources[0], config.data.dataset)
    return Splits(
        labels=opened.labels,
        transform=evaluation_transform(config),
        train_source=sources[0],
        eval_source=sources[1],
        config=config,
        whole=whole,
        excluded=excluded,
        dataset=opened.dataset,
    )


def _check_place(dataset: str) -> None:
    """Raises UserError if the data set of a run is not where it was."""
    path = pathlib.Path(dataset)
    if path.is_absolute() and not path.exists():
        raise UserError(
            f"There is no {dataset}, on which the run was trained. If it has moved, name its new "
            "place: --dataset PLACE."
        )


def open_dataset(config: Config) -> Opened:
    """Opens the splits to train and to evaluate on.

    Raises:
        UserError: There is no such data set or it cannot be used.
    """
    dataset = find(config.data)
    train, evaluation = dataset.choose(config.data)
    part = dataset.open(train)
    source, classes = part.source, part.classes
    large = source.count > listing.UNASKED_LIMIT
    if evaluation is None and isinstance(source, Stream) and train == "train" and large:
        # To choose by class, and to evaluate, all records would be read. They are shuffled when
        # they are prepared, so the last ones are as good as any.
        share = round(config.data.val_split * 100) or 1
        source = dataset.open(f"train[:{100 - share}%]").source
        evaluation = f"train[{100 - share}%:]"
    held_out = None
    if evaluation is not None:
        where = f"{dataset.name}: the split {evaluation}"
        held_out = dataset.open(evaluation).of_classes(classes, where, f"the split {train}")
        if not held_out.count:
            raise UserError(f"{where} has no picture that can be read.")
    return Opened(classes, source, held_out, part.unread, dataset)


def _check_trainable(opened: Opened) -> None:
    """Raises UserError unless there are two classes, each with a picture."""
    dataset, classes = opened.dataset, opened.labels
    see = f"See {command('data', 'check', dataset.name)}."
    if opened.unread:
        named = [f"{name} ({why})" for name, why in opened.unread.items()]
        raise UserError(f"{dataset.name}: no picture can be read of the class {some(named)}. {see}")
    if len(classes) < 2:
        hint = folders.nested(pathlib.Path(dataset.name).expanduser(), classes)
        raise UserError(
            f"{dataset.name} has one class only ({', '.join(classes)}), training takes two.{hint}"
        )


def _check_left(opened: Opened, train: Source | Stream, excluded: Collection[str]) -> None:
    """Raises UserError if all images of a class are damaged."""
    if excluded:
        gone = set(opened.train.read_labels()) - set(train.read_labels())
        if names := [opened.labels[label] for label in sorted(gone)]:
            raise UserError(
                f"{opened.dataset.name}: all pictures of the class {some(names)} are damaged."
            )


def split_stratified(
    source: Source | Stream, config: Config
) -> tuple[Source | Stream, Source | Stream]:
    """Returns the training and the evaluation part of a source.

    Of each class `data.val_split` of the images are held out, at least one if there are two.

    Raises:
        UserError: There are too few images to hold any out.
    """
    labels = source.read_labels()
    random = np.random.default_rng(config.train.seed)
    held_out = []
    for label in np.unique(labels):
        members = random.permutation(np.flatnonzero(labels == label))
        share = round(len(members) * config.data.val_split)
        held_out.append(members[: min(max(share, 1), len(members) - 1)])
    positions = np.sort(np.concatenate(held_out)) if held_out else np.array([], np.int64)
    if not len(positions):
        raise UserError(
            f"{config.data.dataset} has no class with two images, so none can be held out."
        )
    rest = np.setdiff1d(np.arange(len(labels)), positions, assume_unique=True)
    return source.subset(rest), source.subset(positions)


def evaluation_transform(config: Config) -> EvalTransform:
    """Returns the transform that a configuration asks for."""
    size = config.model.image_size
    return EvalTransform(
        image_size=(size, size),
        resize_shorter=config.data.resize_shorter or round(size / SHARE),
        interpolation=config.data.interpolation,
        antialias=config.data.antialias,
        background=config.data.background,
        scale_16_bit=config.data.scale_16_bit,
    )
