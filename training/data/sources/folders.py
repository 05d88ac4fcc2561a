"""What a folder of pictures means: which of the folders in it are splits, and which classes."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Collection, Mapping

import numpy as np

from keras_lightnets.text import visible
from lightnets.data.sources import layout as names
from lightnets.data.sources import listing
from lightnets.data.sources.part import Part, Tree, file_source
from lightnets.support.errors import UserError
from lightnets.support.words import count

_BESIDE = "beside the class folders"
_EMPTY = "a folder without pictures"
_UNCLASSED = "a split without class folders"
_UNUSED = "a folder that is no split"


def read_folder(root: pathlib.Path, layout: str = "auto") -> Tree:
    """Lists a folder of splits with class folders in them, or of class folders.

    Folders named like splits are splits if they hold class folders. If pictures lie directly in
    them, beside other classes, they are classes. Where both make sense, `layout` must say which.

    Args:
        root: The folder.
        layout: auto, classes or splits (`data.layout`).

    Raises:
        UserError: There are no pictures, or it cannot be decided what the folders are.
    """
    tree = _tree(root, layout)
    if sum(part.source.count for part in tree.parts.values()) > listing.UNASKED_LIMIT:
        return tree
    parts = {name: part.readable() for name, part in tree.parts.items()}
    if not any(part.source.count for part in parts.values()):
        left_out = listing.counted(
            [why for part in parts.values() for why in part.skipped.values()]
        )
        raise UserError(f"{root} holds no picture that can be read. Left out: {left_out}.")
    return tree._replace(parts=parts)


def _tree(root: pathlib.Path, layout: str) -> Tree:
    """Reads the folder by names alone."""
    beside = listing.Found()
    folders = listing.look(root, beside)
    named = {path: scan(path) for path in folders if layout != "classes" and _role(path)}
    splits = {path: found for path, found in named.items() if found.classes}
    others = {path: scan(path) for path in folders if path not in named} if splits else {}
    if layout == "auto" and splits:
        _check_decided(root, splits, others)
    if layout == "splits" and not splits:
        raise UserError(f"{root} has no train/, val/ or test/ with class folders in it.")
    if not splits:
        found = scan(root)
        if named and all(map(names.role, found.classes)):
            raise UserError(
                f"{root}: there are no class folders in {', '.join(map(os.path.basename, named))}. "
                "If these are the classes, say so by --layout classes."
            )
        if not found.source.count:
            raise UserError(_no_images(root, found))
        return Tree({"train": found}, False, found.beside)
    left_over = beside.skipped | dict.fromkeys(beside.images, _BESIDE)
    for path, found in (named | others).items():
        if path in splits:
            left_over |= found.beside
        else:
            reason = _UNCLASSED if path in named else _UNUSED
            left_over[path] = reason if _holds_pictures(found) else _EMPTY
    keys = [os.path.basename(path).strip().lower() for path in splits]  # noqa: PTH119
    if len(set(keys)) < len(keys):
        raise UserError(f"{root} has several splits of one name: {', '.join(sorted(keys))}.")
    return Tree(dict(zip(keys, splits.values(), strict=True)), True, left_over)


def scan(root: str | os.PathLike) -> Part:
    """Lists a folder with one subfolder per class, however deep the files lie in them.

    A subfolder in which there is no picture of any format is no class.
    """
    beside = listing.Found()
    paths: list[str] = []
    counts, classes, skipped, unread = [], [], {}, {}
    for folder in listing.look(root, beside):
        found = listing.find_images(folder)
        if not found.images and {*found.skipped.values()} <= {listing.NO_IMAGE, listing.FOREIGN}:
            beside.skipped[folder] = _EMPTY
            continue
        classes.append(_class_name(folder))
        counts.append(len(found.images))
        paths += found.images
        skipped |= found.skipped
        if not found.images:
            unread[classes[-1]] = listing.counted(found.skipped)
    labels = np.repeat(np.arange(len(classes), dtype=np.int32), counts)
    beside.skipped |= dict.fromkeys(beside.images, _BESIDE)
    return Part(file_source(paths, labels), classes, skipped, unread, beside.skipped)


def nested(root: pathlib.Path, classes: Collection[str]) -> str:
    """Returns a hint for a folder of one class if its classes lie one level deeper."""
    (name,) = classes
    inside = root / name
    if inside.is_dir() and len(scan(inside).classes) > 1:
        return f" Its folders look like classes: name {inside} instead."
    return ""


def _role(path: str) -> str | None:
    return names.role(os.path.basename(path))  # noqa: PTH119


def _class_name(folder: str) -> str:
    name = os.path.basename(folder)  # noqa: PTH119
    try:
        name.encode()
    except UnicodeEncodeError:
        raise UserError(
            f"The name of the folder '{visible(folder)}' is not UTF-8, so it cannot name a class. "
            "Rename it."
        ) from None
    return name


def _holds_pictures(found: Part) -> bool:
    return bool(found.classes) or _BESIDE in found.beside.values()


def _check_decided(
    root: pathlib.Path, splits: Mapping[str, Part], others: Mapping[str, Part]
) -> None:
    """Raises UserError if `train` with folders in it may as well be a class beside others."""
    classes = [name for found in splits.values() for name in set(found.classes)]
    if len(set(classes)) < len(classes):
        return  # Two splits have a class in common.
    doubtful = [
        os.path.basename(path)  # noqa: PTH119
        for path, found in others.items()
        if _holds_pictures(found) and not set(found.classes) & set(classes)
    ]
    if doubtful:
        called = " and ".join(os.path.basename(path) for path in splits)  # noqa: PTH119
        raise UserError(
            f"{root}: {called} may be a split, or a class as {', '.join(doubtful[:3])}. Choose: "
            f"--layout splits reads {called} alone, --layout classes takes all "
            f"{count(len(others) + len(splits), 'folder')} as classes."
        )


def _no_images(root: pathlib.Path, found: Part) -> str:
    left_over = listing.counted([*found.skipped.values(), *found.beside.values()])
    return (
        f"{root} holds no images in class folders. Wanted: {root}/<class>/<image>, or "
        f"train/ and val/ with those in them.{f' Left out: {left_over}.' if left_over else ''}"
    )
