"""The findings of the data doctor in sentences."""

from __future__ import annotations

import itertools
from typing import Any

from lightnets.data.sources.listing import OTHER_SUFFIXES
from lightnets.support.words import count, some

# Lines of one kind that a person is shown.
_SHOWN = 20
# Most images of a class for each of the rarest class, above which it is worth a remark.
_BALANCE = 10

# What to do about formats that are not read.
_HINTS = dict.fromkeys(OTHER_SUFFIXES.values(), "; save them as PNG or JPEG")
_HINTS["HEIC"] = "; pip install 'keras-lightnets[heif]' reads them"

# Kind of finding to its lines.
Kinds = dict[str, list[str]]


def every_line(kinds: Kinds) -> list[str]:
    """Returns the lines of all kinds."""
    return list(itertools.chain(*kinds.values()))


def shown(kinds: Kinds, rest: str = "--json names all") -> list[str]:
    """Returns the first lines of each kind, and how many more there are.

    Args:
        kinds: Of `wrong` or `remarks`.
        rest: Where the others are to be found.
    """
    lines = []
    for kind, own in kinds.items():
        lines += own[:_SHOWN]
        if len(own) > _SHOWN:
            lines.append(f"... {kind}: {len(own) - _SHOWN} more ({rest})")
    return lines


def wrong(found: dict[str, Any]) -> Kinds:
    """Returns one line for everything that should be mended before training."""
    kinds: Kinds = {"classes": [], "damaged": [], "no images": [], "copies": []}
    for name, split in found["splits"].items():
        # A whole split may have no labels, as the `test` of many sets.
        if split["empty_classes"] and split["unlabelled"] < split["images"]:
            text = f"{name}: classes without images: {some(split['empty_classes'])}"
            kinds["classes"].append(text)
        kinds["damaged"] += [f"{path}: {reason}" for path, reason in split["damaged"].items()]
        kinds["no images"] += [f"{path}: no image, among the images" for path in split["no_images"]]
    every = {name for split in found["splits"].values() for name in split["classes"]}
    if len(every) < 2:
        kinds["classes"].append(f"There is one class only ({some(sorted(every))})")
    for name, classes in found["class_names_that_differ"].items():
        text = f"{name}: lacks the classes {some(classes)}, which another split has"
        kinds["classes"].append(text)
    across = _first(found["copies_across_splits"])
    differing = _first(found["copies_with_different_labels"])
    for group in found["copies"]:
        where = " (in different splits)" if group[0] in across else ""
        where += " (with different labels)" if group[0] in differing else ""
        kinds["copies"].append(f"The same file: {some(group)}{where}")
    return kinds


def remarks(found: dict[str, Any]) -> Kinds:
    """Returns one line for everything that deserves a look but may be meant."""
    kinds: Kinds = {
        "left over": [],
        "classes": [],
        "splits": [],
        "images that look alike": [],
        "misnamed": [],
        "pixels": [],
    }
    named = {path for split in found["splits"].values() for path in split["no_images"]}
    left_over: dict[str, list[str]] = {}
    for path, reason in found["left_over"].items():
        if path not in named:
            left_over.setdefault(reason, []).append(path)
    for reason, paths in sorted(left_over.items()):
        hint = _HINTS.get(reason, "")
        kinds["left over"].append(f"Not read, {reason} ({len(paths)}): {some(paths)}{hint}")
    for group in found["class_names_alike"]:
        kinds["classes"].append(f"Classes of nearly the same name: {some(group)}")
    across = _first(found["near_copies_across_splits"])
    for group in found["near_copies"]:
        where = " (in different splits)" if group[0] in across else ""
        kinds["images that look alike"].append(f"They look alike: {some(group)}{where}")
    for name, split in found["splits"].items():
        for path, kind in split["misnamed"].items():
            kinds["misnamed"].append(f"{path}: is a {kind} by its bytes (no error)")
        kinds["pixels"] += _of_pixels(name, split)
        if split["unlabelled"]:
            text = f"{name}: {count(split['unlabelled'], 'image')} without a label"
            kinds["splits"].append(text)
        counts = [number for number in split["classes"].values() if number]
        if counts and max(counts) > _BALANCE * min(counts):
            kinds["splits"].append(
                f"{name}: the largest class has {max(counts) / min(counts):.0f} times as many "
                "images as the smallest; see data.class_weights in docs/finetuning.md"
            )
    return kinds


def _of_pixels(name: str, split: dict[str, Any]) -> list[str]:
    """Returns remarks about how a network sees the pictures."""
    lines = []
    for names, what in (
        (split["transparent"], "{} with transparent parts, which show white; see data.background"),
        (split["dark_16_bit"], "{} of 16 bits without bright values; see data.scale_16_bit"),
    ):
        if names:
            text = what.format(count(len(names), "image"))
            lines.append(f"{name}: {text}: {some(names)}")
    if wide := split["wide"]:
        share = sum(wide.values()) / len(wide)
        lines.append(
            f"{name}: {count(len(wide), 'image')} at least twice as long as wide or high: "
            f"the centre crop of evaluation leaves out {share:.0%} of them. Cut them to what "
            f"matters if that stands at the edge: {some(wide)}"
        )
    return lines


def _first(groups: list[list[str]]) -> set[str]:
    """Returns the first name of each group, which is in no other."""
    return {group[0] for group in groups}
