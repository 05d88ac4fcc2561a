"""Pages of HTML that need no other file. What comes from outside is escaped."""

from __future__ import annotations

import base64
import html
import itertools
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from lightnets.support.writing import replacing

_STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem;
       color: #222; background: #fff; }
h1, h2 { line-height: 1.2; } h1, p, li, td, figcaption { overflow-wrap: anywhere; }
h2 { margin-top: 2.2rem; border-bottom: 1px solid #ddd; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; }
th, td { padding: .2rem .9rem .2rem 0; text-align: left; vertical-align: top; min-width: 2.8rem; }
td:first-child { min-width: 6rem; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
.figures { display: flex; flex-wrap: wrap; gap: .8rem; margin: .8rem 0; }
figure { margin: 0; width: 8rem; } .wide figure { width: min(24rem, 100%); }
figcaption { font-size: 12px; } figure:target { outline: 3px solid #4878a8; }
.wide img { width: 100%; height: auto; } a { color: #14569c; }
figure img { width: 8rem; max-height: 8rem; object-fit: contain; display: block; }
.none { width: 8rem; height: 8rem; background: #8883; } .bar { height: .8rem; background: #4878a8; }
.drawn { max-width: 100%; background: #fff; } pre { overflow-x: auto; }
b.good { color: #171; } b.bad { color: #a11; }
@media (prefers-color-scheme: dark) { body { color: #ddd; background: #181818; }
  h2 { border-color: #444; } a { color: #8bf; } b.good { color: #8d8; } b.bad { color: #f88; } }
"""


class Link(NamedTuple):
    """Text that leads to a place of the same page."""

    text: Any
    place: str


def write(path: pathlib.Path, title: str, parts: Iterable[str]) -> None:
    """Writes a page of a title and parts of HTML, whole or not at all."""
    page = (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width">\n'
        f"<title>{text(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        f"<h1>{text(title)}</h1>\n" + "\n".join(filter(None, parts)) + "\n</body>\n</html>\n"
    )
    with replacing(path, "wb") as file:
        # Names of files may be no valid text.
        file.write(page.encode("utf-8", "backslashreplace"))


def text(value: Any) -> str:
    """Returns a value as text of a page."""
    if isinstance(value, Link):
        return f'<a href="#{text(value.place)}">{text(value.text)}</a>'
    return html.escape(f"{value:.4f}" if isinstance(value, float) else str(value))


def section(title: str, *parts: str) -> str:
    """Returns parts below a heading; nothing if there is nothing in them."""
    inside = "\n".join(filter(None, parts))
    return f"<h2>{text(title)}</h2>\n{inside}" if inside else ""


def lines(texts: Iterable[str]) -> str:
    """Returns a list with an item for each text."""
    items = "\n".join(f"<li>{text(one)}</li>" for one in texts)
    return f"<ul>\n{items}\n</ul>" if items else ""


def table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Returns a table of texts and numbers, which stand to the right."""
    rows = list(rows)
    numbers = [all(isinstance(row[k], (int, float)) for row in rows) for k in range(len(header))]

    def line(tag: str, cells: Sequence[Any]) -> str:
        kinds = [' class="number"' if number else "" for number in numbers]
        inside = "".join(
            f"<{tag}{kind}>{text(cell)}</{tag}>" for kind, cell in zip(kinds, cells, strict=True)
        )
        return f"<tr>{inside}</tr>"

    body = "\n".join(line("td", row) for row in rows)
    head = line("th", header) if any(header) else ""
    return f'<div class="scroll"><table>\n{head}\n{body}\n</table></div>'


def bars(counts: Mapping[str, int]) -> str:
    """Returns a table of names with their counts, each with a bar of its length."""
    most = max([*counts.values(), 1])
    rows = "\n".join(
        f'<tr><td>{text(name)}</td><td class="number">{number}</td>'
        f'<td><div class="bar" style="width: {16 * number / most:.1f}rem"></div></td></tr>'
        for name, number in counts.items()
    )
    return f'<div class="scroll"><table>\n{rows}\n</table></div>'


def figures(
    pictures: Iterable[tuple[bytes | None, Sequence[str]]],
    places: Iterable[str] | None = None,
) -> str:
    """Returns JPEG files in rows, each with lines of text below it; None is no picture.

    Args:
        pictures: The files and their lines.
        places: What a `Link` calls each; with them the pictures are three times as wide as high.
    """
    tags = itertools.repeat("<figure>")
    if places is not None:
        tags = (f'<figure id="{text(place)}">' for place in places)
    shown = [
        f"{tag}{_picture(jpeg)}<figcaption>{'<br>'.join(map(text, captions))}</figcaption></figure>"
        for (jpeg, captions), tag in zip(pictures, tags, strict=False)
    ]
    kind = "figures" if places is None else "figures wide"
    return f'<div class="{kind}">{"".join(shown)}</div>' if shown else ""


def _picture(jpeg: bytes | None) -> str:
    if jpeg is None:
        return '<div class="none">no picture</div>'
    return f'<img alt="" src="{_data("jpeg", jpeg)}">'


def drawn(png: bytes, what: str) -> str:
    """Returns a PNG file as wide as it is, or as the page; `what` says what it shows."""
    return f'<img class="drawn" alt="{text(what)}" src="{_data("png", png)}">'


def _data(kind: str, file: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(file).decode()}"
