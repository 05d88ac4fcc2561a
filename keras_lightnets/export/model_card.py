"""`MODEL_CARD.md`: what a network tells apart, how well, and where it fails."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from typing import Any, NamedTuple

import keras
import numpy as np

from keras_lightnets._version import __version__
from keras_lightnets.catalogue import registry
from keras_lightnets.export.tf_serving import TEMPLATES
from keras_lightnets.inference.rejection import Rejection
from keras_lightnets.intervals import interval
from keras_lightnets.layers.notes import notes
from keras_lightnets.preprocessing import EvalTransform
from keras_lightnets.text import visible

NAME = "MODEL_CARD.md"
_NAMED = 20  # classes
_WORST = 5
_SURE = 0.9


class Card(NamedTuple):
    """What a card says of the task.

    Attributes:
        tells: What the network does, before the names of its classes.
        answers: What it answers with.
        measured: How well; "": nothing was measured.
        limits: Where it fails.
    """

    tells: str
    answers: str
    measured: str
    limits: str


def render(
    name: str,
    labels: Sequence[str],
    transform: EvalTransform,
    true: np.ndarray | None,
    probabilities: np.ndarray,
    *,
    data: str | None = None,
    weights: str | None = None,
    chose: bool = False,
    formats: Mapping[str, Mapping[str, Any]] | None = None,
    rejection: Rejection | None = None,
    card: Callable[..., Card] | None = None,
) -> str:
    """Returns the card.

    Args:
        name: Of the network.
        labels: Class names in the order of the output.
        transform: From image files to the input.
        true: Class numbers of held-out images, `(images,)`, or what else its task has; None:
            nobody knows them.
        probabilities: Of these images, `(images, classes)`, likewise.
        data: What the network was trained on, if it is known.
        weights: Tag or file of the published weights that training began with, or that these are;
            "": random ones; None: nobody knows.
        chose: Whether the held-out images chose among several epochs.
        formats: The report of `formats.convert`, if there are files for other runtimes.
        rejection: When an image is of none of the classes; None: never.
        card: What is of the task; None: `of_classes`.
    """
    height, width = transform.image_size
    size = "the whole image is resized"
    if transform.pad:
        size += f", with margins of the colour {transform.background} to keep its shape"
    if transform.resize_shorter is not None:
        size = f"the shorter side is resized to {transform.resize_shorter}, the centre cut out"
    true = true if true is not None and len(true) else None
    of_task = (card or of_classes)(labels, true, probabilities, chose, rejection)
    measured = of_task.measured or "Not measured: no images of known classes were at hand."
    limits = of_task.limits if of_task.measured else "Not known, since nothing was measured."
    more = len(labels) - _NAMED
    software = [f"{package} {metadata.version(package)}" for package in ("keras", "tensorflow")]
    template = (TEMPLATES / "model_card.md").read_text(encoding="utf-8")
    return template.format(
        name=_text(name),
        tells=of_task.tells,
        answers=of_task.answers,
        classes=", ".join(map(_text, labels[:_NAMED]))
        + (f" and {more} more, in `labels.txt`" if more > 0 else ""),
        height=height,
        width=width,
        preparation=f"{size} ({transform.interpolation})",
        data=_text(data or "not known"),
        weights=_origin(weights),
        versions=", ".join([f"keras_lightnets {__version__}", *software]),
        measured=measured + _files(formats or {}),
        limits=limits,
    )


def weights_of(model: keras.Model, weights: str | None) -> str | None:
    """Returns the `weights` of `render` for a network that a run has trained.

    Args:
        model: The network.
        weights: That the run was told to begin with; None: with those that the network had, which
            are random if it is one of this package.
    """
    return weights or ("" if "family" in notes(model) else None)


def _origin(weights: str | None) -> str:
    if weights is None:
        return "where they come from is not known"
    if not weights:
        return "trained from random ones, so that theirs is the licence you choose"
    rows = [row for _, row in registry.published() if weights in (row.tag, row.file)]
    source = f"from the published {_text(pathlib.PurePath(weights).name)}"
    if not rows:
        return f"{source}; see there for its licence"
    return f"{source}, whose code has the licence {rows[0].licence}; terms of its data may apply"


def of_classes(
    labels: Sequence[str],
    true: np.ndarray | None,
    probabilities: np.ndarray,
    chose: bool,
    rejection: Rejection | None,
) -> Card:
    """Returns what is said of a classifier; the arguments are those of `render`."""
    return Card(
        f"Tells images of {len(labels)} classes apart",
        "a probability for each class. They sum to 1, also for an image of none of them",
        "" if true is None else _measured(true, probabilities, chose),
        "" if true is None else _limits(labels, true, probabilities, rejection),
    )


def table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Returns a table in Markdown, and an empty line; the first cells are names of the data."""
    lines = [header, ["---"] * len(header), *([_text(first), *rest] for first, *rest in rows)]
    return "".join(f"| {' | '.join(map(str, line))} |\n" for line in lines) + "\n"


def _measured(true: np.ndarray, probabilities: np.ndarray, chose: bool) -> str:
    images, right = len(true), int(np.sum(probabilities.argmax(-1) == true))
    low, high = interval(right, images)
    text = (
        f"{right} of {images} held-out images get their class: accuracy {right / images:.4f}. For "
        f"other images like these that means {low:.3f} to {high:.3f} (95 % interval)."
    )
    return text + (" They also chose the best epoch: it is a little too high." if chose else "")


def _files(formats: Mapping[str, Mapping[str, Any]]) -> str:
    """The files for other runtimes, for who chooses one: a table, if there are any."""
    if not formats:
        return ""
    rows = []
    for row in formats.values():
        same = row.get("top1_agreement", row.get("label_agreement"))
        shares = ["-" if each is None else f"{each:.4f}" for each in (row.get("accuracy"), same)]
        rows.append(
            [row["file"], f"{row['bytes'] / 1e6:.3f}", row.get("ms_per_image", "-"), *shares]
        )
    header = ("file", "MB", "ms an image", "accuracy", "same answers as Keras")
    return f"\n\n{table(header, rows).rstrip()}"


def _limits(
    labels: Sequence[str], true: np.ndarray, probabilities: np.ndarray, rejection: Rejection | None
) -> str:
    """The classes that are missed most, and those that no image tested."""
    counts = np.bincount(true, minlength=len(labels))
    missed = np.bincount(true, probabilities.argmax(-1) != true, minlength=len(labels))
    shares = missed / np.maximum(counts, 1)
    worst = [place for place in np.argsort(-shares, kind="stable")[:_WORST] if missed[place]]
    rows = []
    for place in worst:
        said = probabilities[true == place].argmax(-1)
        taken = _text(labels[int(np.bincount(said[said != place]).argmax())])
        rows.append([labels[place], int(missed[place]), counts[place], taken])
    header = ("worst classes", "missed", "of", "most often taken for")
    text = table(header, rows) if rows else "None of these images was missed.\n\n"
    sure = probabilities.max(-1)[probabilities.argmax(-1) != true]
    unknown = "Images of none of the classes were not measured: they get one all the same."
    if rejection is not None:
        unknown = _rejected(rejection.about)
    if len(sure):
        high = int(np.sum(sure > _SURE))
        unknown += f" Of the {len(sure)} mistakes {high} had a probability above {_SURE}."
    if untested := int(np.sum(counts == 0)):
        unknown += f"\n\n{untested} of the classes have no held-out image."
    return text + unknown


def _rejected(about: Mapping[str, Any]) -> str:
    """What the output `known` is worth."""
    text = (
        "`known` is true for an image that is like those of some class in training, as "
        f"{about['coverage']:.1%} of other images of these classes should be. "
    )
    if "auroc" not in about:
        return text + "Images of none of the classes were not measured."
    return text + (
        f"It was false for {about['unknown_rejected']:.1%} of {about['unknown_images']} images of "
        f"none of the classes (AUROC {about['auroc']:.3f})."
    )


def _text(name: str) -> str:
    """A name as Markdown shows it, whatever is in it."""
    return "".join(f"\\{each}" if each in "\\`*_[]<>|#" else each for each in visible(name))
