"""From a configuration to `Splits`."""

from __future__ import annotations

import os
import pathlib
from typing import NamedTuple

import numpy as np

from keras_lightnets import class_names
from keras_lightnets.preprocessing import EvalTransform
from training.config import Config
from training.data import cache, check, files, service, split_file, tfds_source
from training.data.source import Source
from training.data.splits import Splits
from training.data.stream import Stream
from training.errors import UserError
from training.words import command


class Opened(NamedTuple):
    """What a name of a data set leads to, before anything is held out."""

    labels: list[str]
    train: Source | Stream
    evaluation: Source | Stream | None
    prepared: bool = False  # by TFDS, which may have splits without labels


def load(
    config: Config, saved: str | os.PathLike | None = None, *, checked: bool = False
) -> Splits:
    """Finds the images that `config.data` names.

    Args:
        config: Of the run.
        saved: Run directory, or the `split.json` in it: hold out the same images as then.
        checked: Look at the training images first: stop, naming those that are damaged, or
            leave them out if `config.data.skip_corrupt`.

    Raises:
        UserError: There is no such data set, it cannot be used, or it is not what it was.
    """
    if config.data.data_service and checked:
        service.check(config.data.data_service)
    opened = open_dataset(config)
    if problem := class_names.problem(opened.labels):
        raise UserError(f"{config.data.dataset}: {problem}")
    saved_split = split_file.read(saved)
    if saved_split and saved_split.labels != opened.labels:
        raise UserError(
            f"The classes of {config.data.dataset} have changed since the run was started: "
            f"{len(saved_split.labels)} then, {len(opened.labels)} now."
        )
    excluded: dict[str, str] = {}
    sources = [source for source in (opened.train, opened.evaluation) if source is not None]
    if opened.prepared:
        for source in sources:
            tfds_source.check_labelled(source)
    if saved_split:
        excluded = saved_split.excluded
        sources = [split_file.without(source, excluded) for source in sources]
    elif checked:
        sources, excluded = check.sound(sources, config.data)
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
    )


def open_dataset(config: Config) -> Opened:
    """Opens a folder, a list or a TFDS data set.

    Raises:
        UserError: There is no such data set or it cannot be used.
    """
    name = config.data.dataset
    path = pathlib.Path(name).expanduser()
    if path.is_dir() and not tfds_source.is_prepared_folder(path):
        return _open_folder(path, config)
    if path.is_file():
        if path.suffix.lower() not in (".csv", ".jsonl"):
            raise UserError(f"{path} is a file, but no .csv or .jsonl list of images.")
        return _open_listings(files.read_list(path), str(path), config)
    if not path.exists() and _looks_like_a_path(name):
        raise UserError(f"There is no file or folder {name}.")
    builder = tfds_source.find_builder(config.data)
    _, label_key = tfds_source.feature_keys(builder)
    train, evaluation = tfds_source.find_splits(builder, config.data)
    labels = builder.info.features[label_key].names
    source = tfds_source.open_split(builder, train)
    large = source.count > check.UNASKED_LIMIT
    if evaluation is None and isinstance(source, Stream) and train == "train" and large:
        # To choose by class, and to evaluate, all records would be read. They are shuffled when
        # they are prepared, so the last ones are as good as any.
        share = round(config.data.val_split * 100) or 1
        source = tfds_source.open_split(builder, f"train[:{100 - share}%]")
        evaluation = f"train[{100 - share}%:]"
    held_out = None if evaluation is None else tfds_source.open_split(builder, evaluation)
    return Opened(list(labels), source, held_out, prepared=True)


def _looks_like_a_path(name: str) -> bool:
    # TFDS names may hold one slash ("name/config:1.0.0"), but start with a letter.
    return name.startswith((".", os.sep, "~")) or name.endswith((os.sep, ".csv", ".jsonl"))


def _open_folder(path: pathlib.Path, config: Config) -> Opened:
    folders = files.find_folders(path)
    if not folders:
        return _open_listings({None: files.scan(path)}, str(path), config)
    return _open_listings(
        {name: files.scan(folder) for name, folder in folders.items()}, str(path), config
    )


def _open_listings(listings: dict[str | None, files.Listing], where: str, config: Config) -> Opened:
    if None in listings:
        if len(listings) > 1:
            raise UserError(f"{where} names a split for some images only.")
        listing = listings[None]
        return Opened(listing.classes, listing.source(), None)
    train, evaluation = pick_splits(list(listings), where, config)
    classes = listings[train].classes
    if evaluation is not None:
        # A class that is never trained, or never evaluated, is almost always a misspelling.
        other = listings[evaluation].classes
        if unknown := sorted(set(other) - set(classes)):
            raise UserError(
                f"{where}: the split {evaluation} has classes that {train} lacks: "
                f"{', '.join(unknown[:5])}. See {command('data', 'check', where)}."
            )
    held_out = None
    if evaluation is not None:
        held_out = listings[evaluation].with_classes(classes).source()
    return Opened(classes, listings[train].source(), held_out)


def pick_splits(names: list[str], where: str, config: Config) -> tuple[str, str | None]:
    """Returns which of the splits to train on and which to evaluate on, None if there is none."""
    wanted = {"train_split": config.data.train_split, "eval_split": config.data.eval_split}
    for key, name in wanted.items():
        if name is not None and name not in names:
            raise UserError(f"{where} has no split {name!r} (data.{key}). It has: {names}.")
    train, evaluation = files.choose_splits(names, config.data)
    if train is None:
        raise UserError(f"{where} has no split named train. It has: {', '.join(names)}.")
    return train, evaluation


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
        resize_shorter=config.data.resize_shorter or round(size / 0.875),
        interpolation=config.data.interpolation,
        antialias=config.data.antialias,
    )
