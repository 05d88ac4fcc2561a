"""Tables and pictures of a run: curves, confusion matrix, one row per class."""

from __future__ import annotations

import contextlib
import functools
import io
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import IO, Any

import numpy as np

from keras_lightnets.text import first_line, visible
from lightnets.support import console
from lightnets.support.writing import replacing

# What a run keeps of each held-out image.
PREDICTIONS = "predictions.csv"
# Beyond this many classes names and numbers in the picture could not be read.
_MAX_NAMED_CLASSES = 40
# Of characters in a name that is drawn.
_LONGEST = 40


def only_a_picture(write: Callable[..., None]) -> Callable[..., None]:
    """Makes one line of whatever keeps `write` from drawing its last argument, a path.

    A picture comes at the end of hours of work, whose results it must not cost.
    """

    @functools.wraps(write)
    def tried(*arguments: Any) -> None:
        try:
            write(*arguments)
        except Exception as error:  # matplotlib raises what its parts raise
            console.line(f"Warning: {arguments[-1]} was not drawn ({first_line(error)}).")

    return tried


def per_class(
    true: np.ndarray, probabilities: np.ndarray, labels: Sequence[str]
) -> list[dict[str, Any]]:
    """Returns precision, recall, F1 and count of each class; arguments are `Predictions`."""
    from sklearn.metrics import precision_recall_fscore_support

    scores = precision_recall_fscore_support(
        true, probabilities.argmax(-1), labels=np.arange(len(labels)), zero_division=0
    )
    return [
        {"class": name, "precision": p, "recall": r, "f1": f, "images": int(n)}
        for name, p, r, f, n in zip(labels, *(column.tolist() for column in scores), strict=True)
    ]


@only_a_picture
def write_confusion_matrix(
    true: np.ndarray, probabilities: np.ndarray, labels: Sequence[str], path: pathlib.Path
) -> None:
    """Draws true classes (rows) against predicted ones (columns), shares of each row, as PNG."""
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
        names, style = drawable(labels)
        upright = max(map(len, names)) <= 2
        axes.set_xticks(range(len(names)), names, rotation=0 if upright else 90, **style)
        axes.set_yticks(range(len(names)), names, **style)
        for row, column in zip(*np.nonzero(counts), strict=True):
            color = "white" if shares[row, column] > 0.5 else "black"
            text = str(counts[row, column])
            axes.text(column, row, text, ha="center", va="center", color=color, fontsize=8)
    save_figure(figure, path)


@only_a_picture
def write_curves(history: Sequence[Mapping[str, float]], path: pathlib.Path) -> None:
    """Draws loss, the numbers of the task and learning rate by epoch, as PNG."""
    panels = [
        *(
            (name.replace("_", " "), {name: "training", f"val_{name}": "held out"})
            for name in ("loss", "accuracy", "mean_average_precision", "macro_f1", "mae", "r2")
        ),
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
        _by_epoch(axes)
        if len(series) > 1:
            axes.legend()
    save_figure(figure, path)


def accuracies(histories: Mapping[str, Sequence[Mapping[str, float]]]) -> bytes:
    """Returns a PNG file of the held-out accuracy by epoch, a line for each name."""
    figure = new_figure(8, 4)
    axes = figure.subplots()
    names, style = drawable(list(histories))
    for name, history in zip(names, histories.values(), strict=True):
        points = [(row["epoch"], row["val_accuracy"]) for row in history]
        axes.plot(*zip(*points, strict=True) if points else ((), ()), marker=".", label=name)
    _by_epoch(axes)
    for text in axes.legend().get_texts():
        text.set(**style)
    file = io.BytesIO()
    _draw(figure, file)
    return file.getvalue()


def _by_epoch(axes: Any) -> None:
    axes.set_xlabel("epoch")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(alpha=0.3)


def drawable(names: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """Returns what to draw for names of classes, and the arguments of matplotlib's texts.

    Long names are cut. Where no installed fonts have all characters, it is the numbers of the
    classes, as they come in `per_class.csv`, the first with 0.
    """
    shown = [visible(name) for name in names]
    shown = [name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…" for name in shown]
    families = _families({ord(character) for name in shown for character in name})
    if families is None:
        shown, families = [f"class {number}" for number in range(len(names))], []
    # A dollar sign would start a formula.
    return shown, {"parse_math": False, **({"fontfamily": families} if families else {})}


def _families(characters: set[int]) -> list[str] | None:
    """Returns installed fonts that have the characters together; None if there are none."""
    from matplotlib import font_manager

    usual = font_manager.FontProperties().get_name()
    families = []
    for family in [usual, *sorted({entry.name for entry in font_manager.fontManager.ttflist})]:
        if not characters:
            break
        with contextlib.suppress(OSError, RuntimeError, ValueError):  # a font that is damaged
            font = font_manager.get_font(font_manager.findfont(family, fallback_to_default=False))
            covered = characters & font.get_charmap().keys() if font.scalable else set()
            if covered:
                families.append(family)
                characters = characters - covered
    return None if characters else families


def new_figure(width: float, height: float) -> Any:
    """Returns an empty figure of the given size in inches, drawn without a display."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def save_figure(figure: Any, path: pathlib.Path) -> None:
    """Writes a figure as PNG, whole or not at all."""
    with replacing(path, "wb") as file:
        _draw(figure, file)


def _draw(figure: Any, file: IO[bytes]) -> None:
    figure.savefig(file, format="png", dpi=110, bbox_inches="tight")
