"""What the name of a split, a folder or a data set says."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterable

from lightnets.config.keys import DataConfig
from lightnets.support.errors import UserError

# Name of a split to what it is for. Of several to evaluate on, the first one here is taken:
# imagenet2012's `test` has no labels, so validation splits come first.
_ROLES = {
    **{"train": "train", "training": "train"},
    **{"val": "val", "valid": "val", "validation": "val", "dev": "val"},
    **{"test": "test", "testing": "test"},
}
_PLAIN = re.compile(r"[ _-]*(set|split|data)$")


def role(name: str) -> str | None:
    """Returns train, val or test for the name of such a split, as `Training_set`; else None."""
    return _ROLES.get(_plain(name))


def _plain(name: str) -> str:
    return _PLAIN.sub("", name.strip().lower())


def match(wanted: str, names: Collection[str]) -> str | None:
    """Returns the one of `names` that is meant: itself, in other case, or by what it is for."""
    same = (
        lambda name: name == wanted,
        lambda name: name.lower() == wanted.strip().lower(),
        lambda name: role(name) is not None and role(name) == role(wanted),
    )
    for test in same:
        if len(found := [name for name in names if test(name)]) == 1:
            return found[0]
    return None


def choose(
    names: Collection[str], data: DataConfig, where: str, fallback: str | None = None
) -> tuple[str, str | None]:
    """Returns the split to train on and the one to evaluate on: those asked for, else by name.

    Args:
        names: Of all splits.
        data: May name them.
        where: The data set, for a message.
        fallback: To train on, where none is named like a training split.

    Raises:
        UserError: There is no split to train on, or more than one.
    """
    train = data.train_split
    if train is None:
        found = [name for name in names if role(name) == "train"]
        if len(found) > 1 and "train" not in found:
            raise UserError(
                f"{where} has several splits to train on: {', '.join(found)}. "
                "Choose one by --set data.train_split=NAME."
            )
        train = ("train" if "train" in found else found[0]) if found else fallback
    if train is None:
        raise UserError(
            f"{where} has no split to train on. It has: {', '.join(names)}. "
            "Choose one by --set data.train_split=NAME."
        )
    order = list(_ROLES)
    held_out = [name for name in names if role(name) in ("val", "test")]
    held_out.sort(key=lambda name: order.index(_plain(name)))
    chosen = next((name for name in held_out if name != train), None)
    return train, data.eval_split or chosen


def alike(classes: Iterable[str]) -> list[list[str]]:
    """Returns groups of class names that differ in case, spaces or Unicode form only."""
    groups: dict[str, list[str]] = {}
    for name in classes:
        plain = unicodedata.normalize("NFKC", name).casefold()
        groups.setdefault(" ".join(plain.replace("_", " ").split()), []).append(name)
    return [group for group in groups.values() if len(group) > 1]
