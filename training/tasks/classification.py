"""One class of several for each image."""

from __future__ import annotations

import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from keras_lightnets.serving.client import Classes
from lightnets.evaluation import advice, report, scoring
from lightnets.tasks.task import Rows, Shown, Task

if TYPE_CHECKING:
    from lightnets.config.keys import Config
    from lightnets.data import Splits
    from lightnets.evaluation.scoring import Predictions


class Classification(Task):
    """Probabilities that sum to 1."""

    name, main, table, dense = "classification", "accuracy", "per_class", False
    mistakes = "Most certain mistakes"
    columns: ClassVar[dict[str, str]] = {"accuracy": "acc", "val_accuracy": "val_acc"}

    def score(self, found: Predictions, top: int = 5) -> dict[str, Any]:
        return scoring.score(found.true, found.numbers, top)

    def guessing(self, true: np.ndarray, count: int, config: Config | None = None) -> float:
        shares, smoothing = np.bincount(true, minlength=count) / len(true), 0.0
        if config:
            smoothing = config.train.label_smoothing
            if config.data.class_weights == "balanced":
                shares = np.full(count, 1 / count)
        return scoring.guessing_loss(shares, smoothing)

    def rows(self, found: Predictions) -> Rows:
        return report.per_class(*found)

    def advice(
        self, splits: Splits, history: Sequence[Mapping[str, float]], found: Predictions
    ) -> Iterator[str]:
        yield from advice.of_predictions(found.labels, found.true, found.numbers.argmax(-1))
        if history:
            each = splits.train_examples / len(splits.labels)
            yield from advice.of_training(splits.config, history, each)

    def worst(self, found: Predictions) -> np.ndarray:
        return scoring.mistakes(found.true, found.numbers)

    def words(self, found: Predictions, image: int) -> str:
        true, numbers, labels = found.true[image], found.numbers[image], found.labels
        said = int(numbers.argmax())
        return f"{labels[true]}, taken for {labels[said]} ({numbers[said]:.4f})"

    def draw(self, found: Predictions, folder: pathlib.Path) -> None:
        report.write_confusion_matrix(*found, folder / "confusion_matrix.png")

    def listed(self, found: Predictions) -> tuple[list[str], Iterable[Sequence[Any]]]:
        """The margin is what the true class has more than the most probable other one.

        An image that is most certainly wrong has the lowest.
        """
        true, numbers, labels = found
        margins = scoring.rivals(true, numbers)[1]
        cells = (
            (labels[label], labels[row.argmax()], f"{row.max():.6f}", f"{margin:.6f}")
            for label, row, margin in zip(true, numbers, margins, strict=True)
        )
        return ["true", "predicted", "probability", "margin"], cells

    def write_page(self, *arguments: Any) -> None:
        from lightnets.evaluation import page  # imports TensorFlow

        page.write(*arguments)

    def answer(self, numbers: np.ndarray, labels: Sequence[str], known: Any, top: int) -> Classes:
        order: list[int] = numbers.argsort()[::-1][:top].tolist()
        best = Classes((labels[number], float(numbers[number])) for number in order)
        best.known = known
        return best

    def shown(self, answers: Sequence[tuple[str, Classes]], *, exact: bool) -> Shown:
        records = [
            {
                "file": file,
                "predictions": [{"label": label, "probability": score} for label, score in best],
                **({} if best.known is None else {"known": best.known}),
            }
            for file, best in answers
        ]
        cells = [
            [
                *(file, rank, label, f"{score:.6f}" if exact else f"{score:.4f}"),
                *(() if best.known is None else (str(best.known).lower(),)),
            ]
            for file, best in answers
            for rank, (label, score) in enumerate(best, 1)
        ]
        header = ["file", "rank", "label", "probability"]
        header += ["known"] * (bool(cells) and len(cells[0]) > len(header))
        if not exact and not any(rank > 1 for _, rank, *_ in cells):
            for row in (header, *cells):  # one line an image
                del row[1]
        return Shown(records, header, cells)

    def title(self, answer: Classes) -> tuple[str, str]:
        label, score = answer[0]
        return f"{'not known: ' * (answer.known is False)}{label}", f"  {score:.2f}"
