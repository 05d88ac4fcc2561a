"""Plain lines and tables on standard output, never cut and never interpreted as markup."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import Any


def line(text: str = "") -> None:
    """Prints one line as it is."""
    print(text)


def table(headers: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Prints a table: the first column to the left, numbers to the right.

    On a terminal long cells wrap to its width; in a file or pipe they stay on one line.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    rows = [[str(cell) for cell in row] for row in rows]
    shown = Table(box=None, pad_edge=False)
    for number, header in enumerate(headers):
        numeric = rows and all(_is_number(row[number]) for row in rows)
        shown.add_column(header, justify="right" if numeric and number else "left")
    for row in rows:
        # Text, not str: a class may be called "[bold]".
        shown.add_row(*map(Text, row))
    width = None if sys.stdout.isatty() else 10_000
    Console(file=sys.stdout, width=width).print(shown)


def _is_number(text: str) -> bool:
    try:
        float(text.replace(",", "").removesuffix("%"))
    except ValueError:
        return text in ("", "-")
    return True
