"""The findings of `lightnets data check` as one HTML page that needs no other file."""

from __future__ import annotations

import base64
import html
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

from lightnets.doctor.examine import Look, Split
from lightnets.doctor.findings import first_lines, table, verdict
from lightnets.support.words import count
from lightnets.support.writing import replacing

# Pictures of each class and each group, groups of a kind, and pictures of the page (about 3 KB
# each) at most: the page stays a few megabytes, however large the set.
_PER_CLASS, _PER_GROUP, _GROUPS, _PICTURES = 6, 8, 60, 1200

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem;
       color: #222; background: #fff; }
h1, h2 { line-height: 1.2; } h2 { margin-top: 2.2rem; border-bottom: 1px solid #ddd; }
table { border-collapse: collapse; } th, td { padding: .2rem .9rem .2rem 0; text-align: left; }
.bar { height: .8rem; background: #4878a8; }
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
    # What is wrong takes its pictures first, classes share the rest.
    groups = "".join(
        _groups(title, [[looks[name] for name in group] for group in found[key]])
        for title, key in (("The same file", "copies"), ("They look alike", "near_copies"))
    )
    left = max(_PICTURES - groups.count("<figure>"), 0)
    samples = [(name, sample) for name, split in splits.items() for sample in _samples(split)]
    each = max(left // max(len(samples), 1), 1)
    classes = ""
    for name, split in found["splits"].items():
        own = [sample[:each] for of, sample in samples[: left // each] if of == name]
        classes += _classes(name, split["classes"], own)
    images = count(sum(len(split.looks) for split in splits.values()), "image")
    headers, rows = table(found)
    shown = count((groups + classes).count("<figure>"), "picture")
    color = "bad" if any(found["wrong"].values()) else "good"
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{_text(dataset)}: data check</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>{_text(dataset)}</h1>
<p>{images}: <b class="{color}">{verdict(found)}</b>. Shown: {shown}.</p>
<table>
<tr>{"".join(f"<th>{header}</th>" for header in headers)}</tr>
{_rows(map(_text, row) for row in rows)}
</table>
{_list("Wrong", first_lines(found["wrong"]))}
{_list("Worth a look", first_lines(found["remarks"]))}
{groups}{classes}
</body>
</html>
"""


def _text(value: Any) -> str:
    return html.escape(str(value))


def _rows(rows: Iterable[Iterable[str]]) -> str:
    """Returns rows of a table, of cells that are HTML already."""
    return "\n".join(f"<tr><td>{'</td><td>'.join(cells)}</td></tr>" for cells in rows)


def _list(title: str, lines: list[str]) -> str:
    items = "\n".join(f"<li>{_text(text)}</li>" for text in lines)
    return f"<h2>{title}</h2>\n<ul>\n{items}\n</ul>" if lines else ""


def _groups(title: str, groups: Sequence[Sequence[Look]]) -> str:
    """Returns the first pictures of the first groups, and how many more there are."""
    if not groups:
        return ""
    shown = [_figures(group[:_PER_GROUP], len(group)) for group in groups[:_GROUPS]]
    more = len(groups) - len(shown)
    note = f"<p>And {count(more, 'more group')}: --json names all.</p>" if more else ""
    return f"<h2>{title}</h2>\n{''.join(shown)}{note}\n"


def _figures(looks: Sequence[Look], total: int) -> str:
    """Returns a row of pictures, the first of `total`."""
    figures = []
    for look in looks:
        picture = '<div class="none">no picture</div>'
        if look.thumbnail:
            data = base64.b64encode(look.thumbnail).decode()
            picture = f'<img alt="" src="data:image/jpeg;base64,{data}">'
        label = "" if look.label is None else f"<b>{_text(look.label)}</b><br>"
        caption = f"<figcaption>{label}{_text(look.name)}</figcaption>"
        figures.append(f"<figure>{picture}{caption}</figure>")
    more = total - len(looks)
    note = f"<p>And {count(more, 'more image')}.</p>" if more else ""
    return f'<div class="group">{"".join(figures)}{note}</div>\n'


def _samples(split: Split) -> list[list[Look]]:
    """Returns the first images of each class that can be shown, without classes that have none."""
    samples: dict[str | None, list[Look]] = {label: [] for label in split.classes}
    for look in split.looks:
        of_class = samples.get(look.label, [])
        if look.thumbnail and len(of_class) < _PER_CLASS:
            of_class.append(look)
    return [sample for sample in samples.values() if sample]


def _classes(name: str, counts: dict[str, int], samples: Sequence[Sequence[Look]]) -> str:
    """Returns a bar for each class, and some pictures of it."""
    most = max([*counts.values(), 1])
    rows = _rows(
        (
            _text(label),
            str(number),
            f'<div class="bar" style="width: {22 * number / most:.1f}rem"></div>',
        )
        for label, number in counts.items()
    )
    figures = "".join(_figures(sample, len(sample)) for sample in samples)
    return f"<h2>Classes of {_text(name)}</h2>\n<table>\n{rows}\n</table>\n{figures}"
