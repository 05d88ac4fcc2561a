"""Text from outside (names of files, classes, models; errors) as one line that is safe to show."""

from __future__ import annotations

import re
from collections.abc import Sequence

# What moves the cursor, starts an escape sequence, breaks a line or reverses its direction, and
# bytes of a file name that are not UTF-8.
_HIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_NAMED = {"\t": r"\t", "\n": r"\n", "\r": r"\r"}

# Lines of TensorFlow and OpenVINO that say where in their code an error arose.
_NOISE = (
    "Graph execution error",
    "Detected at node",
    "File ",
    "[[{{node",
    "Detected unsupported",
    "<stack",
    "Exception from",
    "Check '",
)
_LONGEST = 300
_LISTED = 10  # of many problems


def visible(text: object) -> str:
    r"""Returns `text` on one line, with control characters as escapes such as `\n` or `\x1b`."""
    return _HIDDEN.sub(lambda match: _escape(match[0]), str(text))


def is_utf8(text: str) -> bool:
    """Returns whether a name can be written as UTF-8: not if it has other bytes of the disk."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _escape(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # how Python keeps a byte that is not UTF-8
        code -= 0xDC00
    elif code > 0x7F:
        return f"\\u{code:04x}"
    return _NAMED.get(character, f"\\x{code:02x}")


def listed(problems: Sequence[str]) -> str:
    """Returns the first few, and how many more there are: `a; b; and 7 more`."""
    more = [f"and {len(problems) - _LISTED} more"] if len(problems) > _LISTED else []
    return "; ".join([*problems[:_LISTED], *more])


def first_line(error: BaseException) -> str:
    """Returns the first line of an error that says something to a user, without its last dot.

    A line that ends in a colon only announces the next one.
    """
    text = getattr(error, "strerror", None) or getattr(error, "message", None) or str(error)
    if "No space left" in text:
        return "the disk is full"
    lines = (line.strip() for line in text.split("\n"))
    told = (line for line in lines if line and line[-1] != ":" and not line.startswith(_NOISE))
    return visible(next(told, type(error).__name__)[:_LONGEST].removesuffix("."))
