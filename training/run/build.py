"""The network of a configuration, and what a configuration may say of it."""

from __future__ import annotations

import warnings
from typing import Any

import keras

import keras_lightnets
from keras_lightnets.networks import create
from keras_lightnets.networks.options import argument_names
from keras_lightnets.weights import load as weights
from lightnets.config.keys import Config, ModelConfig
from lightnets.data import Splits
from lightnets.optimization import finetune
from lightnets.support.errors import UsageError, UserError
from lightnets.support.words import nearest

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
        "input_shape": (*model.sides, 3),
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
