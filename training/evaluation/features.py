"""What a network sees in pictures: its features, each computed once, and what they tell apart."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from keras_lightnets.inference.function import features_function, features_model
from lightnets.data.sources.source import spread
from lightnets.support import console

if TYPE_CHECKING:
    from lightnets.data import Splits
    from lightnets.data.sources.stream import AnySource

# Training images that are looked at for a report: a minute of a run's end.
MOST = 5000
# Images through the network at a time.
BATCH = 32
# Of the probabilities that are estimated without the image itself.
FOLDS = 5
# Dimensions of features that a linear classifier reads: more cost time and tell it little.
_DIMENSIONS = 128


class Known(NamedTuple):
    """Pictures that a network has looked at.

    Attributes:
        source: Where they are.
        features: Of each, float32 `(images, channels)`.
        look: From a few other images `(images, height, width, 3)` to their features.
    """

    source: AnySource
    features: np.ndarray
    look: Callable[[np.ndarray], np.ndarray]


def sample(source: AnySource) -> AnySource:
    """Returns at most `MOST` of the pictures, spread over all."""
    return source.subset(spread(source.count, MOST)) if source.count > MOST else source


def extract(model: keras.Model, splits: Splits, source: AnySource) -> Known:
    """Returns the pooled features of pictures.

    Args:
        model: A classifier of 0..255 images.
        splits: How pictures are prepared.
        source: The pictures.

    Raises:
        ExportError: The model has no classifier on top.
    """
    network, folded = features_model(model), features_function(model)
    batches = dataclasses.replace(splits, eval_source=source).evaluation(BATCH)
    found = _all(
        lambda images: folded(tf.cast(images, tf.float32)).numpy(),
        batches,
        source.count,
        "Looking at pictures",
    )
    # Not `look`: for a few images of any number the graph would take longer than the images.
    return Known(source, found, lambda images: np.asarray(network(images, training=False)))


def pooled(model: keras.Model) -> Callable[[Any], np.ndarray]:
    """Returns what tells the pooled features `(images, channels)` of images for a classifier."""
    return look(features_model(model))


def through(network: keras.Model, batches: tf.data.Dataset, images: int, what: str) -> np.ndarray:
    """Returns what a network makes of images outside training, float32 `(images, ...)`.

    Args:
        network: Takes 0..255 images.
        batches: Of `BATCH` images each, the images first; the last one is filled up.
        images: How many there are.
        what: They are, for a person who waits.
    """
    return _all(look(network), batches, images, what)


def look(network: keras.Model) -> Callable[[Any], np.ndarray]:
    """Returns what tells float32 `(images, ...)` of 0..255 images, outside training."""

    @tf.function(reduce_retracing=True, autograph=False)
    def of(images):
        return tf.cast(network(tf.cast(images, tf.float32), training=False), tf.float32)

    return lambda images: of(images).numpy()


def _all(look: Callable, batches: tf.data.Dataset, images: int, what: str) -> np.ndarray:
    parts = console.bar(batches, what, -(-images // BATCH))
    return np.concatenate([look(part[0]) for part in parts])[:images]


def fingerprint(model: keras.Model) -> str:
    """Returns what changes with any weight of a network."""
    digest = hashlib.sha256()
    for variable in model.weights:  # not the states of dropout, of which each copy has its own
        digest.update(np.ascontiguousarray(variable.numpy()).tobytes())
    return digest.hexdigest()


def nearest(features: np.ndarray, known: np.ndarray, count: int = 1) -> np.ndarray:
    """Returns the places of the `count` most similar rows of `known`, by the cosine.

    Args:
        features: `(images, channels)`.
        known: `(others, channels)`.
        count: At most that many, the most similar first.

    Returns:
        int `(images, count)`.
    """
    return np.argsort(-cosine(features, known), axis=-1, kind="stable")[:, :count]


def cosine(features: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Returns how alike features are, from -1 to 1: `(images, others)`."""
    return _unit(features) @ _unit(known).T


def _unit(features: np.ndarray) -> np.ndarray:
    return features / np.maximum(np.linalg.norm(features, axis=-1, keepdims=True), 1e-12)


def cross_validated(features: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray | None:
    """Returns what a linear classifier that was fitted without an image says of it.

    Args:
        features: `(images, channels)`.
        labels: Class numbers, `(images,)`.
        classes: Of which there may be more than occur.

    Returns:
        Probabilities `(images, classes)`; None where fewer than two classes have two images.
    """
    if np.count_nonzero(np.bincount(labels, minlength=classes) > 1) < 2:
        return None
    random = np.random.default_rng(0)
    fold = np.empty(len(labels), np.int64)
    for label in np.unique(labels):
        members = random.permutation(np.flatnonzero(labels == label))
        fold[members] = np.arange(len(members)) % FOLDS
    probabilities = np.zeros((len(labels), classes))
    for own in np.unique(fold):
        out = fold == own
        classifier = _linear(features[~out], labels[~out])
        probabilities[np.ix_(out, classifier.classes_)] = classifier.predict_proba(features[out])
    return probabilities


def _linear(features: np.ndarray, labels: np.ndarray) -> Any:
    """Returns a fitted classifier."""
    import threadpoolctl
    from sklearn.decomposition import PCA
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    dimensions = min(_DIMENSIONS, *features.shape)
    # The strong regularization keeps a wrong label from being learned by heart.
    regression = LogisticRegression(C=0.01, max_iter=1000)
    # All directions of 1,280 channels took 40 times as long for a hundred images.
    smaller = PCA(dimensions, svd_solver="randomized", random_state=0)
    classifier = make_pipeline(StandardScaler(), smaller, regression)
    # Steps of microseconds: threads that wait for each other took 16 times as long on two cores.
    with threadpoolctl.threadpool_limits(1), np.errstate(invalid="ignore"):  # equal features
        return classifier.fit(features, labels)
