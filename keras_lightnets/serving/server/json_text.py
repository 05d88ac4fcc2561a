"""Finds the values in a JSON text without making objects of it, which take many times its size.

It reads what TF Serving's parser reads: lists of any depth, `NaN` and `Inf`, anything behind the
document, and of equal keys the first.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from keras_lightnets.serving.server import errors

SPACE = b" \t\r\n"
# So many values are read at once: other threads get their turn in between.
_RUN = 1000

# Parts of regular expressions; "++" and "*+" never go back, so that none takes long.
S = rb"[ \t\r\n]*+"
STRING = rb'"(?:[^"\\\x00-\x1f]++|\\["\\/bfnrtu])*+"'
_NUMBER = rb"-?(?:[0-9][0-9.eE+-]*+|Inf(?:inity)?|NaN)"  # roughly; who makes one looks again
_SCALAR = rb"(?:" + _NUMBER + rb"|" + STRING + rb"|true|false|null)"


def _several(part: bytes) -> bytes:
    return part + rb"(?:%b,%b%b){0,%d}+" % (S, S, part, _RUN)


# A scalar, an empty object, or a list of scalars.
_FLAT = rb"(?:%b|\{%b\}|\[%b(?:%b%b)?\])" % (_SCALAR, S, S, _several(_SCALAR), S)
_ONE = re.compile(S + rb"(?:" + _FLAT + rb"|([\[{]))")
_SEVERAL = re.compile(S + rb"(?:" + _several(_FLAT) + rb"|([\[{]))")
_KEY = re.compile(rb"%b(%b)%b:%b" % (S, STRING, S, S))
_NEXT = re.compile(S + rb"([,\]}])")
_EMPTY = re.compile(rb"[\[{]" + S + rb"[\]}]")


def end(text: bytes, at: int = 0) -> int:
    """Where the value at `at` ends.

    Raises:
        ServingError: It is no JSON.
    """
    closers = bytearray()  # of the lists and objects around `at`
    while True:
        if closers.endswith(b"}"):
            at = _found(_KEY, text, at).end()
        match = _found(_SEVERAL if closers.endswith(b"]") else _ONE, text, at)
        at = match.end()
        if match[1]:
            closers += b"]" if match[1] == b"[" else b"}"
            continue
        while closers:
            match = _found(_NEXT, text, at)
            at = match.end()
            if match[1] == b",":
                break
            if closers.pop() != match[1][0]:
                raise syntax(at)
        else:
            return at


def items(text: bytes) -> Iterator[bytes]:
    """The values in a list; what follows it does not matter."""
    return (value for _, value in _parts(text))


def members(text: bytes) -> dict[str, bytes]:
    """The values in an object by their keys; what follows it does not matter."""
    values: dict[str, bytes] = {}
    for key, value in _parts(text):
        values.setdefault(unescaped(key).decode("utf-8", "surrogateescape"), value)
    return values


def _parts(text: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Keys, which a list does not have, and values."""
    if _EMPTY.match(text):
        return
    closer, at = (b"]" if text.startswith(b"[") else b"}"), 1
    while True:
        key = b""
        if closer == b"}":
            match = _found(_KEY, text, at)
            key, at = match[1], match.end()
        stop = end(text, at)
        yield key, text[at:stop].lstrip(SPACE)
        match = _found(_NEXT, text, stop)
        at = match.end()
        if match[1] == closer:
            return
        if match[1] != b",":
            raise syntax(at)


def unescaped(string: bytes) -> bytes:
    """The content of a JSON string, whatever its bytes are.

    Raises:
        ServingError: An escape that stands for nothing.
    """
    if b"\\" not in string:
        return string[1:-1]
    try:
        text = json.loads(string.decode("utf-8", "surrogateescape"))
        # A lone surrogate of an escape cannot be encoded, a byte that was no UTF-8 can.
        return text.encode("utf-8", "surrogateescape")
    except ValueError:
        raise errors.invalid("JSON Parse error: Invalid escape character in string.") from None


def _found(pattern: re.Pattern[bytes], text: bytes, at: int) -> re.Match[bytes]:
    match = pattern.match(text, at)
    if match is None:
        raise syntax(at)
    return match


def syntax(at: int) -> errors.ServingError:
    """What to raise where a text is no JSON."""
    return errors.invalid(f"JSON Parse error: Invalid value. at offset: {at}")


def excerpt(text: bytes, limit: int = 80) -> str:
    """The start of a value, for complaints."""
    shown = text[: limit + 1].decode("utf-8", "replace")
    return shown if len(shown) <= limit else f"{shown[:limit]}..."
