"""Plain lines and tables for a terminal: never cut, never obeyed, whatever names are in them."""

from __future__ import annotations

import io
import shutil
import sys
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

from keras_lightnets.text import visible

_Item = TypeVar("_Item")
# Of a terminal's columns, what a name takes before it wraps.
_NAME = 36


def escape_unprintable() -> None:
    """Lets what a terminal's encoding lacks be printed as an escape, where it would be an error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")


def line(text: str = "", *, error: bool = False) -> None:
    """Prints one line at once, its control characters as escapes.

    Args:
        text: The line.
        error: Whether it goes to standard error.
    """
    stream = sys.stderr if error else sys.stdout
    stream.write(f"{visible(text)}\n")  # in one piece: other libraries write there, too
    stream.flush()


def bar(items: Iterable[_Item], what: str, total: int) -> Iterable[_Item]:
    """Yields the items, with a bar on standard error if that is a terminal."""
    from rich.console import Console
    from rich.progress import track

    shown, hidden = Console(stderr=True), not sys.stderr.isatty()
    return track(items, what, total, transient=True, console=shown, disable=hidden)


def paragraph(text: str) -> None:
    """Prints sentences in lines of the terminal's width."""
    for part in textwrap.wrap(text, shutil.get_terminal_size().columns):
        line(part)


def fields(*values: object) -> None:
    """Prints a line of fields with a tab between two."""
    print("\t".join(map(visible, values)), flush=True)


def columns(headers: Sequence[str] | None, rows: Iterable[Sequence[Any]]) -> None:
    """Prints a table on a terminal; elsewhere, for grep, cut and sort, rows with tabs alone."""
    if sys.stdout.isatty():
        table(headers, rows)
    else:
        for row in rows:
            fields(*row)


def table(headers: Sequence[str] | None, rows: Iterable[Sequence[Any]]) -> None:
    """Prints a table: the first column to the left, numbers to the right.

    On a terminal long cells wrap to its width, long words too: nothing is cut. In a file or pipe
    they stay on one line.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    rows = [[str(cell) for cell in row] for row in rows]
    shown = Table(box=None, pad_edge=False, show_header=headers is not None)
    for number, header in enumerate(headers or [""] * len(rows[0])):
        cells = [row[number] for row in rows]
        shown.add_column(
            header,
            justify="right" if rows and number and all(map(_is_number, cells)) else "left",
            # Names stay whole while there is room; other columns wrap first.
            min_width=0 if number else min(max(map(len, cells), default=0), _NAME),
            overflow="fold",
        )
    for row in rows:
        # Text, not str: a class may be called "[bold]".
        shown.add_row(*(Text(visible(cell)) for cell in row))
    width = None if sys.stdout.isatty() else 10_000
    Console(file=sys.stdout, width=width).print(shown)


def _is_number(text: str) -> bool:
    try:
        float(text.replace(",", "").removesuffix("%"))
    except ValueError:
        return text in ("", "-")
    return True
