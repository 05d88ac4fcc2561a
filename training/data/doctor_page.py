"""The findings of the data doctor as one HTML page that needs no other file."""

from __future__ import annotations

import base64
import collections
import html
import pathlib
from typing import Any

from training.data.doctor import Look, Split
from training.data.doctor_text import count
from training.run import replacing

# Pictures of each class, and classes and groups with pictures, at most.
_PER_CLASS, _CLASSES, _GROUPS = 6, 60, 100

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem;
       color: #222; background: #fff; }
h1, h2 { line-height: 1.2; } h2 { margin-top: 2.2rem; border-bottom: 1px solid #ddd; }
table { border-collapse: collapse; } th, td { padding: .2rem .9rem .2rem 0; text-align: left; }
td.number { text-align: right; } td.bar { width: 22rem; }
td.bar div { height: .8rem; background: #4878a8; }
.group { display: flex; flex-wrap: wrap; gap: .8rem; padding: .5rem 0; border-top: 1px solid #eee; }
figure { margin: 0; width: 9rem; } figcaption { font-size: 12px; overflow-wrap: anywhere; }
img { width: 96px; height: 96px; object-fit: contain; background: #f0f0f0; display: block; }
.none { width: 96px; height: 96px; background: #f0f0f0; color: #666; font-size: 12px; }
li { overflow-wrap: anywhere; } .bad { color: #a11; } .good { color: #171; }
@media (prefers-color-scheme: dark) { body { color: #ddd; background: #181818; }
  img, .none { background: #2a2a2a; } .bad { color: #f88; } .good { color: #8d8; }
  h2, .group { border-color: #333; } }
"""


def write_page(
    path: pathlib.Path, dataset: str, splits: dict[str, Split], found: dict[str, Any]
) -> None:
    """Writes the page, whole or not at all."""
    with replacing(path, "wb") as file:
        # Names of files may be no valid text.
        file.write(page(dataset, splits, found).encode("utf-8", "backslashreplace"))


def page(dataset: str, splits: dict[str, Split], found: dict[str, Any]) -> str:
    """Returns the page. Every name in it is escaped: files may be called anything."""
    looks = {look.name: look for split in splits.values() for look in split.looks}
    images = sum(len(split.looks) for split in splits.values())
    wrong = found["wrong"]
    verdict = count(len(wrong), "finding") if wrong else "nothing is wrong"
    parts = [
        f"<h1>{_text(dataset)}</h1>",
        f'<p>{count(images, "image")}: <b class="{"bad" if wrong else "good"}">{verdict}</b></p>',
        _splits(found["splits"]),
        _lines("Wrong", wrong),
        _lines("Worth a look", found["remarks"]),
        _groups("The same file", found["copies"], looks),
        _groups("They look alike", found["near_copies"], looks),
    ]
    for name, split in splits.items():
        parts.append(_classes(name, found["splits"][name]["classes"], split))
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width">\n'
        f"<title>{_text(dataset)}: data check</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(filter(None, parts))
        + "\n</body>\n</html>\n"
    )


def _text(value: Any) -> str:
    return html.escape(str(value))


def _splits(splits: dict[str, Any]) -> str:
    headers = ("Split", "Images", "Classes", "Smallest", "Median", "Largest", "Formats", "Damaged")
    rows = []
    for name, split in splits.items():
        sizes = [
            f"{size[1]} × {size[0]}" if size else ""  # noqa: RUF001 (the sign of multiplication)
            for size in (split["smallest"], split["median"], split["largest"])
        ]
        formats = ", ".join(f"{number} {kind}" for kind, number in split["formats"].items())
        cells = (name, split["images"], len(split["classes"]), *sizes, formats)
        rows.append([*cells, len(split["damaged"])])
    head = "".join(f"<th>{name}</th>" for name in headers)
    body = "\n".join(
        "<tr>" + "".join(f"<td>{_text(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f"<table>\n<tr>{head}</tr>\n{body}\n</table>"


def _lines(title: str, lines: list[str]) -> str:
    items = "\n".join(f"<li>{_text(text)}</li>" for text in lines)
    return f"<h2>{title}</h2>\n<ul>\n{items}\n</ul>" if lines else ""


def _groups(title: str, groups: list[list[str]], looks: dict[str, Look]) -> str:
    if not groups:
        return ""
    shown = [
        f'<div class="group">{"".join(_figure(looks[name]) for name in group)}</div>'
        for group in groups[:_GROUPS]
    ]
    more = len(groups) - len(shown)
    note = f"<p>And {count(more, 'more group')}.</p>" if more else ""
    return f"<h2>{title}</h2>\n" + "\n".join(shown) + note


def _figure(look: Look) -> str:
    picture = '<div class="none">no picture</div>'
    if look.thumbnail:
        data = base64.b64encode(look.thumbnail).decode()
        picture = f'<img alt="" src="data:image/jpeg;base64,{data}">'
    label = "" if look.label is None else f"<b>{_text(look.label)}</b><br>"
    return f"<figure>{picture}<figcaption>{label}{_text(look.name)}</figcaption></figure>"


def _classes(name: str, counts: dict[str, int], split: Split) -> str:
    """A bar for each class, and some pictures of it."""
    most = max([*counts.values(), 1])
    pictures = collections.defaultdict(list)
    for look in split.looks:
        if look.thumbnail and len(pictures[look.label]) < _PER_CLASS:
            pictures[look.label].append(_figure(look))
    rows = "\n".join(
        f'<tr><td>{_text(label)}</td><td class="number">{number}</td>'
        f'<td class="bar"><div style="width: {100 * number / most:.1f}%"></div></td></tr>'
        for label, number in counts.items()
    )
    shown = "\n".join(
        f'<div class="group">{"".join(pictures[label])}</div>'
        for label in list(counts)[:_CLASSES]
        if pictures[label]
    )
    return f"<h2>Classes of {_text(name)}</h2>\n<table>\n{rows}\n</table>\n{shown}"
