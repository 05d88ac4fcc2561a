"""The page on which a person tries a network: of the embedded server, and of an exported folder."""

from __future__ import annotations

import pathlib


def page(script: pathlib.Path) -> str:
    """Returns the page whose answers come from a script. It asks nobody but where it came from.

    Args:
        script: Defines `prepare()`, called once, and `answers(file)`, which gives `rows`, pairs of
            a class and its probability, the most likely one first, and `known`, false where it is
            none of the classes; both may wait and fail. A third number is the length of a bar,
            where that is not the second: 0 is none.
    """
    whole = pathlib.Path(__file__).with_suffix(".html").read_text(encoding="utf-8")
    return whole.replace("/* prepare and answers */", script.read_text(encoding="utf-8"))
