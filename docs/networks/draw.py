"""Draws the units of the five networks as SVG files beside this one.

    python docs/networks/draw.py

A unit is a list from top to bottom: a text is a box; a list of lists is what runs side by side,
where an empty one passes its input on. Each title names the paper's figure of the same unit.
"""

from __future__ import annotations

import html
import pathlib
from collections.abc import Iterator, Sequence

_REDUCE = "1x1 group conv, BN, ReLU"
UNITS = {
    "fire": (
        "Fire module, SqueezeNet (figure 1)",
        [
            "squeeze: 1x1 conv, ReLU",
            [["expand: 1x1 conv, ReLU"], ["expand: 3x3 conv, ReLU"]],
            "concatenate",
        ],
    ),
    "depthwise_separable": (
        "Depthwise separable, MobileNet v1 (figure 3)",
        ["3x3 depthwise conv, BN, ReLU", "1x1 conv, BN, ReLU"],
    ),
    "inverted_residual": (
        "Inverted residual, MobileNet v2 (figure 4)",
        [
            [
                [],
                [
                    "1x1 conv to 6 x channels, BN, ReLU6",
                    "3x3 depthwise conv, BN, ReLU6",
                    "1x1 conv, BN: no activation",
                ],
            ],
            "add",
        ],
    ),
    "shufflenet_v1": (
        "ShuffleNet v1, stride 1 (figure 2b)",
        [
            [
                [],
                [_REDUCE, "channel shuffle", "3x3 depthwise conv, BN", "1x1 group conv, BN"],
            ],
            "add, ReLU",
        ],
    ),
    "shufflenet_v1_stride_2": (
        "ShuffleNet v1, stride 2 (figure 2c)",
        [
            [
                ["3x3 average pool, stride 2"],
                [
                    _REDUCE,
                    "channel shuffle",
                    "3x3 depthwise conv, stride 2, BN",
                    "1x1 group conv, BN",
                ],
            ],
            "concatenate, ReLU",
        ],
    ),
    "shufflenet_v2": (
        "ShuffleNet v2, stride 1 (figure 3c)",
        [
            "split the channels in halves",
            [[], ["1x1 conv, BN, ReLU", "3x3 depthwise conv, BN", "1x1 conv, BN, ReLU"]],
            "concatenate",
            "channel shuffle",
        ],
    ),
    "shufflenet_v2_stride_2": (
        "ShuffleNet v2, stride 2 (figure 3d)",
        [
            [
                ["3x3 depthwise conv, stride 2, BN", "1x1 conv, BN, ReLU"],
                ["1x1 conv, BN, ReLU", "3x3 depthwise conv, stride 2, BN", "1x1 conv, BN, ReLU"],
            ],
            "concatenate",
            "channel shuffle",
        ],
    ),
}
# Pixels: a box, what lies between two of them, and the margin.
_WIDTH, _HEIGHT, _GAP, _MARGIN = 270, 30, 22, 20
_COLOURS = ("#4878a8", "#d8903c", "#5a9a5a")

Unit = Sequence["str | Sequence[Unit]"]


def unit(title: str, items: Unit) -> str:
    """Returns the drawing of a unit."""
    columns = max((len(item) for item in items if not isinstance(item, str)), default=1)
    inside = columns * (_WIDTH + _GAP) - _GAP
    margin = _MARGIN if columns > 1 else 3 * _MARGIN  # the title is wider than a box
    middle = margin + inside / 2
    shapes = [_text(middle, _MARGIN + 12, title, bold=True)]
    y = _MARGIN + 34
    if not isinstance(items[0], str):
        shapes.append(_arrow(middle, y, middle, y + _GAP))
        y += _GAP
    for item in items:
        if isinstance(item, str):
            shapes += [_arrow(middle, y, middle, y + _GAP), *_box(middle, y + _GAP, item)]
            y += _GAP + _HEIGHT
            continue
        rows = max(map(len, item))
        end = y + _GAP + rows * (_HEIGHT + _GAP)
        for column, branch in enumerate(item):
            x = margin + _WIDTH / 2 + column * (_WIDTH + _GAP)
            shapes += [f'<path d="M{middle:g} {y:g} L{x:g} {y + _GAP / 2:g}" class="line"/>']
            start = y + _GAP / 2
            for row, text in enumerate(branch):
                top = y + _GAP + row * (_HEIGHT + _GAP)
                shapes += [_arrow(x, start, x, top), *_box(x, top, text)]
                start = top + _HEIGHT
            shapes += [
                f'<path d="M{x:g} {start:g} V{end - _GAP / 2:g} L{middle:g} {end:g}" class="line"/>'
            ]
        y = end
    shapes.append(_arrow(middle, y, middle, y + _GAP))
    return _drawing(inside + 2 * margin, y + _GAP + _MARGIN, shapes)


def shuffle(groups: int = 3, each: int = 4) -> str:
    """Returns a drawing of the channel shuffle: `(groups, each)` becomes `(each, groups)`."""
    side, count = 34, groups * each
    top, bottom = _MARGIN + 34, _MARGIN + 34 + side + 90
    title = f"Channel shuffle of {count} channels in {groups} groups"
    width = count * side + 2 * _MARGIN
    shapes = [_text(width / 2, _MARGIN + 12, title, bold=True)]
    for channel in range(count):
        group, place = divmod(channel, each)
        for number, y in ((channel, top), (place * groups + group, bottom)):
            x = _MARGIN + number * side
            shapes.append(
                f'<rect x="{x + 1:g}" y="{y:g}" width="{side - 2}" height="{side}" rx="4" '
                f'fill="{_COLOURS[group % len(_COLOURS)]}"/>'
            )
            shapes.append(_text(x + side / 2, y + 22, str(channel), colour="#fff"))
        start = _MARGIN + (channel + 0.5) * side
        end = _MARGIN + (place * groups + group + 0.5) * side
        shapes.append(_arrow(start, top + side, end, bottom))
    return _drawing(width, bottom + side + _MARGIN, shapes)


def drawings() -> Iterator[tuple[str, str]]:
    """Yields the name of each file and what is in it."""
    for name, (title, items) in UNITS.items():
        yield f"{name}.svg", unit(title, items)
    yield "channel_shuffle.svg", shuffle()


def _box(x: float, y: float, text: str) -> tuple[str, str]:
    colour = "#f3e3cf" if "shuffle" in text or "split" in text else "#dde8f3"
    shape = (
        f'<rect x="{x - _WIDTH / 2:g}" y="{y:g}" width="{_WIDTH}" height="{_HEIGHT}" rx="5" '
        f'fill="{colour}" stroke="#667"/>'
    )
    return shape, _text(x, y + 20, text)


def _arrow(x: float, y: float, to_x: float, to_y: float) -> str:
    return f'<path d="M{x:g} {y:g} L{to_x:g} {to_y - 2:g}" class="line" marker-end="url(#head)"/>'


def _text(x: float, y: float, text: str, *, bold: bool = False, colour: str = "#222") -> str:
    weight = ' font-weight="bold"' if bold else ""
    return f'<text x="{x:g}" y="{y:g}" fill="{colour}"{weight}>{html.escape(text)}</text>'


def _drawing(width: float, height: float, shapes: Sequence[str]) -> str:
    inside = "\n".join(shapes)
    return f"""<svg xmlns="http://www.w3.org/2000/svg" width="{width:g}" height="{height:g}">
<style>text {{ font: 13px sans-serif; text-anchor: middle }}
text[font-weight] {{ font-weight: bold }}
.line {{ stroke: #667; fill: none; stroke-width: 1.3 }}</style>
<marker id="head" viewBox="0 0 8 8" refX="6" refY="4"
 markerWidth="7" markerHeight="7" orient="auto"><path d="M0 0 L8 4 L0 8 z" fill="#667"/></marker>
<rect width="100%" height="100%" fill="#fff"/>
{inside}
</svg>
"""


if __name__ == "__main__":
    for file, text in drawings():
        (pathlib.Path(__file__).parent / file).write_text(text, encoding="utf-8")
