"""Where in a picture a network saw a class: class activation maps (B. Zhou et al., 2016)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from PIL import Image

POOLING = keras.layers.GlobalAveragePooling2D


def maps(model: keras.Model) -> Callable[[np.ndarray, np.ndarray], np.ndarray] | None:
    """Returns a function of images and class numbers to maps.

    Exact: with the bias of the class, the mean of a map is the logit.

    Args:
        model: From 0..255 images to classes.

    Returns:
        `(images, height, width, 3)` and `(images,)` to float `(images, rows, columns)`; None if
        the network does not end in global mean pooling and at most one linear layer.
    """
    # Behind the classifier of a quantized network stands what rounds, which has weights, too.
    top: Any = next((layer for layer in reversed(model.layers) if hasattr(layer, "kernel")), None)
    kernel = np.asarray(top.kernel) if isinstance(top, keras.layers.Dense) else None
    # Where the classes were there before the pooling, it is the last one.
    pooling: Any = next((one for one in reversed(model.layers) if isinstance(one, POOLING)), None)
    if kernel is not None:
        pooled = keras.tree.flatten(top.input)[0]  # a quantized one has its step, too
        while isinstance(_maker(pooled), keras.layers.Dropout):
            pooled = _maker(pooled).input
        pooling = _maker(pooled)
    if not isinstance(pooling, POOLING):
        return None
    if kernel is None and pooling.input.shape[-1] != model.output_shape[-1]:
        return None
    network = keras.Model(model.inputs[0], pooling.input)

    def of(images: np.ndarray, classes: np.ndarray) -> np.ndarray:
        found = np.asarray(network(images.astype(np.float32), training=False), np.float32)
        if kernel is None:
            return found[np.arange(len(found)), :, :, classes]
        return np.einsum("nhwk,kn->nhw", found, kernel[:, classes])

    return of


def overlay(pixels: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Returns a picture that is red where its map is high.

    Args:
        pixels: uint8 `(height, width, 3)`.
        found: `(rows, columns)`.
    """
    shares = np.maximum(found, 0) / max(float(found.max()), 1e-12)
    size = pixels.shape[1::-1]
    shares = Image.fromarray(np.uint8(255 * shares)).resize(size, Image.Resampling.BILINEAR)
    red = 0.6 * np.asarray(shares, np.float32)[..., None] / 255
    grey = pixels.mean(-1, keepdims=True)
    return ((1 - red) * grey + red * np.array([255, 0, 0])).astype(np.uint8)


def _maker(tensor: keras.KerasTensor) -> Any:
    return tensor._keras_history.operation
