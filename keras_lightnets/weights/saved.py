"""Loads files that Keras wrote: `.keras` (a model) and `.weights.h5`."""

from __future__ import annotations

import io
import pathlib
import warnings
import zipfile
from typing import Any

import h5py
import keras

from keras_lightnets.text import first_line, listed
from keras_lightnets.weights.convert import (
    HEAD_PREFIXES,
    head_layers,
    warn_about_head,
)
from keras_lightnets.weights.files import ERRORS, check_hdf5, read_member


def load(model: keras.Model, path: pathlib.Path, most: int) -> bool:
    """Copies the weights by layer name; the classifier only if its classes are as many.

    Returns:
        Whether the classifier, if the model has one, was loaded too.

    Raises:
        ValueError: If the file is damaged, or of another network.
    """
    try:
        content: Any = path
        if path.suffix == ".keras":
            with zipfile.ZipFile(path) as archive:
                content = io.BytesIO(read_member(archive, "model.weights.h5", most))
        with h5py.File(content, "r") as file:
            check_hdf5(file, most)
        if path.suffix == ".keras":
            donor = keras.saving.load_model(path, compile=False)
        else:
            donor = _with_classes(model, _stored_classes(model, path))
            with warnings.catch_warnings():
                # Keras warns a hundred times before it raises.
                warnings.simplefilter("ignore", UserWarning)
                donor.load_weights(path)
    except ERRORS as error:
        raise ValueError(
            f"{path} cannot be loaded ({first_line(error)}). It may be truncated, of another "
            "format or of another network."
        ) from error
    return donor is model or copy(donor, model, str(path))


def copy(donor: keras.Model, model: keras.Model, origin: str) -> bool:
    """Copies variables between models by layer name, strictly but for the classifier.

    Returns:
        Whether the classifier, if the model has one, was copied too.

    Raises:
        ValueError: Lists the layers that do not match.
    """
    ours, theirs = _layers(model), _layers(donor)
    head = {layer.name for layer in head_layers(model)}
    problems = [f"missing: {name}" for name in ours if name not in theirs]
    problems += [
        f"left over: {name}"
        for name in theirs
        if name not in ours and not name.startswith(HEAD_PREFIXES)
    ]
    complete = True
    matching = []
    for name in ours.keys() & theirs.keys():
        shapes = [[tuple(w.shape) for w in layers[name].weights] for layers in (ours, theirs)]
        if shapes[0] == shapes[1]:
            matching.append(name)
        elif name in head and [s[:-1] for s in shapes[0]] == [s[:-1] for s in shapes[1]]:
            complete = False
        else:
            problems.append(f"{name}: {shapes[1]}, but the model has {shapes[0]}")
    if problems:
        raise ValueError(
            f"{origin} holds the weights of another network than model {model.name!r}: "
            f"{listed(sorted(problems))}"
        )
    for name in matching:
        for variable, value in zip(ours[name].weights, theirs[name].weights, strict=True):
            variable.assign(value)
    if not complete:
        warn_about_head(model)
    return complete


def _layers(model: keras.Model) -> dict[str, keras.layers.Layer]:
    """Layers with weights by name, those of inner models too: a network behind augmentation."""
    layers = model._flatten_layers(include_self=False)
    return {x.name: x for x in layers if x.weights and not isinstance(x, keras.Model)}


def _stored_classes(model: keras.Model, path: pathlib.Path) -> int | None:
    """Number of classes in a `.weights.h5` file; None if it has no classifier like ours."""
    head = head_layers(model)
    if not head:
        return None
    kind = type(head[0])
    earlier = [layer for layer in model.layers if type(layer) is kind]
    number = earlier.index(head[0])
    # Keras counts the layers of each class.
    group = f"layers/{kind.__name__.lower()}{f'_{number}' if number else ''}/vars/1"
    with h5py.File(path, "r") as file:
        return file[group].shape[0] if group in file else None


def _with_classes(model: keras.Model, classes: int | None) -> keras.Model:
    """The model itself, or one like it with another number of classes."""
    head = head_layers(model)
    if classes is None or classes == head[0].weights[-1].shape[0]:
        return model
    config = model.get_config()
    for layer in config["layers"]:
        if layer["name"] == head[0].name:
            size = "units" if "units" in layer["config"] else "filters"
            layer["config"][size] = classes
    return keras.Model.from_config(config)
