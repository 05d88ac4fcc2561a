"""The findings of the data doctor in sentences."""

from __future__ import annotations

from typing import Any

# Names in one line.
_NAMED = 5
# Most images of a class for each of the rarest class, above which it is worth a remark.
_BALANCE = 10


def count(number: int, noun: str, plural: str | None = None) -> str:
    """Returns `1 image`, `2 images`."""
    return f"{number} {noun if number == 1 else plural or noun + 's'}"


def some(names: list[str]) -> str:
    """Returns the first names, and how many more there are."""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def wrong(found: dict[str, Any]) -> list[str]:
    """Returns one line for everything that should be mended before training."""
    lines = []
    for name, split in found["splits"].items():
        lines += [f"{path}: {reason}" for path, reason in split["damaged"].items()]
        lines += [f"{path}: no image, among the images" for path in split["no_images"]]
        if split["empty_classes"]:
            lines.append(f"{name}: classes without images: {some(split['empty_classes'])}")
    for name, classes in found["class_names_that_differ"].items():
        lines.append(f"{name}: lacks the classes {some(classes)}, which another split has")
    across, differing = found["copies_across_splits"], found["copies_with_different_labels"]
    for group in found["copies"]:
        where = " (in different splits)" if group in across else ""
        where += " (with different labels)" if group in differing else ""
        lines.append(f"The same file: {', '.join(group)}{where}")
    return lines


def remarks(found: dict[str, Any]) -> list[str]:
    """Returns one line for everything that deserves a look but may be meant."""
    lines = []
    across = found["near_copies_across_splits"]
    for group in found["near_copies"]:
        where = " (in different splits)" if group in across else ""
        lines.append(f"They look alike: {', '.join(group)}{where}")
    for name, split in found["splits"].items():
        for path, kind in split["misnamed"].items():
            lines.append(f"{path}: is a {kind} by its bytes (no error)")
        if split["ignored"]:
            lines.append(f"{name}: not read: {some(split['ignored'])}")
        if split["unlabelled"]:
            lines.append(f"{name}: {count(split['unlabelled'], 'image')} without a label")
        counts = [number for number in split["classes"].values() if number]
        if counts and max(counts) > _BALANCE * min(counts):
            lines.append(
                f"{name}: the largest class has {max(counts) / min(counts):.0f} times as many "
                "images as the smallest; see data.class_weights in docs/finetuning.md"
            )
    return lines
