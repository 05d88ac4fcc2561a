"""What the numbers of a finished run say about it, and what to try next."""

from __future__ import annotations

import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from lightnets.config.keys import Config
from lightnets.evaluation.scoring import largest_class
from lightnets.support.words import command, count, shell_word, some

# Fewer training images a class than this: more of them help most. Fewer held-out ones of a class:
# its numbers say little.
FEW_TRAINED, FEW_HELD_OUT = 20, 5
# Accuracy on training images above that on held-out ones; rise of the accuracy in the last fifth
# of the epochs.
GAP, RISE = 0.15, 0.01
# Where a run and its data are is no part of its results: both may move.
RUN, DATA = "RUN", "DATA"


def of_predictions(labels: Sequence[str], true: np.ndarray, said: np.ndarray) -> Iterator[str]:
    """Yields what is wrong with `said`, the answers to held-out images, by class number."""
    held_out = np.bincount(true, minlength=len(labels))
    answers = np.bincount(said, minlength=len(labels))
    accuracy = float(np.mean(said == true))
    largest, chance = largest_class(true)
    if accuracy <= chance + 1.96 * np.sqrt(chance * (1 - chance) / len(true)):
        yield (
            f"An accuracy of {accuracy:.3g} on {count(len(true), 'image')} is not surely better "
            f"than to answer {labels[largest]} always ({chance:.3g}). Are the classes right? "
            f"See {command('data', 'show', DATA)}"
        )
    if never := [labels[k] for k in np.flatnonzero((answers == 0) & (held_out > 0)).tolist()]:
        yield (
            f"No image was taken for {some(never)}. To make rare classes count as much as others: "
            "--set data.class_weights=balanced"
        )
    if few := [labels[k] for k in np.flatnonzero(held_out < FEW_HELD_OUT).tolist()]:
        yield f"Fewer than {FEW_HELD_OUT} held-out images of {some(few)}: the numbers say little."


def of_training(
    config: Config, history: Sequence[Mapping[str, float]], images: float
) -> Iterator[str]:
    """Yields what the course of a run with so many training images a class says."""
    if images < FEW_TRAINED:
        yield f"{images:.0f} training images a class are few. More of them help most."
    best = max(history, key=lambda row: row["val_accuracy"])
    gap = best["accuracy"] - best["val_accuracy"]
    if gap > GAP:
        yield (
            f"Training images are known {100 * gap:.0f} points better than held-out ones. "
            f"Try {_against_overfitting(config)}"
        )
    before = max(row["val_accuracy"] for row in history[: max(1, len(history) * 4 // 5)])
    if best["val_accuracy"] > before + RISE and best["val_accuracy"] < 1 - RISE:
        epochs = config.train.epochs - config.optimizer.begun
        yield (
            "The accuracy still rose at the end. Try "
            + command("train", "--resume", RUN, "--extend", epochs)
        )


def in_place(lines: Iterable[str], run: pathlib.Path, dataset: str) -> Iterator[str]:
    """Yields the lines with commands that can be pasted: where the run and its data are now."""
    for line in lines:
        line = line.replace(f"--resume {RUN}", f"--resume {shell_word(run)}")
        yield line.replace(f"data show {DATA}", f"data show {shell_word(dataset)}")


def _against_overfitting(config: Config) -> str:
    if not config.model.weights:
        return "--weights imagenet"
    if not config.model.freeze:
        return "--freeze backbone"
    return "--set data.auto_augment=trivialaugment"
