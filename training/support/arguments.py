"""How commands read their arguments."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from typing import NoReturn

from lightnets.support.errors import UsageError
from lightnets.support.words import nearest


class _Formatter(argparse.ArgumentDefaultsHelpFormatter):
    """Leaves out defaults that say nothing, or that the text states itself."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        told = action.help is not None and "default:" in action.help
        if told or action.default in (None, False, []):
            return action.help
        return super()._get_help_string(action)


class Parser(argparse.ArgumentParser):
    """An argument parser whose complaints name the nearest known flag or choice."""

    def __init__(self, **kwargs) -> None:
        kwargs.setdefault("allow_abbrev", False)
        kwargs.setdefault("formatter_class", _Formatter)
        super().__init__(**kwargs)

    def parse_args(self, args=None, namespace=None):
        namespace, unknown = self.parse_known_args(args, namespace)
        if unknown:
            name = unknown[0].partition("=")[0]
            parser = self
            for action in self._actions:
                if isinstance(action, argparse._SubParsersAction):
                    parser = action.choices[getattr(namespace, action.dest)]
            flags = [flag for action in parser._actions for flag in action.option_strings]
            near = nearest(name, [flag for flag in flags if flag.startswith("--")])
            what = "flag" if name.startswith("-") else "argument"
            raise UsageError(f"Unknown {what} {name!r}.{near} See {parser.prog} --help.")
        return namespace

    def _check_value(self, action, value) -> None:
        if action.choices is not None and value not in action.choices:
            names = [str(choice) for choice in action.choices]
            what = "/".join(action.option_strings) or action.metavar or action.dest
            raise UsageError(
                f"{what} must be one of {', '.join(names)}. "
                f"Received: {value!r}.{nearest(str(value), names)}"
            )

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message[:1].upper()}{message[1:]}. See {self.prog} --help.")


def whole(
    low: int, high: int | None = None, *, word: str | None = None
) -> Callable[[str], int | None]:
    """Returns what reads a whole number of a range, as `type` of an argument.

    Args:
        low: The lowest one.
        high: The highest one, or None.
        word: Stands for None.
    """
    rule = f"must be at least {low}" if high is None else f"must be {low} to {high}"

    def read(text: str) -> int | None:
        if text == word:
            return None
        # Lengths first: Python converts no number of more than 4300 digits.
        if re.fullmatch("[0-9]{1,19}", text) and low <= int(text) <= (high or int(text)):
            return int(text)
        choice = f"{rule}, or {word}" if word else rule
        raise argparse.ArgumentTypeError(f"{choice}. Received: {text[:40]}")

    return read
