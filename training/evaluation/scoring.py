"""Predictions of held-out images, and numbers of a classifier, the same for every artefact.

Wherever both are given `true` are class numbers `(images,)`, `probabilities` `(images, classes)`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lightnets.support import console

if TYPE_CHECKING:
    from lightnets.data import Splits

# Probabilities below this count as this in the loss, as in Keras.
_EPSILON = 1e-7


class Predictions(NamedTuple):
    """What a network said of images, beside what is right.

    Attributes:
        true: Class numbers, `(images,)`; where an image has several labels or values float32
            `(images, labels)`, NaN where one is not known.
        numbers: Probabilities, scores or values, float32 `(images, labels)`.
        labels: Names, in the order of the last axis.
    """

    true: np.ndarray
    numbers: np.ndarray
    labels: list[str]


def score(true: np.ndarray, probabilities: np.ndarray, top: int = 5) -> dict[str, Any]:
    """Returns `images`, `accuracy`, `top_K_accuracy` and `loss`.

    Args:
        true: What is right.
        probabilities: What was said.
        top: K; an image counts as found if its class is among the K most probable. Cut to the
            number of classes minus one, beyond which it says nothing.
    """
    true = np.asarray(true)
    probabilities = np.asarray(probabilities, dtype=np.float64)
    count, classes = probabilities.shape
    if count == 0:
        raise ValueError("There are no images to score.")
    top = max(1, min(top, classes - 1))
    own = probabilities[np.arange(count), true]
    # The rank by a stable sort: equal probabilities are ordered by class number, as in argmax.
    order = np.argsort(-probabilities, axis=-1, kind="stable")[:, :top]
    results = {
        "images": count,
        "accuracy": float(np.mean(order[:, 0] == true)),
        "loss": float(np.mean(-np.log(np.clip(own, _EPSILON, 1.0)))),
    }
    if top > 1:
        results[f"top_{top}_accuracy"] = float(np.mean((order == true[:, None]).any(axis=-1)))
    return results


def mistakes(true: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Returns the places of wrong answers, the most certain first."""
    wrong = np.flatnonzero(probabilities.argmax(-1) != true)
    return wrong[np.argsort(-probabilities[wrong].max(-1), kind="stable")]


def rivals(true: np.ndarray, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns for each image the most probable class but its own, and the margin over it.

    The margin is what the own class has more than that one, in -1..1; both are `(images,)`.
    """
    images = np.arange(len(true))
    others = probabilities.copy()
    others[images, true] = -1.0
    return others.argmax(-1), probabilities[images, true] - others.max(-1)


def calibration(
    true: np.ndarray, probabilities: np.ndarray, bins: int = 10
) -> tuple[float, list[tuple[float, float, int]]]:
    """Returns how far the probabilities of answers are from the share of right ones.

    That is the expected calibration error (C. Guo et al., 2017); and of each of the `bins` equal
    ranges in which there are answers their mean probability, the share of right ones, and how many
    they are.
    """
    said, sure = probabilities.argmax(-1), probabilities.max(-1)
    own = np.minimum((sure * bins).astype(int), bins - 1)
    rows = [
        (
            float(sure[own == k].mean()),
            float((said == true)[own == k].mean()),
            int(np.sum(own == k)),
        )
        for k in np.unique(own)
    ]
    error = sum(images * abs(sure - right) for sure, right, images in rows) / len(true)
    return error, rows


def largest_class(true: np.ndarray) -> tuple[int, float]:
    """Returns the class with the most images, and their share: what to answer it always gives."""
    counts = np.bincount(true)
    return int(counts.argmax()), float(counts.max() / len(true))


def named(results: Mapping[str, Any]) -> dict[str, float]:
    """Returns the measured numbers among results, by names for a person."""
    return {key.replace("_", " "): v for key, v in results.items() if isinstance(v, float)}


def guessing_loss(shares: np.ndarray, smoothing: float = 0.0) -> float:
    """Returns the least cross-entropy of an answer that is the same for every image.

    Args:
        shares: Of the classes in the images, `(classes,)`, summing to 1.
        smoothing: `train.label_smoothing`.
    """
    mean = (1.0 - smoothing) * shares + smoothing / len(shares)
    return float(-np.sum(mean * np.log(np.maximum(mean, _EPSILON))))


def predict_split(
    predict: Callable[[np.ndarray], np.ndarray],
    splits: Splits,
    batch_size: int,
    *,
    dense: bool = False,
) -> Predictions:
    """Runs `predict` over the held-out images.

    Args:
        predict: uint8 images `(batch, height, width, 3)` to probabilities `(batch, classes)`.
        splits: The data; only `evaluation` is used.
        batch_size: Images in one call of `predict`; the last call has the rest.
        dense: Whether labels are returned as they are, instead of class numbers.
    """
    true, probabilities = [], []
    batches = splits.evaluation(batch_size)
    steps = -(-splits.eval_examples // batch_size)
    for images, labels, weights in console.bar(batches, "Evaluating", steps):
        real = weights.numpy() > 0
        known = labels.numpy()[real]
        true.append(known if dense else known.argmax(-1))
        probabilities.append(predict(images.numpy()[real]))
    numbers = np.concatenate(probabilities).astype(np.float32)
    return Predictions(np.concatenate(true), numbers, splits.labels)
