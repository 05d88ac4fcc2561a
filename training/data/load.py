"""From a configuration to `Splits`."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from keras_lightnets.catalogue import class_names
from keras_lightnets.preprocessing import EvalTransform
from lightnets.config.keys import Config
from lightnets.config.tasks import DEFAULT
from lightnets.data import check, service, split_file, unlabelled
from lightnets.data.dataset import Dataset, find
from lightnets.data.sources import folders, listing
from lightnets.data.sources.stream import AnySource, Stream
from lightnets.data.splits import Splits
from lightnets.support.errors import UserError
from lightnets.support.words import command, some

# Share of the shorter side of an image that the centre crop of evaluation takes.
SHARE = 0.875


class Opened(NamedTuple):
    """What a run reads of a data set, before anything is held out."""

    labels: list[str]
    train: AnySource
    evaluation: AnySource | None
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
    data = config.data
    if data.data_service and checked:
        service.check(data.data_service)
    if saved is not None:
        _check_place(data.dataset)
    opened = open_dataset(config)
    if problem := class_names.problem(opened.labels):
        raise UserError(f"{data.dataset}: {problem}")
    _check_trainable(opened)
    if data.folds and opened.evaluation is not None:
        raise UserError(
            f"{data.dataset} has held-out images of its own. --folds is for data without: leave it "
            "out, or put all pictures of a class into one folder."
        )
    sources = [source for source in (opened.train, opened.evaluation) if source is not None]
    for source in sources:
        opened.dataset.check_labelled(source)
    saved_split, excluded = split_file.read(saved), {}
    if saved_split:
        if saved_split.labels != opened.labels:
            raise UserError(
                f"The classes of {data.dataset} have changed since the run was started: "
                f"{len(saved_split.labels)} then, {len(opened.labels)} now."
            )
        excluded = saved_split.excluded
        sources = [split_file.without(source, saved_split, data.dataset) for source in sources]
        if checked or verified:
            split_file.verify(sources, saved_split, data.dataset)
    elif checked:
        sources, excluded = check.sound(sources, data)
        if excluded:
            _check_left(opened, sources[0])
    whole = sources[0] if len(sources) == 1 else None
    if whole is not None:
        if saved_split and saved_split.names is not None:
            sources = split_file.restore(whole, saved_split, data.dataset)
        else:
            sources = split_stratified(whole, config)
    train, evaluation = sources
    if data.data_service and checked:
        service.check_source(train, data.dataset)
    return Splits(
        labels=opened.labels,
        transform=evaluation_transform(config),
        train_source=train,
        eval_source=evaluation,
        config=config,
        whole=whole,
        excluded=excluded,
        dataset=opened.dataset,
        # Once a run is trained, nobody asks for them any more.
        unlabelled=unlabelled.find(data, opened.dataset, saved) if checked else None,
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
    dataset = find(config.data, config.train.task)
    train, evaluation = dataset.choose(config.data)
    part = dataset.open(train)
    source = part.source
    large = source.count > listing.UNASKED_LIMIT
    if evaluation is None and isinstance(source, Stream) and train == "train" and large:
        # To choose by class, and to evaluate, all records would be read. They are shuffled when
        # they are prepared, so the last ones are as good as any.
        share = round(config.data.val_split * 100) or 1
        source = dataset.open(f"train[:{100 - share}%]").source
        evaluation = f"train[{100 - share}%:]"
    held_out = None
    if evaluation is not None:
        held_out = dataset.labelled(evaluation, part.classes, f"the split {train}")
        if not held_out.count:
            raise UserError(
                f"{dataset.name}: the split {evaluation} has no picture that can be read."
            )
    return Opened(part.classes, source, held_out, part.unread, dataset)


def _check_trainable(opened: Opened) -> None:
    """Raises UserError unless there are two classes, each with a picture, or other labels."""
    dataset, classes = opened.dataset, opened.labels
    see = f"See {command('data', 'check', dataset.name)}."
    if opened.unread:
        named = [f"{name} ({why})" for name, why in opened.unread.items()]
        raise UserError(f"{dataset.name}: no picture can be read of the class {some(named)}. {see}")
    if len(classes) < 2 and dataset.task == DEFAULT:
        hint = folders.nested(pathlib.Path(dataset.name).expanduser(), classes)
        raise UserError(
            f"{dataset.name} has one class only ({', '.join(classes)}), training takes two.{hint}"
        )


def _check_left(opened: Opened, train: AnySource) -> None:
    """Raises UserError if no image of a class is left, because all are damaged."""
    if opened.dataset.task != DEFAULT:
        return
    gone = set(opened.train.read_labels()) - set(train.read_labels())
    if gone:
        names = some(opened.labels[label] for label in sorted(gone))
        raise UserError(f"{opened.dataset.name}: all pictures of the class {names} are damaged.")


def split_stratified(source: AnySource, config: Config) -> tuple[AnySource, AnySource]:
    """Returns the training and the evaluation part of a source.

    Of each class `data.val_split` of the images are held out, at least one if there are two. With
    `data.folds` it is every so-manieth, so that all folds together hold out each image once. Images
    with several labels or numbers count as of one class, those of which nothing is known as of
    another.

    Raises:
        UserError: There are too few images to hold any out.
    """
    data, labels = config.data, source.read_labels()
    labels = labels if labels.ndim == 1 else np.isnan(labels).all(-1)
    random = np.random.default_rng(config.train.seed)
    held_out = [np.array([], np.int64)]
    for label in np.unique(labels):
        members = random.permutation(np.flatnonzero(labels == label))
        if data.folds:
            own = members[data.fold - 1 :: data.folds]
        else:
            own = members[: max(round(len(members) * data.val_split), 1)]
        held_out.append(own[: len(members) - 1])
    positions = np.concatenate(held_out)
    if not len(positions):
        raise UserError(f"{data.dataset} has no class with two images, so none can be held out.")
    return split_file.divide(source, positions)


def evaluation_transform(config: Config) -> EvalTransform:
    """Returns the transform that a configuration asks for."""
    data, sides = config.data, config.model.sides
    shorter = data.resize_shorter or round(min(sides) / SHARE)
    return EvalTransform(
        image_size=sides,
        resize_shorter=shorter if data.resize == "crop" else None,
        interpolation=data.interpolation,
        antialias=data.antialias,
        background=data.background,
        scale_16_bit=data.scale_16_bit,
        pad=data.resize == "pad",
    )


# What a run sees of a picture that names nothing else.
SQUARE = evaluation_transform(Config())
