"""Tables and pictures of a run: curves, confusion matrix, one row per class."""

from __future__ import annotations

import csv
import io
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from training.writing import replacing, write_text

# Beyond this many classes names and numbers in the picture could not be read.
_MAX_NAMED_CLASSES = 40


def per_class(
    true: np.ndarray, probabilities: np.ndarray, labels: Sequence[str]
) -> list[dict[str, Any]]:
    """Returns precision, recall, F1 and count of each class.

    Args:
        true: Class numbers, `(examples,)`.
        probabilities: Float, `(examples, classes)`.
        labels: Class names, in the order of the last axis.
    """
    from sklearn.metrics import precision_recall_fscore_support

    scores = precision_recall_fscore_support(
        true, probabilities.argmax(-1), labels=np.arange(len(labels)), zero_division=0
    )
    return [
        {"class": name, "precision": p, "recall": r, "f1": f, "images": int(n)}
        for name, p, r, f, n in zip(labels, *(column.tolist() for column in scores), strict=True)
    ]


def write_per_class(rows: Sequence[Mapping[str, Any]], path: pathlib.Path) -> None:
    """Writes the rows of `per_class` as CSV."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["class", "precision", "recall", "f1", "images"])
    for row in rows:
        scores = [f"{row[key]:.4f}" for key in ("precision", "recall", "f1")]
        writer.writerow([row["class"], *scores, row["images"]])
    write_text(path, text.getvalue())


def write_confusion_matrix(
    true: np.ndarray, probabilities: np.ndarray, labels: Sequence[str], path: pathlib.Path
) -> None:
    """Draws true classes (rows) against predicted ones (columns), shares of each row.

    Args:
        true: Class numbers, `(examples,)`.
        probabilities: Float, `(examples, classes)`.
        labels: Class names.
        path: PNG file to write.
    """
    from sklearn.metrics import confusion_matrix

    counts = confusion_matrix(true, probabilities.argmax(-1), labels=np.arange(len(labels)))
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = min(3.5 + 0.42 * len(labels), 14)
    figure = new_figure(side, side)
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, ax=axes, fraction=0.046, label="share of the true class")
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    accuracy = float(np.mean(true == probabilities.argmax(-1))) if len(true) else 0.0
    axes.set_title(f"{len(true)} images, accuracy {accuracy:.4f}")
    if len(labels) <= _MAX_NAMED_CLASSES:
        upright = max(map(len, labels)) <= 2
        axes.set_xticks(range(len(labels)), labels, rotation=0 if upright else 90)
        axes.set_yticks(range(len(labels)), labels)
        for row, column in zip(*np.nonzero(counts), strict=True):
            color = "white" if shares[row, column] > 0.5 else "black"
            text = str(counts[row, column])
            axes.text(column, row, text, ha="center", va="center", color=color, fontsize=8)
    save_figure(figure, path)


def write_curves(history: Sequence[Mapping[str, float]], path: pathlib.Path) -> None:
    """Draws loss, accuracy and learning rate by epoch.

    Args:
        history: One mapping an epoch with `epoch` and any of `loss`, `val_loss`, `accuracy`,
            `val_accuracy`, `learning_rate`.
        path: PNG file to write.
    """
    panels = [
        ("loss", {"loss": "training", "val_loss": "held out"}),
        ("accuracy", {"accuracy": "training", "val_accuracy": "held out"}),
        ("learning rate", {"learning_rate": None}),
    ]
    panels = [panel for panel in panels if any(key in row for key in panel[1] for row in history)]
    if not panels:
        return
    figure = new_figure(4.6 * len(panels), 3.6)
    for axes, (title, series) in zip(
        np.atleast_1d(figure.subplots(1, len(panels))), panels, strict=True
    ):
        for key, label in series.items():
            points = [(row["epoch"], row[key]) for row in history if row.get(key) is not None]
            if points:
                axes.plot(*zip(*points, strict=True), marker="." if len(points) < 40 else None)
                axes.lines[-1].set_label(label)
        axes.set_title(title)
        axes.set_xlabel("epoch")
        axes.grid(alpha=0.3)
        if len(series) > 1:
            axes.legend()
    save_figure(figure, path)


def new_figure(width: float, height: float) -> Any:
    """Returns an empty figure of the given size in inches, drawn without a display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Any, path: pathlib.Path) -> None:
    """Writes a figure as PNG, whole or not at all."""
    with replacing(path, "wb") as file:
        figure.savefig(file, format="png", dpi=110)
