"""The findings of the data doctor as one HTML page that needs no other file."""

from __future__ import annotations

import base64
import html
import pathlib
from typing import Any

from lightnets.doctor.examine import Look, Split
from lightnets.doctor.text import remarks, shown, wrong
from lightnets.support.words import count
from lightnets.support.writing import replacing

# Pictures of each class and each group, groups, and pictures of the page (about 3 KB each) at most:
# the page stays a few megabytes, however large the set.
_PER_CLASS, _PER_GROUP, _GROUPS, _PICTURES = 6, 8, 100, 1200

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
    findings = len(found["wrong"])
    verdict = count(findings, "finding") if findings else "nothing is wrong"
    # In the order of the page: what is wrong takes its pictures first, classes share the rest.
    left = _PICTURES
    groups = []
    for title, key in (("The same file", "copies"), ("They look alike", "near_copies")):
        drawn = _draw([[looks[name] for name in group] for group in found[key]], left)
        left -= sum(map(len, drawn))
        groups.append(_groups(title, found[key], drawn))
    samples = {name: _samples(split) for name, split in splits.items()}
    each = max(left // max(sum(map(len, samples.values())), 1), 1)
    classes = []
    for name, sample in samples.items():
        drawn = [[_figure(look) for look in of_class[:each]] for of_class in sample[: left // each]]
        left -= sum(map(len, drawn))
        classes.append(_classes(name, found["splits"][name]["classes"], drawn))
    parts = [
        f"<h1>{_text(dataset)}</h1>",
        f'<p>{count(images, "image")}: <b class="{"bad" if findings else "good"}">{verdict}</b>. '
        f"Shown: {count(_PICTURES - left, 'picture')}.</p>",
        _splits(found["splits"]),
        _lines("Wrong", shown(wrong(found))),
        _lines("Worth a look", shown(remarks(found))),
        *groups,
        *classes,
    ]
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


def _draw(groups: list[list[Look]], left: int) -> list[list[str]]:
    """Returns the figures of the first groups, of each only the first, `left` in all at most."""
    drawn = []
    for group in groups[:_GROUPS]:
        figures = [_figure(look) for look in group[: min(_PER_GROUP, left)]]
        left -= len(figures)
        drawn.append(figures)
    return drawn


def _groups(title: str, groups: list[list[str]], drawn: list[list[str]]) -> str:
    """Returns what was drawn of groups, and how much was not."""
    if not groups:
        return ""
    shown = []
    for group, figures in zip(groups, drawn, strict=False):
        more = len(group) - len(figures)
        note = f"<p>And {count(more, 'more image')}.</p>" if more else ""
        shown.append(f'<div class="group">{"".join(figures)}{note}</div>')
    more = len(groups) - len(drawn)
    note = f"<p>And {count(more, 'more group')}: --json names all.</p>" if more else ""
    return f"<h2>{title}</h2>\n" + "\n".join(shown) + note


def _figure(look: Look) -> str:
    picture = '<div class="none">no picture</div>'
    if look.thumbnail:
        data = base64.b64encode(look.thumbnail).decode()
        picture = f'<img alt="" src="data:image/jpeg;base64,{data}">'
    label = "" if look.label is None else f"<b>{_text(look.label)}</b><br>"
    return f"<figure>{picture}<figcaption>{label}{_text(look.name)}</figcaption></figure>"


def _samples(split: Split) -> list[list[Look]]:
    """Returns the first images of each class that can be shown, without classes that have none."""
    samples: dict[str | None, list[Look]] = {label: [] for label in split.classes}
    for look in split.looks:
        of_class = samples.get(look.label, [])
        if look.thumbnail and len(of_class) < _PER_CLASS:
            of_class.append(look)
    return [sample for sample in samples.values() if sample]


def _classes(name: str, counts: dict[str, int], drawn: list[list[str]]) -> str:
    """A bar for each class, and some pictures of it."""
    most = max([*counts.values(), 1])
    rows = "\n".join(
        f'<tr><td>{_text(label)}</td><td class="number">{number}</td>'
        f'<td class="bar"><div style="width: {100 * number / most:.1f}%"></div></td></tr>'
        for label, number in counts.items()
    )
    shown = "\n".join(f'<div class="group">{"".join(figures)}</div>' for figures in drawn)
    return f"<h2>Classes of {_text(name)}</h2>\n<table>\n{rows}\n</table>\n{shown}"
