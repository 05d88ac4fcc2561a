"""What is wrong with a data set, and what is worth a look: as JSON and in sentences."""

from __future__ import annotations

import collections
import itertools
import math
import os
from collections.abc import Iterable
from typing import Any

import numpy as np

from lightnets.config.choices import MUCH
from lightnets.config.tasks import DEFAULT, TASKS
from lightnets.data.dataset import Dataset
from lightnets.data.load import SQUARE
from lightnets.data.sources import layout, listing
from lightnets.doctor import look_alikes
from lightnets.doctor.examine import Look, Split
from lightnets.support.words import count, some

# Value below which the pixels of a file of 16 bits are those of 14 at most.
_DARK = 2**14
# Pictures are of one shape if their aspect ratios differ by no more than this factor.
_ONE_SHAPE = 1.5
# Most images of a class for each of the rarest class, above which it is worth a remark.
_BALANCE = 10
# Lines of one kind that a person is shown.
_SHOWN = 20
# What to do about formats that are not read.
_HINTS = dict.fromkeys(listing.OTHER_SUFFIXES.values(), "; save them as PNG or JPEG")
_HINTS["HEIC"] = "; pip install 'keras-lightnets[heif]' reads them"

# Kind of finding to its lines.
Kinds = dict[str, list[str]]
Group = list[Look]


def findings(splits: dict[str, Split], dataset: Dataset) -> dict[str, Any]:
    """Returns everything that was found.

    `wrong` and `remarks` are lines for a person, by kind; the data set is clean if `wrong` is
    empty. `remove` are the files to delete: empty, damaged, and all copies but one, unless they
    carry different labels. Of copies across splits, those outside the training set stay.
    """
    looks = [look for split in splits.values() for look in split.looks]
    copies, alike = _copies(looks), _look_alikes(looks)
    every = {name for split in splits.values() for name in split.classes}
    missing = {name: sorted(every - set(split.classes)) for name, split in splits.items()}
    found: dict[str, Any] = {
        "task": dataset.task,
        "splits": {name: _describe(split) for name, split in splits.items()},
        "copies": _names(copies),
        "copies_across_splits": _names(filter(_across, copies)),
        "copies_with_different_labels": _names(filter(_contradict, copies)),
        "near_copies": _names(alike),
        "near_copies_across_splits": _names(filter(_across, alike)),
        "class_names_that_differ": {name: lacks for name, lacks in missing.items() if lacks},
        "class_names_alike": layout.alike(dataset.classes),
        "left_over": dict(dataset.left_over),
        "remove": _to_remove(looks, copies),
    }
    return found | {"wrong": _wrong(found, copies), "remarks": _remarks(found, alike)}


def lines(kinds: Kinds) -> list[str]:
    """Returns the lines of all kinds."""
    return list(itertools.chain(*kinds.values()))


def first_lines(kinds: Kinds) -> list[str]:
    """Returns the first lines of each kind, and how many more there are."""
    shown = []
    for kind, own in kinds.items():
        shown += own[:_SHOWN]
        if len(own) > _SHOWN:
            shown.append(f"... {kind}: {len(own) - _SHOWN} more (--json names all)")
    return shown


def verdict(found: dict[str, Any]) -> str:
    """Returns how much is wrong."""
    wrong = lines(found["wrong"])
    return count(len(wrong), "finding") if wrong else "nothing is wrong"


def table(found: dict[str, Any]) -> tuple[list[str], list[list[Any]]]:
    """Returns the headers and the rows of a table of the splits."""
    noun, nouns = TASKS[found["task"]].nouns
    headers = ["split", "images", nouns, f"fewest per {noun}", f"most per {noun}"]
    rows = []
    for name, split in found["splits"].items():
        counts = split["classes"].values()
        # Width x height, as people write it.
        sizes = [size and f"{size[1]}x{size[0]}" for size in map(split.get, _SIZES)]
        formats = ", ".join(f"{number} {kind}" for kind, number in split["formats"].items())
        row = [name, split["images"], len(counts), min(counts), max(counts)]
        cut = split["cut_off"]
        lost = f"{cut['median']:.0%}, at most {cut['most']:.0%}" if cut["file"] else ""
        rows.append([*row, *(size or "" for size in sizes), lost, formats])
    return [*headers, *_SIZES, "cut off by a crop", "formats"], rows


_SIZES = "smallest", "median", "largest"


def _names(groups: Iterable[Group]) -> list[list[str]]:
    return [[look.name for look in group] for group in groups]


def _across(group: Group) -> bool:
    return len({look.split for look in group}) > 1


def _contradict(group: Group) -> bool:
    return len({look.label for look in group} - {None}) > 1


def _copies(looks: Iterable[Look]) -> list[Group]:
    """Returns groups of files of the same bytes."""
    same: dict[str, Group] = collections.defaultdict(list)
    for look in looks:
        if look.digest and not look.error:
            same[look.digest].append(look)
    return [group for group in same.values() if len(group) > 1]


def _look_alikes(looks: Iterable[Look]) -> list[Group]:
    """Returns groups of images that look the same but are different files."""
    first: dict[str | None, Look] = {}
    for look in looks:
        if look.hash is not None:
            first.setdefault(look.digest, look)
    unique = list(first.values())
    codes = np.array([look.hash for look in unique], np.uint64)
    return [[unique[place] for place in group] for group in look_alikes.groups(codes)]


def _to_remove(looks: Iterable[Look], copies: Iterable[Group]) -> list[str]:
    names = [look.name for look in looks if look.worthless]
    for group in copies:
        if not _contradict(group):
            # Sorting keeps the order within a split; a file listed twice is no copy of itself.
            kept, *others = sorted(group, key=lambda look: layout.role(look.split) == "train")
            names += [look.name for look in others if look.name != kept.name]
    return list(dict.fromkeys(names))


def _describe(split: Split) -> dict[str, Any]:
    looks = split.looks
    sizes = sorted((look.size for look in looks if look.size), key=math.prod)
    counts = split.counts()
    lost = {look.name: round(SQUARE.cut_off(*look.size), 2) for look in looks if look.size}
    lost = dict(sorted(lost.items(), key=lambda item: -item[1]))
    return {
        "images": len(looks),
        "classes": counts,
        "unlabelled": sum(look.label is None for look in looks),
        "empty_classes": [name for name in split.classes if not counts[name]],
        "formats": dict(
            sorted(collections.Counter(look.kind or "unknown" for look in looks).items())
        ),
        "smallest": sizes[0] if sizes else None,
        "median": sizes[len(sizes) // 2] if sizes else None,
        "largest": sizes[-1] if sizes else None,
        "damaged": {look.name: look.error for look in looks if look.error},
        "misnamed": {look.name: look.kind for look in looks if _misnamed(look)},
        "no_images": split.strays,
        "transparent": [look.name for look in looks if look.transparent],
        "dark_16_bit": {
            look.name: look.brightest
            for look in looks
            if look.brightest is not None and look.brightest < _DARK
        },
        # Shares of the area outside the centre crop of a square; the worst first.
        "cut_off": {
            "median": float(np.median([*lost.values()])) if lost else None,
            "most": max(lost.values(), default=None),
            "file": next(iter(lost), None),
        },
        "wide": {name: share for name, share in lost.items() if share >= MUCH},
        "flags": _flags(sizes),
    }


def _flags(sizes: list[tuple[int, int]]) -> str:
    """Returns the flags for a network that sees whole pictures, of their shape if that is one."""
    ratios = [width / height for height, width in sizes] or [1.0]
    if max(ratios) > _ONE_SHAPE * min(ratios):
        return "--resize pad"
    # As many pixels as the square has.
    side, ratio = SQUARE.image_size[0], math.sqrt(np.median(ratios))
    height, width = (max(round(length / 32), 1) * 32 for length in (side / ratio, side * ratio))
    return f"--resize pad --image-size {height}x{width}"


def _misnamed(look: Look) -> bool:
    suffix = os.path.splitext(look.name)[1].lower()  # noqa: PTH122 (a name, maybe no path)
    return look.kind is not None and listing.SUFFIXES.get(suffix, look.kind) != look.kind


def _wrong(found: dict[str, Any], copies: Iterable[Group]) -> Kinds:
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
    if len(every) < 2 and found["task"] == DEFAULT:
        kinds["classes"].append(f"There is one class only ({some(sorted(every))})")
    for name, classes in found["class_names_that_differ"].items():
        text = f"{name}: lacks the classes {some(classes)}, which another split has"
        kinds["classes"].append(text)
    for group in copies:
        labels = " (with different labels)" if _contradict(group) else ""
        kinds["copies"].append(f"The same file: {_places(group)}{labels}")
    return kinds


def _places(group: Group) -> str:
    return some(look.name for look in group) + " (in different splits)" * _across(group)


def _remarks(found: dict[str, Any], alike: Iterable[Group]) -> Kinds:
    """Returns one line for everything that deserves a look but may be meant."""
    strays = {path for split in found["splits"].values() for path in split["no_images"]}
    left_over: dict[str, list[str]] = {}
    for path, reason in found["left_over"].items():
        if path not in strays:
            left_over.setdefault(reason, []).append(path)
    kinds: Kinds = {
        "left over": [
            f"Not read, {reason} ({len(paths)}): {some(paths)}{_HINTS.get(reason, '')}"
            for reason, paths in sorted(left_over.items())
        ],
        "classes": [
            f"Classes of nearly the same name: {some(group)}"
            for group in found["class_names_alike"]
        ],
        "splits": [],
        "images that look alike": [f"They look alike: {_places(group)}" for group in alike],
        "misnamed": [],
        "pixels": [],
    }
    for name, split in found["splits"].items():
        for path, kind in split["misnamed"].items():
            kinds["misnamed"].append(f"{path}: is a {kind} by its bytes (no error)")
        kinds["pixels"] += [f"{name}: {text}" for text in _of_pixels(split)]
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


def _of_pixels(split: dict[str, Any]) -> list[str]:
    """Returns remarks about how a network sees the pictures."""
    wide = split["wide"]
    remarks = (
        (split["transparent"], "with transparent parts, which show white; see data.background"),
        (split["dark_16_bit"], "of 16 bits without bright values; see data.scale_16_bit"),
        (
            wide,
            f"of which the centre crop cuts off {MUCH:.0%} or more, up to "
            f"{max(wide.values(), default=0):.0%}; a network sees all of each with "
            f"{split['flags']}",
        ),
    )
    return [
        f"{count(len(names), 'image')} {text}: {some(names)}" for names, text in remarks if names
    ]
