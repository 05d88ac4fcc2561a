"""The network of a configuration, and what a configuration may say of it."""

from __future__ import annotations

import warnings
from typing import Any

import keras

import keras_lightnets
from keras_lightnets.networks import create
from keras_lightnets.networks.options import argument_names
from keras_lightnets.weights import load as weights
from lightnets import tasks
from lightnets.config.keys import Config, ModelConfig
from lightnets.data import Splits
from lightnets.optimization import finetune
from lightnets.run import foreign
from lightnets.support.errors import UsageError, UserError
from lightnets.support.words import nearest

# Arguments of a builder that follow from the data and from what training does with a network.
_OURS = {
    *("input_shape", "classes", "include_preprocessing", "weights", "include_top", "name"),
    *("input_tensor", "pooling", "features_only", "classifier_activation", "mean", "std"),
}


def check_arguments(model: ModelConfig) -> None:
    """Raises UsageError if the builder does not know what the configuration gives it."""
    if model.foreign:
        takes = foreign.known_arguments(model.name)
    else:
        takes = argument_names(create.builder(model.name))
    known = None if takes is None else takes - _OURS
    given = {f"model.args.{key}": key for key in model.args}
    given |= {f"model.{key}": key for key in _shaping(model)}
    for key, argument in given.items():
        if argument in _OURS:
            raise UsageError(f"{key} cannot be set: it follows from the data and the training.")
        if known is not None and argument not in known:
            raise UsageError(
                f"{model.name} takes no {key}.{nearest(argument, known)} "
                f"It takes: {', '.join(sorted(known)) or 'nothing'}."
            )


def _shaping(model: ModelConfig) -> dict[str, Any]:
    """Returns the arguments that have keys of their own, those that are set."""
    values = {
        "alpha": model.alpha,
        "dropout_rate": model.dropout_rate,
        "small_input": model.small_input or None,
    }
    return {key: value for key, value in values.items() if value is not None}


def build_model(config: Config, splits: Splits) -> keras.Model:
    """Returns the network of `config`: 0..255 RGB images to what its task answers."""
    model = config.model
    arguments: dict[str, Any] = {
        "input_shape": (*model.sides, 3),
        "classes": len(splits.labels),
        **_shaping(model),
        **model.args,
    }
    try:
        with warnings.catch_warnings():
            # The classifier is to be another one.
            warnings.filterwarnings("ignore", "The weights are for another number of classes")
            if model.foreign:
                network = foreign.build(model, arguments)
            else:
                ours = {
                    "bn_momentum": model.bn_momentum,
                    "weights": finetune.weights_file(model.weights),
                    "include_preprocessing": True,
                }
                network = keras_lightnets.create_model(model.name, **ours | arguments)
    except (ValueError, TypeError) as error:
        raise UserError(f"Cannot build {model.name}: {error}") from None
    notes = weights.notes(network)
    notes.update(class_names=list(splits.labels), transform=splits.transform.to_dict())
    notes.pop("weights", None)  # they will be others
    return tasks.of_run(config, splits).finish(network)
