"""The findings of `lightnets data check` as one HTML page that needs no other file."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from typing import Any

from lightnets.doctor.examine import Look, Split
from lightnets.doctor.findings import first_lines, table, verdict
from lightnets.support import markup
from lightnets.support.words import count

# Pictures of each class and each group, groups of a kind, and pictures of the page (about 3 KB
# each) at most: the page stays a few megabytes, however large the set.
_PER_CLASS, _PER_GROUP, _GROUPS, _PICTURES = 6, 8, 60, 1200


def write_page(
    path: pathlib.Path, dataset: str, splits: dict[str, Split], found: dict[str, Any]
) -> None:
    """Writes the page, whole or not at all."""
    markup.write(path, f"{dataset}: data check", parts(splits, found))


def parts(splits: dict[str, Split], found: dict[str, Any]) -> list[str]:
    """Returns what is on the page."""
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
        pictures = (_figures(sample, len(sample)) for sample in own)
        classes += markup.section(f"Classes of {name}", markup.bars(split["classes"]), *pictures)
    images = count(sum(len(split.looks) for split in splits.values()), "image")
    shown = count((groups + classes).count("<figure>"), "picture")
    kind = "bad" if any(found["wrong"].values()) else "good"
    return [
        f'<p>{images}: <b class="{kind}">{verdict(found)}</b>. Shown: {shown}.</p>',
        markup.table(*table(found)),
        markup.section("Wrong", markup.lines(first_lines(found["wrong"]))),
        markup.section("Worth a look", markup.lines(first_lines(found["remarks"]))),
        groups,
        classes,
    ]


def _groups(title: str, groups: Sequence[Sequence[Look]]) -> str:
    """Returns the first pictures of the first groups, and how many more there are."""
    shown = [_figures(group[:_PER_GROUP], len(group)) for group in groups[:_GROUPS]]
    more = len(groups) - len(shown)
    note = f"<p>And {count(more, 'more group')}: --json names all.</p>" if more else ""
    return markup.section(title, *shown, note)


def _figures(looks: Sequence[Look], total: int) -> str:
    """Returns a row of pictures, the first of `total`."""
    captions = ([look.name] if look.label is None else [look.label, look.name] for look in looks)
    shown = markup.figures(zip((look.thumbnail for look in looks), captions, strict=True))
    more = total - len(looks)
    return shown + (f"<p>And {count(more, 'more image')}.</p>" if more else "")


def _samples(split: Split) -> list[list[Look]]:
    """Returns the first images of each class that can be shown, without classes that have none."""
    samples: dict[str | None, list[Look]] = {label: [] for label in split.classes}
    for look in split.looks:
        of_class = samples.get(look.label, [])
        if look.thumbnail and len(of_class) < _PER_CLASS:
            of_class.append(look)
    return [sample for sample in samples.values() if sample]
