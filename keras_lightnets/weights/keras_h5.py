"""Reads the HDF5 files of Keras 2, which `keras.applications` still publishes.

A group a layer, in the order of the layers, each with the names of its arrays in their order.
"""

from __future__ import annotations

import io
import pathlib
from collections.abc import Iterator

import h5py
import keras
import numpy as np

from keras_lightnets.weights.convert import HEAD_PREFIXES
from keras_lightnets.weights.files import ERRORS, check_hdf5

_PARTS = {
    "kernel": "weight",
    "depthwise_kernel": "weight",
    "bias": "bias",
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}


def read(path: pathlib.Path, model: keras.Model, most: int) -> dict[str, np.ndarray]:
    """Reads a file of `keras.applications` for the same network of this package.

    As Keras does, it goes by the order of the layers: their names have changed over the years.

    Returns:
        Tensors by our layers' names, in Keras' layouts.

    Raises:
        ValueError: If the file is damaged or has more or fewer layers than the network.
    """
    try:
        layers = {}
        for layer, name, array in tensors(path.read_bytes(), most):
            layers.setdefault(layer, {})[_PARTS[name]] = array
    except ERRORS as error:
        raise ValueError(
            f"{path} cannot be read as an .h5 file of keras.applications ({error}). It may be "
            "truncated or of another format: get it again."
        ) from error
    ours = [layer.name for layer in model.layers if layer.weights]
    # A network without top has fewer layers than a file with one.
    headless = not any(name.startswith(HEAD_PREFIXES) for name in ours)
    if len(ours) != len(layers) and not (headless and len(ours) < len(layers)):
        raise ValueError(
            f"{path} holds the weights of another network than model {model.name!r}: "
            f"{len(layers)} layers instead of {len(ours)}."
        )
    return {
        f"{name}.{part}": array
        for name, parts in zip(ours, layers.values(), strict=False)
        for part, array in parts.items()
    }


def tensors(content: bytes, most: int) -> Iterator[tuple[str, str, np.ndarray]]:
    """Yields layer, last part of the name, and value of every array, in the file's order."""
    with h5py.File(io.BytesIO(content), "r") as file:
        check_hdf5(file, most)
        root = file.get("model_weights", file)  # a whole model, or its weights
        for layer in map(_text, root.attrs["layer_names"]):
            group = root[layer]
            for name in map(_text, group.attrs["weight_names"]):
                yield layer, name.rpartition("/")[2].partition(":")[0], np.asarray(group[name])


def _text(name: str | bytes) -> str:
    return name.decode() if isinstance(name, bytes) else name
