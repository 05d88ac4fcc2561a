"""Images of none of the classes: calibrated probabilities, and whether an image is known at all.

A classifier gives every image one of its classes. An image is taken for known if its pooled
features point nearly the way of those of some class in training.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from keras_lightnets.inference.function import features_model

_TINY = 1e-30


@dataclasses.dataclass(frozen=True)
class Rejection:
    """What a classifier needs to reject images; `fit` finds it.

    Attributes:
        temperature: That logits are divided by (C. Guo et al., 2017).
        center: Mean features of training images, `(channels,)`.
        directions: From there to the mean of each class, unit vectors `(classes, channels)`.
        threshold: Cosine distance to the nearest of `directions` below which an image is known.
        about: What was measured, for `metadata.json`.
    """

    temperature: float
    center: np.ndarray
    directions: np.ndarray
    threshold: float
    about: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def calibrated(self, probabilities: np.ndarray) -> np.ndarray:
        """Returns probabilities `(images, classes)` at the temperature."""
        logits = np.log(np.maximum(probabilities, _TINY)) / self.temperature
        shares = np.exp(logits - logits.max(-1, keepdims=True))
        return shares / shares.sum(-1, keepdims=True)

    def distances(self, features: np.ndarray) -> np.ndarray:
        """Returns the cosine distance to the nearest class, `(images,)`, of pooled features."""
        return 1 - (_unit(features - self.center) @ self.directions.T).max(-1)


def fit(
    features: np.ndarray,
    labels: np.ndarray,
    held_out: np.ndarray,
    held_out_labels: np.ndarray,
    probabilities: np.ndarray,
    coverage: float,
) -> Rejection:
    """Returns the rule that features of a network's images give.

    Args:
        features: Of training images, `(images, channels)`.
        labels: Their class numbers, `(images,)`.
        held_out: Features of held-out images, at least `least_images(coverage)`.
        held_out_labels: Their class numbers.
        probabilities: Of the held-out images, `(images, classes)`.
        coverage: The share of images of the classes that stay known, between 0 and 1.
    """
    features = np.asarray(features, np.float64)
    center = features.mean(0)
    means = np.stack([features[labels == label].mean(0) for label in np.unique(labels)])
    rule = Rejection(
        temperature=temperature(held_out_labels, probabilities),
        center=center,
        directions=_unit(means - center),
        threshold=np.inf,
    )
    return dataclasses.replace(rule, threshold=threshold(rule.distances(held_out), coverage))


def rejecting(model: keras.Model, rejection: Rejection | None) -> keras.Model:
    """Returns a classifier that also tells known images, in layers of Keras alone.

    Args:
        model: From images to probabilities `(batch, classes)`.
        rejection: None: the model stays as it is.

    Returns:
        A model with the outputs `probabilities`, calibrated, and `known`, float32 `(batch, 1)`,
        1 for known images and 0 for others.

    Raises:
        ExportError: The model has no classifier on pooled features.
    """
    if rejection is None:
        return model
    ops, rule = keras.ops, rejection
    (features,) = features_model(model).outputs
    offset = keras.layers.Rescaling(
        1.0, (-rule.center).tolist(), dtype="float32", name="known_center"
    )
    x = offset(features)
    classes = len(rule.directions)
    along = keras.layers.Dense(classes, use_bias=False, dtype="float32", name="known_directions")
    nearest = ops.max(along(x), axis=-1, keepdims=True)
    along.set_weights([rule.directions.T])
    length = ops.sqrt(ops.sum(ops.square(x), axis=-1, keepdims=True))
    logits = ops.log(ops.maximum(model.outputs[0], _TINY)) / rule.temperature
    outputs = {
        "probabilities": ops.softmax(logits),
        "known": ops.cast(ops.greater(nearest, (1 - rule.threshold) * length), "float32"),
    }
    return keras.Model(model.inputs[0], outputs, name=model.name)


def least_images(coverage: float) -> int:
    """Returns how many held-out images a threshold for `coverage` needs."""
    return math.ceil(coverage / (1 - coverage) - 1e-9)


def threshold(distances: np.ndarray, coverage: float) -> float:
    """Returns the distance up to which at least a share of images like these lie, on average.

    One of `n` images is skipped for the image that is to come (split conformal prediction). It
    lies between two distances, so that none of these images is a matter of rounding.

    Args:
        distances: Of held-out images, at least `least_images(coverage)`.
        coverage: The share, from 0 to 1.
    """
    distances = np.sort(distances)
    last = math.ceil((len(distances) + 1) * coverage - 1e-9)
    following = distances[last] if last < len(distances) else 1.1 * distances[-1]
    return float((distances[last - 1] + following) / 2)


def temperature(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Returns the temperature at which held-out images are most likely.

    Args:
        labels: Class numbers, `(images,)`.
        probabilities: `(images, classes)`.
    """
    from scipy.optimize import minimize_scalar

    count, classes = probabilities.shape
    logits = np.log(np.maximum(probabilities, _TINY))
    # As in Platt's scaling: n images, all of them right, do not make a network certain.
    targets = np.full((count, classes), 1 / (count + 2) / classes)
    targets[np.arange(count), labels] += 1 - 1 / (count + 2)

    def loss(log_temperature: float) -> float:
        scaled = logits / math.exp(log_temperature)
        scaled -= scaled.max(-1, keepdims=True)
        return float(np.mean(np.log(np.exp(scaled).sum(-1)) - (targets * scaled).sum(-1)))

    return math.exp(minimize_scalar(loss, bounds=(-3, 3), method="bounded").x)


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), _TINY)
