"""What the numbers of a network mean: one class of several, labels of which any may hold, values.

A model keeps it in its `notes` as `task`, a version in `metadata.json`; else it is a classifier.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from keras_lightnets.errors import ExportError, ParityError
from keras_lightnets.export import model_card
from keras_lightnets.export.model_card import Card
from keras_lightnets.intervals import of_mean


class Classification:
    """Probabilities of classes, which sum to 1.

    Attributes:
        name: Of the task.
        output: Name of the numbers in the answers of a served model.
        number: What one of them is called.
        text: What all of them are.
        verb: What a network does.
        said: What numbers are reduced to: the name of that, and of how often two networks agree.
        lacks: Formats and options of an export that mean nothing to it.
    """

    name, output, number = "classification", "probabilities", "probability"
    said = "top-1", "top1_agreement"
    text = "Probabilities in the order of the class names."
    verb = "classifies images into {} classes."
    lacks: frozenset[str] = frozenset()

    def about(self) -> dict[str, Any]:
        """Returns what `of` makes the task of, for files."""
        return {}

    def check(self, wanted: Sequence[str]) -> None:
        """Raises ExportError if a format or option is none for this task."""
        for one in wanted:
            if one in self.lacks:
                raise ExportError(f"{one!r} is for classification, not for {self.name}.")

    def answer(self, numbers: tf.Tensor, labels: Sequence[str], top_k: int) -> dict[str, tf.Tensor]:
        """Returns the outputs of a signature.

        Args:
            numbers: Of the network, float32 `(batch, labels)`.
            labels: Their names.
            top_k: How many classes are named.
        """
        scores, indices = tf.math.top_k(numbers, top_k)
        # A constant instead of a lookup table: nothing to initialize, no asset to resolve.
        names = tf.constant(labels, tf.string)
        classes = tf.gather(names, indices)
        return {"probabilities": numbers, "classes": classes, "scores": scores}

    def tolerance(self, share: float) -> float | list[float]:
        """Returns what a share of the range of the numbers is; a list: of each."""
        return share

    def compare(
        self,
        where: str,
        expected: np.ndarray,
        received: np.ndarray,
        true: np.ndarray | None,
        max_accuracy_drop: float | None,
        tolerance: float,
    ) -> dict[str, Any]:
        """Compares the numbers of an export with those of the Keras model.

        Args:
            where: The export, for a message.
            expected: Of the Keras model, `(images, labels)`.
            received: Of the export.
            true: The right answers; None: nobody knows them.
            max_accuracy_drop: None: it must answer as the Keras model, within `tolerance`. A
                number: for rounded weights, how much worse it may answer.
            tolerance: Largest difference of two probabilities.

        Raises:
            ParityError: They differ by more than allowed.
        """
        difference = _difference(where, self.output, expected, received)
        own, other = self.decided(expected), self.decided(received)
        agreement = float(np.mean((own == other) | self.tied(expected, other, tolerance)))
        name, key = self.said
        result: dict[str, Any] = {"images": len(own), "max_difference": difference, key: agreement}
        if true is not None:
            known = ~np.isnan(true)
            result["accuracy"] = float(np.mean((other == true)[known]))
            result["keras_accuracy"] = float(np.mean((own == true)[known]))
        if max_accuracy_drop is None:
            if agreement < 1 or result["max_difference"] > tolerance:
                raise ParityError(
                    f"{where}: the export differs from the Keras model: {name} agreement "
                    f"{agreement:.4f} (must be 1), largest difference of a probability "
                    f"{difference:.2e} (at most {tolerance:.0e})."
                )
            return result
        drop = 1 - agreement if true is None else result["keras_accuracy"] - result["accuracy"]
        if drop > max_accuracy_drop:
            what = f"{name} agreement" if true is None else "accuracy"
            raise ParityError(
                f"{where}: {what} falls by {drop:.4f}, more than the {max_accuracy_drop} allowed."
            )
        return result | {"accuracy_drop": drop}

    def decided(self, numbers: np.ndarray) -> np.ndarray:
        """Returns what numbers `(images, labels)` say: the class, or which labels hold."""
        return numbers.argmax(-1)

    def tied(self, expected: np.ndarray, other: np.ndarray, tolerance: float) -> np.ndarray:
        """Returns where rounding may decide between `expected` and what `other` says."""
        rows = np.arange(len(other))
        return expected.max(-1) - expected[rows, other] <= 2 * tolerance

    def card(self, *arguments: Any) -> Card:
        """Returns what the model card says; see `model_card.of_classes`."""
        return model_card.of_classes(*arguments)


_INT8 = ("int8", "litert-int8", "onnx-int8", "openvino-int8")


@dataclass(frozen=True)
class MultiLabel(Classification):
    """A score from 0 to 1 for each label, by itself; at its threshold or above, it holds."""

    thresholds: Sequence[float]

    name, output, number = "multi-label", "scores", "score"
    said = "labels", "label_agreement"
    text = "A score from 0 to 1 for each label, in their order."
    verb = "says which of {} labels an image has."
    lacks = frozenset({"web", "rejection", *_INT8})

    def about(self) -> dict[str, Any]:
        return {"name": self.name, "thresholds": list(self.thresholds)}

    def decided(self, numbers: np.ndarray) -> np.ndarray:
        return numbers >= np.array(self.thresholds, np.float32)

    def tied(self, expected: np.ndarray, other: np.ndarray, tolerance: float) -> np.ndarray:
        return abs(expected - np.array(self.thresholds, np.float32)) <= tolerance

    def answer(self, numbers: tf.Tensor, labels: Sequence[str], top_k: int) -> dict[str, tf.Tensor]:
        names = tf.broadcast_to(tf.constant(labels, tf.string), tf.shape(numbers))
        present = numbers >= tf.constant(self.thresholds, tf.float32)
        return {"names": names, "scores": numbers, "present": present}

    def card(
        self,
        labels: Sequence[str],
        true: np.ndarray | None,
        numbers: np.ndarray,
        chose: bool,
        rejection: Any,
    ) -> Card:
        rows = []
        true = np.empty((0, len(labels))) if true is None else true
        for k, name in enumerate(labels) if len(true) else ():
            known = ~np.isnan(true[:, k])
            right, said = true[known, k] == 1, self.decided(numbers)[known, k]
            shares = [f"{np.sum(right & said) / max(n.sum(), 1):.3f}" for n in (said, right)]
            rows.append([name, f"{self.thresholds[k]:.3f}", *shares, int(right.sum()), len(right)])
        header = ("label", "threshold", "precision", "recall", "images with it", "of")
        also = "Held-out images also chose the thresholds, and the best epoch."
        return Card(
            f"Says which of {len(labels)} labels an image has",
            "a score from 0 to 1 for each label. It holds from its threshold on. All may hold, or "
            "none",
            model_card.table(header, rows) + also * chose if rows else "",
            "Labels that few images have are measured badly.",
        )


@dataclass(frozen=True)
class Regression(Classification):
    """Numbers in the user's units.

    Attributes:
        mean: Of each in training.
        std: Its standard deviation there.
        loss: "mse" or "huber".
    """

    mean: Sequence[float]
    std: Sequence[float]
    loss: str = "mse"

    name, output, number = "regression", "values", "value"
    text = "Values in the order of their names."
    verb = "reads {} values from an image."
    lacks = MultiLabel.lacks

    def about(self) -> dict[str, Any]:
        numbers = {"mean": list(self.mean), "std": list(self.std)}
        return {"name": self.name, **numbers, "loss": self.loss}

    def answer(self, numbers: tf.Tensor, labels: Sequence[str], top_k: int) -> dict[str, tf.Tensor]:
        names = tf.broadcast_to(tf.constant(labels, tf.string), tf.shape(numbers))
        return {"names": names, "values": numbers}

    def tolerance(self, share: float) -> float | list[float]:
        return [share * std for std in self.std]

    def compare(
        self,
        where: str,
        expected: np.ndarray,
        received: np.ndarray,
        true: np.ndarray | None,
        max_accuracy_drop: float | None,
        tolerance: float,
    ) -> dict[str, Any]:
        std = np.array(self.std)
        largest = _difference(where, self.output, expected / std, received / std)
        result: dict[str, Any] = {"images": len(expected), "max_difference": largest}
        # No softmax damps the rounding of the last sums.
        what, found, allowed = "values differ from the Keras model's by", largest, 10 * tolerance
        if max_accuracy_drop is not None:
            what, found = "the mean difference is", float(np.mean(abs(expected - received) / std))
            allowed = max_accuracy_drop
        if true is not None:
            own, other = abs(expected - true), abs(received - true)
            result |= {"mae": float(np.mean(other)), "keras_mae": float(np.mean(own))}
            if max_accuracy_drop is not None:
                what, found = "the mean error rises by", float(np.mean((other - own) / std))
        if found > allowed:
            raise ParityError(
                f"{where}: {what} {found:.2e} standard deviations (at most {allowed:g})."
            )
        return result

    def card(
        self,
        labels: Sequence[str],
        true: np.ndarray | None,
        numbers: np.ndarray,
        chose: bool,
        rejection: Any,
    ) -> Card:
        rows = []
        true = np.empty((0, len(labels))) if true is None else true
        for k, name in enumerate(labels) if len(true) else ():
            mean, low, high = of_mean(abs(true[:, k] - numbers[:, k]))
            deviation = f"{self.std[k]:.4g}"
            rows.append([name, f"{mean:.4g}", f"{low:.4g} to {high:.4g}", deviation, len(true)])
        header = ("value", "mean error", "95 % interval", "standard deviation", "images")
        also = " They also chose the best epoch: errors are a little too low."
        return Card(
            f"Reads {len(labels)} values from an image",
            "numbers in the units of its data",
            model_card.table(header, rows) + also * chose if rows else "",
            "Values outside those of the data were never seen in training.",
        )


CLASSIFICATION = Classification()


def of(about: Mapping[str, Any] | None) -> Classification:
    """Returns the task that `about` describes, as `notes` and `metadata.json` hold it."""
    values = dict(about or {})
    kinds = {kind.name: kind for kind in (MultiLabel, Regression)}
    return kinds[values.pop("name")](**values) if values else CLASSIFICATION


def _difference(where: str, what: str, expected: np.ndarray, received: np.ndarray) -> float:
    """Returns the largest difference; raises ParityError if they cannot be compared."""
    if expected.shape != received.shape:
        raise ParityError(f"{where}: {what} {received.shape} instead of {expected.shape}.")
    if not np.isfinite(received).all():
        raise ParityError(f"{where}: {what} that are not finite.")
    return float(np.max(np.abs(expected - received), initial=0.0))
