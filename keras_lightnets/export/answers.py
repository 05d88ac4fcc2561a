"""What a network says of images, whatever runs it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np


class Answer(NamedTuple):
    """What a network says of images.

    Attributes:
        probabilities: `(images, classes)`; of another task, its scores or values.
        known: bool `(images,)`: whether each is of any class; None where that is not told.
    """

    probabilities: np.ndarray
    known: np.ndarray | None = None


def answer(outputs: Any) -> Answer:
    """Returns what an output of a network stands for, or outputs by name; see `Answer`."""
    if not isinstance(outputs, Mapping):
        return Answer(np.asarray(outputs, np.float32))
    names = [name for name in ("probabilities", "values", "scores") if name in outputs]
    probabilities = outputs[next(iter(names or outputs))]
    known = outputs.get("known")
    probabilities = np.asarray(probabilities, np.float32)
    return Answer(probabilities, None if known is None else np.ravel(known) > 0.5)


def joined(answers: Iterable[Answer]) -> Answer:
    """Returns the answer to all images, of answers to some each."""
    probabilities, known = zip(*answers, strict=True)
    return Answer(
        np.concatenate(probabilities), None if known[0] is None else np.concatenate(known)
    )
