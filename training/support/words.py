"""Words in messages: the nearest known name to one that was mistyped, plurals, commands."""

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Iterable

from keras_lightnets.text import visible

_NAMED = 5  # names in one line


def nearest(name: str, choices: Iterable[str]) -> str:
    """Returns ` Did you mean 'x'?`, or nothing when no choice is close."""
    matches = difflib.get_close_matches(name, list(choices), n=1)
    return f" Did you mean {matches[0]!r}?" if matches else ""


def is_path(name: str) -> bool:
    """Whether the name of a data set can only be a path, not one of TFDS (`name/config:1.0.0`)."""
    named = re.fullmatch(r"[A-Za-z]\w*([:/][\w.*+-]+)*", name)
    return named is None or name.endswith((".csv", ".jsonl"))


def count(number: int, noun: str, plural: str | None = None) -> str:
    """Returns `1 image`, `2 images`."""
    return f"{number} {noun if number == 1 else plural or noun + 's'}"


def some(names: Iterable[str]) -> str:
    """Returns the first names, and how many more there are: `a, b and 7 more`."""
    names = list(names)
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def command(*words: object) -> str:
    """Returns a command of ours that can be pasted into a shell: `lightnets serve 'my models'`."""
    return " ".join(["lightnets", *map(shell_word, words)])


def shell_word(word: object) -> str:
    """Returns a word as it is pasted into a shell, on one line."""
    text = visible(word)
    if text == str(word):
        return shlex.quote(text)
    # Bash and others read escapes in this form, and no line is broken.
    kept = str(word).replace("\\", "\\\\").replace("'", "\\'")
    return f"$'{visible(kept)}'"
