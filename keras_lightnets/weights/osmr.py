"""Reads osmr's `.tf2.h5` files (tf2cv; the only public ShuffleNet v1 for all groups).

They hold two groups, `features` and `output1`. Within a group the trainable tensors of all
layers come first, then the moving statistics of all layers. The names in front of the last
part differ from file to file, so tensors are taken by order, and checked by shape.
"""

from __future__ import annotations

import pathlib
from collections.abc import Iterator

import keras
import numpy as np

from keras_lightnets.weights import keras_h5
from keras_lightnets.weights.convert import layer_names
from keras_lightnets.weights.downloads import read_bytes
from keras_lightnets.weights.files import ERRORS

_TO_PYTORCH = {"kernel": (3, 2, 0, 1), "depthwise_kernel": (2, 3, 0, 1)}


def read(path: pathlib.Path, model: keras.Model, most: int) -> dict[str, np.ndarray]:
    """Reads the file for `model` as a state dict with pytorchcv's names and layouts.

    Raises:
        ValueError: If the file is damaged or has more or fewer tensors than the network.
    """
    try:
        tensors = [row[1:] for row in keras_h5.tensors(read_bytes(path, most), most)]
    except ERRORS as error:
        raise ValueError(
            f"{path} cannot be read as osmr's .tf2.h5 ({error}). It may be truncated or of "
            "another format: get it again."
        ) from error
    moving = iter([t for t in tensors if t[0].startswith("moving_")])
    trainable = _Peekable([t for t in tensors if not t[0].startswith("moving_")])
    groups = {layer.name: getattr(layer, "groups", 1) for layer in model.layers}
    state = {}
    try:
        for layer, module in layer_names(model, "pytorchcv").items():
            if layer.endswith("_bn"):
                state[f"{module}.weight"] = trainable.take("gamma")
                state[f"{module}.bias"] = trainable.take("beta")
                state[f"{module}.running_mean"] = next(moving)[1]
                state[f"{module}.running_var"] = next(moving)[1]
                continue
            kernel = "depthwise_kernel" if trainable.peek() == "depthwise_kernel" else "kernel"
            parts = [trainable.take(kernel) for _ in range(groups.get(layer, 1))]
            array = np.concatenate(parts, axis=-1) if len(parts) > 1 else parts[0]
            axes = _TO_PYTORCH[kernel] if array.ndim == 4 else (1, 0)
            state[f"{module}.weight"] = array.transpose(axes)
            if trainable.peek() == "bias":
                state[f"{module}.bias"] = trainable.take("bias")
        if trainable.peek() is not None or next(moving, None) is not None:
            raise StopIteration
    except StopIteration:
        raise ValueError(
            f"{path} holds the tensors of another network than model {model.name!r}."
        ) from None
    return state


class _Peekable:
    """Tensors in order, each asked for by the last part of its name."""

    def __init__(self, tensors: list[tuple[str, np.ndarray]]) -> None:
        self._rest: Iterator[tuple[str, np.ndarray]] = iter(tensors)
        self._next = next(self._rest, None)

    def peek(self) -> str | None:
        return None if self._next is None else self._next[0]

    def take(self, name: str) -> np.ndarray:
        """Raises StopIteration if the next tensor is not a `name`."""
        if self._next is None or self._next[0] != name:
            raise StopIteration
        array = self._next[1]
        self._next = next(self._rest, None)
        return array
