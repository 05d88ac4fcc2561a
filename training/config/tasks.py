"""What a network is to answer, as far as the configuration knows: what chooses the best epoch.

`lightnets.tasks` has the rest of each.
"""

from __future__ import annotations

from typing import NamedTuple

from lightnets.support.errors import UsageError

DEFAULT = "classification"
# Endings of the numbers of which a lower one is better.
LOWER = ("loss", "mae")


class Facts(NamedTuple):
    """Of a task.

    Attributes:
        monitor: What makes an epoch the best, unless told otherwise.
        monitors: What may; a regular expression, and in words.
        nouns: What one label is called, and several.
        lacks: Keys of the configuration, flags and commands that mean nothing to it.
    """

    monitor: str
    monitors: tuple[str, str]
    nouns: tuple[str, str]
    lacks: frozenset[str] = frozenset()


# What is of classes alone: each image has one, and their probabilities sum to 1.
_OF_CLASSES = frozenset(
    {
        *("data.folds", "data.class_weights", "data.unlabelled", "train.label_smoothing"),
        *("distillation.teacher", "model.quantize", "--reject", "lightnets compare"),
        *(f"--formats {name}" for name in ("litert-int8", "onnx-int8", "openvino-int8", "web")),
    }
)

TASKS = {
    DEFAULT: Facts(
        "val_accuracy",
        (
            r"(val_)?(accuracy|loss)|val_top_\d+_accuracy",
            "val_accuracy, val_loss, val_top_5_accuracy (with fewer classes a lower number), "
            "accuracy or loss",
        ),
        ("class", "classes"),
        frozenset({"data.targets", "train.loss"}),
    ),
    "multi-label": Facts(
        "val_mean_average_precision",
        (
            r"val_(mean_average_precision|macro_f1|micro_f1)|(val_)?loss|accuracy",
            "val_mean_average_precision, val_macro_f1, val_micro_f1, val_loss, accuracy or loss",
        ),
        ("label", "labels"),
        _OF_CLASSES | {"train.loss"},
    ),
    "regression": Facts(
        "val_loss",
        (r"val_r2|(val_)?(loss|mae)", "val_loss, val_mae, val_r2, mae or loss"),
        ("value", "values"),
        _OF_CLASSES | {"data.mixup", "data.cutmix"},
    ),
}


def flags(task: str) -> tuple[str, ...]:
    """Returns what a command is told to read data for a task."""
    return () if task == DEFAULT else ("--task", task)


def check(task: str, feature: str) -> None:
    """Raises UsageError if a task lacks a key, flag or command."""
    if feature in TASKS[task].lacks:
        others = [name for name, facts in TASKS.items() if feature not in facts.lacks]
        raise UsageError(f"{feature} is for {' and '.join(others)}, not for --task {task}.")
