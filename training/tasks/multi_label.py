"""Any of several labels for each image; where one is not known, it is NaN and does not count."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from lightnets.evaluation.advice import FEW_HELD_OUT
from lightnets.support.words import count as counted
from lightnets.support.words import some
from lightnets.tasks.task import Rows, Shown, Task

if TYPE_CHECKING:
    import keras

    from lightnets.config.keys import Config
    from lightnets.data import Splits
    from lightnets.evaluation.scoring import Predictions

# Scores closer to 0 and 1 count as this in the loss, as in Keras.
_EPSILON = 1e-7


@dataclass(frozen=True)
class MultiLabel(Task):
    """A score from 0 to 1 for each label; from `thresholds` on it holds."""

    thresholds: Sequence[float]

    name, main, table = "multi-label", "mean_average_precision", "per_label"
    columns: ClassVar[dict[str, str]] = {"accuracy": "acc", "val_mean_average_precision": "val_map"}

    @classmethod
    def begin(cls, config: Config, labels: Callable[[], np.ndarray], count: int) -> MultiLabel:
        return cls((0.5,) * count)

    def about(self) -> dict[str, Any]:
        return {"name": self.name, "thresholds": list(self.thresholds)}

    def finish(self, network: keras.Model) -> keras.Model:
        import keras

        from keras_lightnets.networks.classifier import logits_model

        end = keras.layers.Activation("sigmoid", dtype="float32", name="predictions")
        return keras.Model(network.input, end(logits_model(network).outputs[0]), name=network.name)

    def judge(self, labels: Any, logits: Any) -> tuple[Any, Any]:
        import tensorflow as tf

        known = tf.logical_not(tf.math.is_nan(labels))
        target = tf.where(known, labels, 0.0)
        losses = tf.nn.sigmoid_cross_entropy_with_logits(target, logits)
        right = tf.equal(logits > 0, target > 0.5)
        share = tf.cast(known, tf.float32)
        # What an image counts is the share of its labels that is known, so each label counts alike.
        share /= tf.maximum(tf.reduce_sum(share, -1, keepdims=True), 1.0)
        hits = tf.reduce_sum(share * tf.cast(right, tf.float32), -1)
        return tf.reduce_sum(share * losses, -1), hits

    def fitted(self, found: Predictions) -> MultiLabel:
        return MultiLabel(tuple(map(_threshold, found.true.T, found.numbers.T)))

    def score(self, found: Predictions, top: int = 5) -> dict[str, Any]:
        true, numbers, _ = found
        measured = [row for row in self.rows(found) if row["images"]]
        known = ~np.isnan(true)
        right, said = (true == 1)[known], self.present(numbers)[known]
        sure = np.clip(numbers[known].astype(np.float64), _EPSILON, 1 - _EPSILON)

        def mean(key: str) -> float:
            return float(np.mean([row[key] for row in measured])) if measured else 0.0

        return {
            "images": len(true),
            "mean_average_precision": mean("average_precision"),
            "macro_f1": mean("f1"),
            "micro_f1": _f1(right, said),
            "loss": float(np.mean(-np.log(np.where(right, sure, 1 - sure)))),
        }

    def guessing(self, true: np.ndarray, count: int, config: Config | None = None) -> float:
        known = (~np.isnan(true)).sum(0)
        shares = np.nansum(true, 0) / np.maximum(known, 1)
        shares = np.clip(shares, _EPSILON, 1 - _EPSILON)
        losses = -shares * np.log(shares) - (1 - shares) * np.log(1 - shares)
        return float(np.average(losses, weights=known))

    def present(self, numbers: np.ndarray) -> np.ndarray:
        """Returns which labels hold, bool, of the shape of `numbers`."""
        return numbers >= np.array(self.thresholds, np.float32)

    def rows(self, found: Predictions) -> Rows:
        from sklearn.metrics import average_precision_score

        rows, (true, numbers, labels) = [], found
        for k, label in enumerate(labels):
            known = ~np.isnan(true[:, k])
            right, said = true[known, k] == 1, self.present(numbers)[known, k]
            both = int(np.sum(right & said))
            area = average_precision_score(right, numbers[known, k]) if right.any() else 0.0
            rows.append(
                {
                    "label": label,
                    "threshold": float(self.thresholds[k]),
                    "average_precision": float(area),
                    "precision": both / max(int(said.sum()), 1),
                    "recall": both / max(int(right.sum()), 1),
                    "f1": _f1(right, said),
                    "images": int(right.sum()),
                    "known": len(right),
                }
            )
        return rows

    def advice(
        self, splits: Splits, history: Sequence[Mapping[str, float]], found: Predictions
    ) -> Iterator[str]:
        held_out = np.nansum(found.true, 0)
        few = [name for name, n in zip(found.labels, held_out, strict=True) if n < FEW_HELD_OUT]
        if few:
            yield (
                f"Fewer than {FEW_HELD_OUT} held-out images have {some(few)}: the numbers say "
                "little."
            )

    def errors(self, found: Predictions) -> np.ndarray:
        true, numbers, _ = found
        known = ~np.isnan(true)
        wrong = (self.present(numbers) != (true == 1)) & known
        return np.where(wrong, abs(numbers - np.nan_to_num(true)) + 1, 0).sum(-1)

    def words(self, found: Predictions, image: int) -> str:
        scores, labels = found.numbers[image], found.labels
        right = [name for name, one in zip(labels, found.true[image], strict=True) if one == 1]
        said = [f"{labels[int(k)]} {scores[k]:.2f}" for k in np.flatnonzero(self.present(scores))]
        return f"has {_joined(right)}; answered: {_joined(said)}"

    def listed(self, found: Predictions) -> tuple[list[str], Iterable[Sequence[Any]]]:
        true, numbers, labels = found
        present = self.present(numbers)

        def named(row: np.ndarray) -> str:
            return ";".join(labels[int(k)] for k in np.flatnonzero(row))

        cells = (
            (named(right == 1), named(said), *(f"{score:.6f}" for score in scores))
            for right, said, scores in zip(true, present, numbers, strict=True)
        )
        return ["true", "predicted", *(f"score {name}" for name in labels)], cells

    def headline(self, results: Mapping[str, Any], rows: Rows, *, chose: bool) -> Iterator[str]:
        yield (
            f"Mean average precision on {counted(results['images'], 'held-out image')}: "
            f"{results['mean_average_precision']:.4f}. F1 at the thresholds: "
            f"{results['macro_f1']:.4f} as the mean of the labels, {results['micro_f1']:.4f} of "
            "all answers together."
        )
        if chose:
            yield "These images also chose the thresholds and the epoch: F1 is a little too high."

    def answer(
        self, numbers: np.ndarray, labels: Sequence[str], known: Any, top: int
    ) -> dict[str, Any]:
        present = self.present(numbers).tolist()
        return {"names": list(labels), "scores": numbers.tolist(), "present": present}

    def shown(self, answers: Sequence[tuple[str, dict[str, Any]]], *, exact: bool) -> Shown:
        names = answers[0][1]["names"] if answers else []
        records = [
            {
                "file": file,
                "labels": _present(one),
                "scores": dict(zip(names, one["scores"], strict=True)),
            }
            for file, one in answers
        ]
        if exact:
            cells = [
                [file, ";".join(_present(one)), *(f"{score:.6f}" for score in one["scores"])]
                for file, one in answers
            ]
            return Shown(records, ["file", "labels", *(f"score {name}" for name in names)], cells)
        return Shown(records, ["file", "labels"], [[file, _held(one)] for file, one in answers])

    def title(self, answer: dict[str, Any]) -> tuple[str, str]:
        return _held(answer), ""


def _held(answer: dict[str, Any]) -> str:
    """Returns the labels that hold, the surest first, with their scores."""
    rows = zip(answer["names"], answer["scores"], answer["present"], strict=True)
    held = sorted(((score, name) for name, score, holds in rows if holds), reverse=True)
    return _joined([f"{name} {score:.2f}" for score, name in held])


def _present(answer: dict[str, Any]) -> list[str]:
    return [n for n, holds in zip(answer["names"], answer["present"], strict=True) if holds]


def _joined(words: Sequence[str]) -> str:
    return ", ".join(words) or "none"


def _f1(right: np.ndarray, said: np.ndarray) -> float:
    return 2 * int(np.sum(right & said)) / max(int(right.sum() + said.sum()), 1)


def _threshold(true: np.ndarray, scores: np.ndarray) -> float:
    """Returns the threshold of the best F1, in the middle between two scores."""
    known = ~np.isnan(true)
    true, scores = true[known], scores[known]
    if not true.any():
        return 0.5
    order = np.argsort(-scores, kind="stable")
    scores = np.append(scores[order], 0.0)
    found = np.cumsum(true[order])
    f1 = 2 * found / (np.arange(1, len(found) + 1) + true.sum())
    # Equal scores lie on the same side.
    last = np.argmax(np.where(scores[:-1] > scores[1:], f1, -1.0))
    return float(max(np.float32((scores[last] + scores[last + 1]) / 2), np.float32(1e-6)))
