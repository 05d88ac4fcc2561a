"""What the name of a split, a folder or a data set says."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

# Name of a split to its purpose. Of several to evaluate on, the first one here is taken:
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


def held_out(names: Iterable[str]) -> list[str]:
    """Returns those of the splits that are not for training, the first to evaluate on first."""
    order = list(_ROLES)
    found = [name for name in names if role(name) in ("val", "test")]
    return sorted(found, key=lambda name: order.index(_plain(name)))


def alike(classes: Iterable[str]) -> list[list[str]]:
    """Returns groups of class names that differ in case, spaces or Unicode form only."""
    groups: dict[str, list[str]] = {}
    for name in classes:
        plain = unicodedata.normalize("NFKC", name).casefold()
        groups.setdefault(" ".join(plain.replace("_", " ").split()), []).append(name)
    return [group for group in groups.values() if len(group) > 1]
