"""What every task can do."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lightnets.evaluation import report
from lightnets.support import markup
from lightnets.support.writing import csv_text, write_text

if TYPE_CHECKING:
    import keras

    from lightnets.config.keys import Config
    from lightnets.data import Splits
    from lightnets.data.sources.stream import AnySource
    from lightnets.evaluation.scoring import Predictions

# Rows of a table: a class, label or value each.
Rows = list[dict[str, Any]]
# Pictures on a page.
_SHOWN = 36


class Shown(NamedTuple):
    """Answers to pictures, for programs and for a person.

    Attributes:
        records: A JSON object for each picture.
        header: Of a table.
        cells: Its rows.
    """

    records: list[dict[str, Any]]
    header: list[str]
    cells: list[list[Any]]


class Task:
    """What a network is to answer.

    Attributes:
        name: Of the task.
        columns: Of the history, shown while it trains, each with a short title: what is summed up
            in training beside the loss, and a number of the held-out images.
        main: The number that says how well a network does.
        table: Stem of the file of `rows`.
        mistakes: What wrong answers are called, the worst first.
        dense: Whether `Predictions.true` are the labels as they are, not class numbers.
        judge: See `TrainStep`; None: that of classes.
    """

    name: str
    columns: Mapping[str, str]
    main: str
    table: str
    mistakes = "Worst answers"
    dense = True
    judge: Callable[..., Any] | None = None

    @classmethod
    def begin(cls, config: Config, labels: Callable[[], np.ndarray], count: int) -> Task:
        """Returns the task of a run.

        Args:
            config: Of the run.
            labels: Returns those of the training images.
            count: Of labels an image.
        """
        del config, labels, count
        return cls()

    def about(self) -> dict[str, Any]:
        """Returns what `lightnets.tasks.of` makes the task of; {}: a classifier."""
        return {}

    def note(self, network: keras.Model) -> None:
        """Notes in a network what its numbers mean."""
        from keras_lightnets.layers.notes import notes

        if about := self.about():
            notes(network)["task"] = about

    def finish(self, network: keras.Model) -> keras.Model:
        """Returns a network that ends in probabilities of classes as one for this task."""
        return network

    def fitted(self, found: Predictions) -> Task:
        """Returns the task with what it takes from held-out images, such as thresholds."""
        del found
        return self

    def score(self, found: Predictions, top: int = 5) -> dict[str, Any]:
        """Returns `images`, `loss` and the numbers of the task."""
        raise NotImplementedError

    def guessing(self, true: np.ndarray, count: int, config: Config | None = None) -> float:
        """Returns the loss of the best answer that is the same for every image.

        Args:
            true: Of the held-out images.
            count: Of labels.
            config: None: what the held-out loss would be. Else that of training.
        """
        raise NotImplementedError

    def rows(self, found: Predictions) -> Rows:
        """Returns a row for each class, label or value; names first, counts last."""
        raise NotImplementedError

    def advice(
        self, splits: Splits, history: Sequence[Mapping[str, float]], found: Predictions
    ) -> Iterator[str]:
        """Yields what the numbers of a finished run say about it, and what to try next."""
        raise NotImplementedError

    def errors(self, found: Predictions) -> np.ndarray:
        """Returns how wrong each answer is, `(images,)`; 0: it is right."""
        raise NotImplementedError

    def words(self, found: Predictions, image: int) -> str:
        """Returns what is right for one of the images, and what was answered."""
        raise NotImplementedError

    def worst(self, found: Predictions) -> np.ndarray:
        """Returns the places of wrong answers, the worst first."""
        errors = self.errors(found)
        order = np.argsort(-errors, kind="stable")
        return order[errors[order] > 0]

    def write_rows(self, rows: Rows, folder: pathlib.Path) -> None:
        """Writes `rows` as CSV."""
        write_text(folder / f"{self.table}.csv", csv_text(tuple(rows[0]), self.cells(rows)))

    @staticmethod
    def cells(rows: Rows) -> list[list[Any]]:
        """Returns the cells of `rows`, as they are shown and written."""
        return [
            [f"{value:.4f}" if isinstance(value, float) else value for value in row.values()]
            for row in rows
        ]

    def draw(self, found: Predictions, folder: pathlib.Path) -> None:
        """Draws what the task has of a picture, beside the curves."""

    def listed(self, found: Predictions) -> tuple[list[str], Iterable[Sequence[Any]]]:
        """Returns header and cells of `predictions.csv`, behind the name of each image."""
        raise NotImplementedError

    def write_predictions(
        self, sources: Iterable[AnySource], found: Predictions, path: pathlib.Path
    ) -> None:
        """Writes a row for each image, in the order of evaluation, as CSV."""
        names = [source.name(place) for source in sources for place in range(source.count)]
        header, cells = self.listed(found)
        rows = [(name, *row) for name, row in zip(names, cells, strict=True)]
        write_text(path, csv_text(("image", *header), rows))

    def headline(self, results: Mapping[str, Any], rows: Rows, *, chose: bool) -> Iterator[str]:
        """Yields sentences of a report: how well it does; `chose`: these images chose the epoch."""
        raise NotImplementedError

    def write_page(
        self,
        splits: Splits,
        results: Mapping[str, Any],
        found: Predictions,
        model: keras.Model | None,
        split: str | None,
        path: pathlib.Path,
    ) -> None:
        """Writes the report; the arguments are those of `lightnets.evaluation.page.write`."""
        del model
        _write_page(self, splits, results, found, split, path)

    def answer(self, numbers: np.ndarray, labels: Sequence[str], known: Any, top: int) -> Any:
        """Returns the answer to one image, as `shown` takes it."""
        raise NotImplementedError

    def shown(self, answers: Sequence[tuple[str, Any]], *, exact: bool) -> Shown:
        """Returns the answers to files, with few digits or, if `exact`, with more."""
        raise NotImplementedError

    def title(self, answer: Any) -> tuple[str, str]:
        """Returns what stands above a picture: names, which may be cut, and what follows."""
        raise NotImplementedError


@report.only_a_picture
def _write_page(
    task: Task,
    splits: Splits,
    results: Mapping[str, Any],
    found: Predictions,
    split: str | None,
    path: pathlib.Path,
) -> None:
    from lightnets.evaluation import page  # imports TensorFlow

    rows, worst = results[task.table], task.worst(found)[:_SHOWN]
    header = tuple(key.replace("_", " ") for key in rows[0])
    said = [task.words(found, k) for k in worst]
    drawn = {"Course of training": "curves.png"} | ({} if split else {"Answers": "answers.png"})
    sections = [
        markup.section(splits.noun, markup.table(header, [[*row.values()] for row in rows])),
        *page.drawings(path.parent, drawn),
        markup.section("The worst answers", page.pictures(splits, worst, said)),
    ]
    chose = split is None and results["epochs"] > 1
    headline = [f"<p>{markup.text(line)}</p>" for line in task.headline(results, rows, chose=chose)]
    page.whole(splits, results, headline, sections, split, path)
