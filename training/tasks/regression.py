"""One or several numbers for each image, in the user's units."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from keras_lightnets.intervals import of_mean
from lightnets.evaluation import report
from lightnets.support.words import count as counted
from lightnets.tasks.task import Rows, Shown, Task

if TYPE_CHECKING:
    import keras

    from lightnets.config.keys import Config
    from lightnets.data import Splits
    from lightnets.evaluation.scoring import Predictions


@dataclass(frozen=True)
class Regression(Task):
    """Values of which training sees how many standard deviations they are from the mean.

    Attributes:
        mean: Of each value in training, `(values,)`.
        std: Its standard deviation there; 1 where that is 0.
        loss: "mse" or "huber", which is linear beyond one standard deviation.
    """

    mean: Sequence[float]
    std: Sequence[float]
    loss: str = "mse"

    name, main, table = "regression", "mae", "per_value"
    columns: ClassVar[dict[str, str]] = {"mae": "mae", "val_mae": "val_mae"}

    @classmethod
    def begin(cls, config: Config, labels: Callable[[], np.ndarray], count: int) -> Regression:
        values = labels().astype(np.float64)
        std = values.std(0)
        return cls(values.mean(0).tolist(), np.where(std > 0, std, 1).tolist(), config.train.loss)

    def about(self) -> dict[str, Any]:
        numbers = {"mean": list(self.mean), "std": list(self.std)}
        return {"name": self.name, **numbers, "loss": self.loss}

    def finish(self, network: keras.Model) -> keras.Model:
        import keras

        from keras_lightnets.networks.classifier import logits_model

        end = keras.layers.Rescaling(
            list(self.std), list(self.mean), dtype="float32", name="predictions"
        )
        return keras.Model(network.input, end(logits_model(network).outputs[0]), name=network.name)

    def judge(self, labels: Any, logits: Any) -> tuple[Any, Any]:
        import tensorflow as tf

        mean, std = (tf.constant(each, tf.float32) for each in (self.mean, self.std))
        errors = tf.abs((labels - mean) / std - logits)
        losses = tf.square(errors)
        if self.loss == "huber":
            losses = tf.where(errors <= 1, 0.5 * losses, errors - 0.5)
        return tf.reduce_mean(losses, -1), tf.reduce_mean(errors * std, -1)

    def _loss(self, true: np.ndarray, numbers: Any) -> float:
        errors = abs(true - numbers) / np.array(self.std)
        if self.loss == "huber":
            return float(np.mean(np.where(errors <= 1, 0.5 * errors**2, errors - 0.5)))
        return float(np.mean(errors**2))

    def score(self, found: Predictions, top: int = 5) -> dict[str, Any]:
        rows = self.rows(found)
        means = {key: float(np.mean([row[key] for row in rows])) for key in ("mae", "r2")}
        loss = self._loss(found.true, found.numbers)
        return {"images": len(found.true), **means, "loss": loss}

    def guessing(self, true: np.ndarray, count: int, config: Config | None = None) -> float:
        return self._loss(true, true.mean(0) if self.loss == "mse" else np.median(true, 0))

    def rows(self, found: Predictions) -> Rows:
        rows, (true, numbers, labels) = [], found
        for k, label in enumerate(labels):
            right = true[:, k].astype(np.float64)
            mean, low, high = of_mean(abs(right - numbers[:, k]))
            spread = np.sum((right - right.mean()) ** 2)
            rest = np.sum((right - numbers[:, k]) ** 2)
            row = {"value": label, "mae": mean, "mae_low": low, "mae_high": high}
            rows.append(row | {"r2": float(1 - rest / spread) if spread else 0.0})
            rows[-1] |= {"spread": float(right.std()), "images": len(right)}
        return rows

    def advice(
        self, splits: Splits, history: Sequence[Mapping[str, float]], found: Predictions
    ) -> Iterator[str]:
        for row in self.rows(found):
            if row["r2"] <= 0:
                yield (
                    f"The answers for {row['value']} are no better than its mean always "
                    f"(R2 {row['r2']:.3g}). Can it be seen in the pictures?"
                )

    def errors(self, found: Predictions) -> np.ndarray:
        return (abs(found.true - found.numbers) / np.array(self.std)).max(-1)

    def words(self, found: Predictions, image: int) -> str:
        rows = zip(found.labels, found.true[image], found.numbers[image], strict=True)
        return ", ".join(f"{name} is {one:.4g}; answered: {said:.4g}" for name, one, said in rows)

    @staticmethod
    @report.only_a_picture
    def _draw(found: Predictions, path: pathlib.Path) -> None:
        true, numbers, labels = found
        figure = report.new_figure(4.6 * len(labels), 4.2)
        names, style = report.drawable(labels)
        for k, axes in enumerate(np.atleast_1d(figure.subplots(1, len(labels)))):
            ends = [min(true[:, k].min(), numbers[:, k].min())]
            ends.append(max(true[:, k].max(), numbers[:, k].max()))
            axes.plot(ends, ends, color="grey", linewidth=1)
            axes.scatter(true[:, k], numbers[:, k], s=8, alpha=0.5)
            axes.set_title(names[k], **style)
            axes.set_xlabel("true")
            axes.set_ylabel("answered")
        report.save_figure(figure, path)

    def draw(self, found: Predictions, folder: pathlib.Path) -> None:
        self._draw(found, folder / "answers.png")

    def listed(self, found: Predictions) -> tuple[list[str], Iterable[Sequence[Any]]]:
        header = [f"{what} {name}" for what in ("true", "predicted") for name in found.labels]
        return header, ([f"{one:.7g}" for one in row] for row in np.hstack(found[:2]))

    def headline(self, results: Mapping[str, Any], rows: Rows, *, chose: bool) -> Iterator[str]:
        for row in rows:
            yield (
                f"Mean error of {row['value']} on {counted(results['images'], 'held-out image')}: "
                f"{row['mae']:.4g}, which for other images like these means {row['mae_low']:.4g} "
                f"to {row['mae_high']:.4g} (95 % interval); R2 {row['r2']:.4f}. Its standard "
                f"deviation is {row['spread']:.4g}."
            )
        if chose:
            yield "These images also chose the best epoch: the error is a little too low."

    def answer(
        self, numbers: np.ndarray, labels: Sequence[str], known: Any, top: int
    ) -> dict[str, Any]:
        return {"names": list(labels), "values": numbers.tolist()}

    def shown(self, answers: Sequence[tuple[str, dict[str, Any]]], *, exact: bool) -> Shown:
        names, digits = answers[0][1]["names"] if answers else [], ".7g" if exact else ".5g"
        records = [
            {"file": file, "values": dict(zip(names, one["values"], strict=True))}
            for file, one in answers
        ]
        cells = [[file, *(format(each, digits) for each in one["values"])] for file, one in answers]
        return Shown(records, ["file", *names], cells)

    def title(self, answer: dict[str, Any]) -> tuple[str, str]:
        rows = zip(answer["names"], answer["values"], strict=True)
        return ", ".join(f"{name} {value:.4g}" for name, value in rows), ""
