"""Networks of anybody: of `keras.applications`, of a function, of a `.keras` file."""

from __future__ import annotations

import hashlib
import inspect
import json
import pathlib
import re
from collections.abc import Callable
from typing import Any

import keras

from keras_lightnets.networks.classifier import classify
from keras_lightnets.networks.options import Options
from keras_lightnets.weights import load as weights_lib
from lightnets.config.keys import APPLICATIONS, ModelConfig
from lightnets.optimization import finetune
from lightnets.run import adoption, directory
from lightnets.support import modules
from lightnets.support.errors import UserError
from lightnets.support.words import nearest
from lightnets.support.writing import write_text

NAME = "network.sha256"


def application(name: str) -> tuple[Callable[..., keras.Model], Callable[[Any], Any]]:
    """Returns the builder of `keras.applications:NAME`, and what prepares 0..255 images for it."""
    name = name.removeprefix(APPLICATIONS)
    names = [each for each in dir(keras.applications) if each[0].isupper()]
    if name not in names:
        raise UserError(f"keras.applications has no network {name!r}.{nearest(name, names)}")
    builder = getattr(keras.applications, name)
    home: Any = inspect.getmodule(builder)
    return builder, home.preprocess_input


def known_arguments(name: str) -> set[str] | None:
    """Returns what the builder of a network takes; None: anything.

    Raises:
        UserError: There is no such builder.
    """
    if name.endswith(".keras"):
        return set()
    own = {"dropout_rate"} if name.startswith(APPLICATIONS) else set()
    builder = application(name)[0] if own else modules.load(name)
    if not callable(builder):
        raise UserError(f"{name} is no function that returns a network.")
    parameters = inspect.signature(builder).parameters
    takes_all = any(each.kind is each.VAR_KEYWORD for each in parameters.values())
    return None if takes_all and not own else {*parameters} | own


def build(model: ModelConfig, arguments: dict[str, Any]) -> keras.Model:
    """Returns a network of 0..255 RGB images to probabilities, in the form of this package.

    Args:
        model: The configuration. Its `bn_momentum` holds for all batch norms.
        arguments: Of the builder, `input_shape` and `classes` among them.

    Raises:
        UserError: There is no such network, or it cannot be trained: the layer and the reason.
    """
    start = finetune.weights_file(model.weights)
    _check_weights(model.name, start)
    name = pathlib.Path(model.name).stem if model.is_file else model.name.removeprefix(APPLICATIONS)
    try:
        network, prepare = _made(model.name, arguments, start)
        ours = adoption.adopt(
            network,
            re.sub(r"\W+", "_", name).strip("_"),
            shape=arguments["input_shape"],
            classes=arguments["classes"],
            bn_momentum=model.bn_momentum,
            prepare=prepare,
            from_file=model.is_file,
        )
    except UserError:
        raise
    except adoption.UnfitError as error:
        raise UserError(f"{model.name} cannot be trained: {error}") from None
    except Exception as error:  # anything may be wrong in somebody's function
        raise UserError(f"Cannot build {model.name}: {modules.blame(error)}") from None
    if start and start != "imagenet":
        weights_lib.load(ours, weights_lib.Source(pathlib.Path(start)))
    return ours


def _check_weights(name: str, start: str | None) -> None:
    of_keras = name.startswith(APPLICATIONS)
    if start and not start.endswith(".keras") and not (of_keras and start == "imagenet"):
        choices = "imagenet, a run or a .keras file" if of_keras else "a run or a .keras file"
        raise UserError(f"--weights of {name} is {choices}. Received: {start}")


def _made(name: str, arguments: dict[str, Any], start: str | None) -> tuple[Any, Callable]:
    """Returns somebody's network, and what prepares 0..255 images for it."""
    if name.endswith(".keras"):
        return directory.load_network(pathlib.Path(name)), lambda image: image
    if not name.startswith(APPLICATIONS):
        return modules.load(name)(**arguments), lambda image: image
    builder, prepare = application(name)
    arguments = dict(arguments)
    top = Options(classes=arguments.pop("classes"), dropout_rate=arguments.pop("dropout_rate", 0.0))
    imagenet = "imagenet" if start == "imagenet" else None
    network = builder(include_top=False, weights=imagenet, **arguments)
    return keras.Model(network.input, classify(network.output, top)), prepare


def remarks(model: ModelConfig, network: keras.Model) -> list[str]:
    """Returns what is to be said of the pixels that a network sees."""
    if model.has_builder:
        return []
    scales = (keras.layers.Rescaling, keras.layers.Normalization)
    line = f"{model.label} is given RGB pixels of 0 to 255"
    if not any(isinstance(layer, scales) for layer in network.layers):
        line += ". It has no Rescaling or Normalization layer: if it is for others, begin it so"
    return [f"{line}."]


def save(run: pathlib.Path, network: keras.Model) -> None:
    """Notes in the folder of a run what its network is."""
    write_text(run / NAME, _digest(network))


def check(run: pathlib.Path, network: keras.Model, name: str) -> None:
    """Raises UserError if the run in this folder was started with another network."""
    noted = run / NAME
    # Where there is none the run was ended before its first step.
    if noted.is_file() and noted.read_text() != _digest(network):
        raise UserError(
            f"The network {name} has changed since the run {run} was started. Restore it, or start "
            "a new run."
        )


def _digest(network: keras.Model) -> str:
    """Returns what changes with any layer, its configuration or the order, but with no weight."""
    layers = [
        (type(each).__name__, each.get_config() if isinstance(each, keras.layers.Layer) else None)
        for each in network.operations  # such as additions: Keras counts them through a process
    ]
    # By its class only: an object is written with its address.
    text = json.dumps(layers, default=lambda value: type(value).__name__)
    return hashlib.sha256(text.encode()).hexdigest()
