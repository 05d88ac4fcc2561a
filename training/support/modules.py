"""Functions of other people's modules, `module:function`, also of those in the current folder."""

from __future__ import annotations

import importlib.util
import pathlib
import pkgutil
import sys
import traceback
from typing import Any

from keras_lightnets.text import first_line
from lightnets.support.errors import UserError


def check(name: str) -> None:
    """Raises UserError unless there is a module of this name, which is not imported for it."""
    module = name.partition(":")[0]
    _look_here()
    try:
        found = importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        found = False
    if not found:
        raise UserError(
            f"{name}: there is no module {module!r} in the current folder or on PYTHONPATH."
        )


def load(name: str) -> Any:
    """Imports what `module:function` names.

    Raises:
        UserError: It cannot be imported.
    """
    _look_here()
    try:
        return pkgutil.resolve_name(name)
    except Exception as error:  # anything may be wrong in somebody's module
        raise UserError(f"Cannot import {name}: {blame(error)}") from None


def blame(error: Exception) -> str:
    """Returns an error of somebody's code on one line, with the line of theirs that led to it."""
    others = (sys.prefix, sys.base_prefix, str(pathlib.Path(__file__).parents[1]), "<")
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [each for each in frames if not each.filename.startswith(others)]
    where = f" ({theirs[-1].filename}, line {theirs[-1].lineno})" if theirs else ""
    return f"{type(error).__name__}: {first_line(error)}{where}"


def _look_here() -> None:
    # Behind all else: a `random.py` in the folder is not to stand for Python's.
    here = str(pathlib.Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
