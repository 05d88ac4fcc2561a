"""The class names of a network in files: one a line, and exactly."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Sequence

from keras_lightnets.text import is_utf8, visible

LABELS, EXACT = "labels.txt", "labels.json"


def problem(names: Sequence[str]) -> str | None:
    """Returns what keeps `names` from being the classes of a network, None if nothing does."""
    seen = set()
    for name in names:
        if not name:
            return "A class has an empty name."
        if not is_utf8(name):
            return f"The name of the class '{visible(name)}' is not UTF-8. Rename it."
        if name in seen:
            return f"Class names must differ. {name!r} occurs more than once."
        seen.add(name)
    return None


def write(folder: pathlib.Path, names: Sequence[str]) -> None:
    """Writes `labels.txt`, for every reader of lines, and `labels.json` where it says less.

    That is where a name has line breaks or other control characters, which are escaped in the
    first.
    """
    lines = [visible(name) for name in names]
    (folder / EXACT).unlink(missing_ok=True)
    if lines != list(names):
        text = json.dumps(list(names), indent=2) + "\n"
        (folder / EXACT).write_text(text, encoding="utf-8")
    (folder / LABELS).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def read(folder: pathlib.Path) -> list[str]:
    """Reads what `write` wrote.

    Raises:
        OSError: There is neither file.
        ValueError: One is damaged.
    """
    if (folder / EXACT).is_file():
        names = json.loads((folder / EXACT).read_text(encoding="utf-8"))
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise ValueError(f"{EXACT} is no list of names")
        return names
    # Other readers of lines break them at more characters than this one.
    with (folder / LABELS).open(encoding="utf-8", newline="\n") as file:
        return [line.removesuffix("\n") for line in file]
