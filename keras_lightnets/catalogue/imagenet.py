"""The 1000 classes of ImageNet (ILSVRC 2012), in the order of every published network's output.

`imagenet_classes.txt` holds a WordNet 3.0 identifier and the first word of its synset a line: the
identifiers sorted, as the challenge numbers them.
"""

from __future__ import annotations

import collections
import functools
import pathlib


@functools.cache
def synsets() -> dict[str, str]:
    """WordNet identifier (`"n01440764"`) -> word (`"tench"`), in the order of the classes."""
    text = pathlib.Path(__file__).with_name("imagenet_classes.txt").read_text(encoding="utf-8")
    return dict(line.split(" ", 1) for line in text.splitlines())


@functools.cache
def class_names() -> tuple[str, ...]:
    """One name a class, no two alike: a word of two classes is followed by the identifier."""
    count = collections.Counter(synsets().values())
    return tuple(
        f"{word} ({wnid})" if count[word] > 1 else word for wnid, word in synsets().items()
    )


def index(name: str) -> int | None:
    """Number of the class that has this identifier, name or word; None if there is no such one."""
    return _indices().get(name.strip().replace("_", " ").lower())


@functools.cache
def _indices() -> dict[str, int]:
    count = collections.Counter(synsets().values())
    words = {w.lower(): n for n, w in enumerate(synsets().values()) if count[w] == 1}
    names = {name.lower(): number for number, name in enumerate(class_names())}
    return {**words, **names, **{wnid: number for number, wnid in enumerate(synsets())}}
