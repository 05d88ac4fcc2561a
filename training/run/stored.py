"""Features of a backbone that does not learn, computed once: the classifier trains on them.

View `v` of an image is what the image looks like in epoch `v`, and epoch `e` sees view
`e % views`. Until a view comes back, and to the end without augmentation, a run on stored
features is the run of the whole network.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import pathlib
import zipfile
from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import psutil
import tensorflow as tf

from lightnets.config.keys import Config, declared
from lightnets.data import Splits, augment, pipeline
from lightnets.data.sources import order
from lightnets.data.sources.source import Source
from lightnets.distribution import workers
from lightnets.evaluation import features
from lightnets.optimization import finetune
from lightnets.run import directory
from lightnets.support import console
from lightnets.support.errors import UserError
from lightnets.support.words import count
from lightnets.support.writing import replacing

NAME = "features.npz"
# Of the free memory, what features may take.
_SHARE = 0.5


class Parts(NamedTuple):
    """A network in two, which share its layers.

    Attributes:
        backbone: From images to features.
        head: From features to the network's output; dropout is part of it.
    """

    backbone: keras.Model
    head: keras.Model


def cut(model: keras.Model) -> Parts:
    """Cuts a network before its classifier."""
    heads = (layer for layer in model.layers if layer.name.startswith(finetune.HEAD))
    found = next(layer for layer in heads if layer.weights).input
    while isinstance(found._keras_history.operation, keras.layers.Dropout):
        found = found._keras_history.operation.input
    return Parts(keras.Model(model.inputs[0], found), keras.Model(found, model.outputs[0]))


def views(config: Config) -> int:
    """Returns of how many views of each training image the features are stored."""
    wanted = config.data.views if augment.changes(config.data) else 1
    return min(max(wanted, 1), config.train.epochs)


def epochs(config: Config) -> int:
    """Returns in how many epochs, from the first on, a view comes back and only the head learns.

    All of them with a frozen backbone; a warm-up that sees each view once needs no store.
    """
    model = config.model
    if model.freeze == "backbone":
        return config.train.epochs
    resting = 0 if model.freeze else min(model.head_warmup_epochs, config.train.epochs)
    return resting if resting > views(config) else 0


def obstacle(config: Config, splits: Splits, model: keras.Model) -> str | None:
    """Returns why features cannot stand for the images, for a person; None if they can."""
    data = config.data
    if data.mixup or data.cutmix:
        return "data.mixup and data.cutmix mix other images in each epoch"
    if augment.changes(data) and not data.views:
        return "images are augmented anew in each epoch. To store some views of each: --views 4"
    if config.distillation.teacher:
        return "the teacher looks at the images"
    if workers.cluster(config.train) is not None or data.data_service:
        return "several machines share no stored features"
    if config.model.quantize != "none":
        return "the ranges of a quantized network follow the images"
    sources = (splits.train_source, splits.eval_source)
    if not all(isinstance(source, Source) for source in sources):
        return f"{data.dataset} can only be read in order"
    backbone = cut(model).backbone
    if any("seed_generator" in v.path for v in backbone.variables):
        return "the backbone has dropout"
    images = views(config) * splits.train_examples + splits.eval_examples
    size = 4 * images * int(np.prod(backbone.output_shape[1:]))
    if size > _SHARE * psutil.virtual_memory().available:
        return f"features of {size / 2**30:.1f} GiB do not fit into half of the free memory"
    return None


@dataclasses.dataclass(frozen=True)
class Stored:
    """Features in the place of images: to a head what `Splits` is to a network.

    Attributes:
        splits: The images.
        train_features: float32 `(views, images, ...)`.
        held_out: float32 `(images, ...)`.
    """

    splits: Splits
    train_features: np.ndarray
    held_out: np.ndarray

    def train(
        self, start_step: int = 0, *, global_batch: int, shard: int = 0, shards: int = 1
    ) -> tf.data.Dataset:
        """Returns endless batches, as `Splits.train`."""
        number, images = self.train_features.shape[:2]
        rows = tf.constant(self.train_features.reshape(-1, *self.train_features.shape[2:]))
        labels = tf.constant(self.splits.train_source.read_labels())
        class_weights = tf.constant(self.splits.class_weights())
        seed = self.splits.config.train.seed

        def batch(step):
            positions = order.step_positions(
                step,
                examples=images,
                global_batch=global_batch,
                seed=seed,
                shard=shard,
                shards=shards,
            )
            view = step // (images // global_batch) % number
            mine = tf.gather(labels, positions)
            dense = self.splits.dense(mine)
            weights = self.splits.weights(mine, dense, class_weights)
            return tf.gather(rows, view * images + positions), dense, weights

        steps = tf.data.Dataset.range(start_step, tf.int64.max)
        return steps.map(batch).with_options(pipeline.options())

    def evaluation(self, global_batch: int, shard: int = 0, shards: int = 1) -> tf.data.Dataset:
        """Returns one pass over the held-out images, as `Splits.evaluation`."""
        images = len(self.held_out)
        rows, labels = tf.constant(self.held_out), self.splits.eval_source.read_labels()
        dense = self.splits.dense(tf.constant(labels))

        def batch(step):
            positions, weights = order.positions_of_pass(
                step, examples=images, global_batch=global_batch, shard=shard, shards=shards
            )
            return tf.gather(rows, positions), tf.gather(dense, positions), weights

        steps = order.steps_of_pass(images, global_batch)
        return steps.map(batch).with_options(pipeline.options())


def store(
    path: pathlib.Path, config: Config, splits: Splits, backbones: Sequence[keras.Model]
) -> Stored:
    """Returns the features of a run, from its file if it has one that fits, else computed.

    Folds whose images never change share one file of all images, beside their folders.

    Args:
        path: The file, which is written whole or not at all.
        config: The run.
        splits: The images.
        backbones: Of the network that is trained, and of the one that is evaluated.

    Raises:
        UserError: The file cannot be written.
    """
    key = _key(config, splits, backbones)
    if (found := _read(path, key)) is not None:
        return Stored(splits, *found)
    is_fold = config.data.fold and directory.is_run(path.parent.parent)
    if is_fold and not augment.changes(config.data):
        return _of_fold(path.parent.parent / path.name, config, splits, backbones)
    seen = range(views(config))
    train = [
        features.through(
            backbones[0],
            splits.view(view, features.BATCH),
            splits.train_examples,
            _said(view, seen),
        )
        for view in seen
    ]
    held_out = features.through(
        backbones[1], splits.evaluation(features.BATCH), splits.eval_examples, "Held-out images"
    )
    made: dict[str, Any] = {"train": np.stack(train), "held_out": held_out}
    try:
        with replacing(path, "wb") as file:
            np.savez(file, key=key, **made)
    except OSError as error:
        raise UserError(f"Cannot write {path}: {error.strerror or error}.") from None
    console.line(f"Stored the features of {count(splits.train_examples, 'image')} in {path}")
    return Stored(splits, *made.values())


def _of_fold(
    path: pathlib.Path, config: Config, splits: Splits, backbones: Sequence[keras.Model]
) -> Stored:
    """Returns the features of a fold out of those of all images."""
    whole: Any = splits.whole
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, fold=0))
    both = dataclasses.replace(splits, train_source=whole, eval_source=whole)
    all_images = store(path, config, both, backbones)
    places = {whole.name(place): place for place in range(whole.count)}
    train, held_out = (
        [places[source.name(place)] for place in range(source.count)]
        for source in (splits.train_source, splits.eval_source)
    )
    return Stored(splits, all_images.train_features[:, train], all_images.held_out[held_out])


def _said(view: int, seen: range) -> str:
    return (
        f"Training images, view {view + 1} of {len(seen)}" if len(seen) > 1 else "Training images"
    )


def _read(path: pathlib.Path, key: str) -> tuple[np.ndarray, np.ndarray] | None:
    try:
        with path.open("rb") as raw, np.load(raw) as file:
            return (file["train"], file["held_out"]) if file["key"] == key else None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None


def _key(config: Config, splits: Splits, backbones: Sequence[keras.Model]) -> str:
    """Returns what changes when any feature might."""
    mine = dataclasses.asdict(config.data)
    for one in declared():
        section, name = one.name.split(".")
        if section == "data" and one.resumable:
            del mine[name]
    sources = (splits.train_source, splits.eval_source)
    facts = [
        *(mine, splits.transform.to_dict(), config.train.seed, views(config)),
        *(source.fingerprint() for source in sources),
        *(model.layers[-1].compute_dtype for model in backbones),
        *map(features.fingerprint, backbones),
    ]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()
