"""The copy of the network that is evaluated and saved."""

from __future__ import annotations

import os
import pathlib
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import keras_lightnets
from keras_lightnets.networks import create
from keras_lightnets.networks.options import argument_names
from keras_lightnets.text import first_line
from keras_lightnets.weights import load as weights
from lightnets.config.keys import Config, ModelConfig
from lightnets.data import Splits
from lightnets.evaluation.evaluate import Evaluator, distribute
from lightnets.optimization import batch_norm, finetune
from lightnets.support.errors import UsageError, UserError
from lightnets.support.words import nearest


class Judge:
    """A float32 copy of the network, from 0..255 images to probabilities.

    The weights to judge (the present ones or their average) are copied to it, bit by bit.
    Nothing that is trained is ever swapped or averaged away, and what is evaluated is what is
    saved.
    """

    def __init__(
        self, config: Config, splits: Splits, batch: int, strategy: tf.distribute.Strategy
    ):
        """Builds the network; call inside the scope of `strategy`.

        Args:
            config: The run.
            splits: Its data.
            batch: Images in an evaluation step, over all replicas.
            strategy: Where it is evaluated.
        """
        self.model = build_model(config, splits)
        self._splits = splits
        self._batch = batch
        self._strategy = strategy
        self._evaluator = Evaluator(self.model, strategy)
        self._targets = keras_lightnets.logits_model(self.model).weights

    def take(self, model: keras.Model, averages: Mapping[str, tf.Variable]) -> None:
        """Copies the weights of `model`, or their `averages` (by path) where there are any."""
        for source, target in zip(model.weights, self._targets, strict=True):
            target.assign(averages.get(source.path, source.value))

    def predict(
        self, each_batch: Callable[[], None] = lambda: None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns true classes and probabilities of the held-out images; see `Evaluator`."""
        return self._evaluator(self._splits, self._batch, each_batch)

    def reestimate_batch_norm(self, batches: int, batch: int) -> None:
        """Replaces the moving statistics by those of the training data.

        Args:
            batches: How many global batches of training, the first ones, are looked at.
            batch: Images in a global batch.
        """
        if not batch_norm.statistics(self.model):
            return
        data = distribute(
            lambda shard, shards: self._splits.train(
                0, global_batch=batch, shard=shard, shards=shards
            ),
            batch,
            self._strategy,
        )
        batch_norm.reestimate(self.model, data, batches, self._strategy)

    def save(self, path: pathlib.Path) -> None:
        """Writes a `.keras` file, whole or not at all.

        Raises:
            UserError: It cannot be written; a previous file stays.
        """
        temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp.keras")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self.model.save(temporary)
            temporary.replace(path)
        except OSError as error:
            raise UserError(
                f"Cannot write {path}: {error.strerror or error}. "
                "The checkpoints are intact: resume when it can be written."
            ) from None
        finally:
            temporary.unlink(missing_ok=True)

    def load(self, path: pathlib.Path) -> None:
        """Reads the weights that `save` wrote.

        Raises:
            UserError: The file is missing or damaged.
        """
        try:
            self.model.load_weights(path)
        except (OSError, ValueError, KeyError) as error:
            raise UserError(f"Cannot read the weights in {path}: {first_line(error)}") from None


# Arguments of a builder that follow from the data and from what training does with a network.
_OURS = {
    *("input_shape", "classes", "include_preprocessing", "weights", "include_top", "name"),
    *("input_tensor", "pooling", "features_only", "classifier_activation", "mean", "std"),
}


def check_arguments(model: ModelConfig) -> None:
    """Raises UsageError if the builder does not know what the configuration gives it."""
    known = argument_names(create.builder(model.name)) - _OURS
    given = {f"model.args.{key}": key for key in model.args}
    if model.alpha is not None:
        given["model.alpha"] = "alpha"
    for key, argument in given.items():
        if argument in _OURS:
            raise UsageError(f"{key} cannot be set: it follows from the data and the training.")
        if argument not in known:
            raise UsageError(
                f"{model.name} takes no {key}.{nearest(argument, known)} "
                f"It takes: {', '.join(sorted(known))}."
            )


def build_model(config: Config, splits: Splits) -> keras.Model:
    """Returns the network of `config`: 0..255 RGB images to probabilities of the labels."""
    model = config.model
    arguments: dict[str, Any] = {
        "input_shape": (model.image_size, model.image_size, 3),
        "classes": len(splits.labels),
        "alpha": model.alpha,
        "dropout_rate": model.dropout_rate,
        "bn_momentum": model.bn_momentum,
        "small_input": model.small_input,
        "weights": finetune.weights_file(model.weights),
        "include_preprocessing": True,
        **model.args,
    }
    known = {key: value for key, value in arguments.items() if value is not None}
    try:
        with warnings.catch_warnings():
            # The classifier is to be another one.
            warnings.filterwarnings("ignore", "The weights are for another number of classes")
            network = keras_lightnets.create_model(model.name, **known)
    except (ValueError, TypeError) as error:
        raise UserError(f"Cannot build {model.name}: {error}") from None
    notes = weights.notes(network)
    notes.update(class_names=list(splits.labels), transform=splits.transform.to_dict())
    notes.pop("weights", None)  # they will be others
    return network
