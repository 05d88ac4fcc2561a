"""Draws accuracy against time for the networks to begin with, as an SVG file beside this one.

    python docs/choosing/draw.py

Accuracy and size are those of the catalogue, milliseconds those of `benchmarks/networks.py`.
"""

from __future__ import annotations

import csv
import math
import pathlib
from collections.abc import Mapping
from typing import NamedTuple

from keras_lightnets.catalogue.registry import model_info

HERE = pathlib.Path(__file__).parent
RESULTS = HERE.parents[1] / "benchmarks" / "results"
_COLOURS = {"mobilenet": "#d8903c", "shufflenet": "#4878a8", "squeezenet": "#5a9a5a"}
# Pixels: of the plot, and where its names stand.
_WIDTH, _HEIGHT, _LEFT, _TOP, _NAMES, _LINE = 520, 400, 56, 40, 190, 16


class Network(NamedTuple):
    """A point of the plot: milliseconds, published top-1 accuracy in percent, megabytes."""

    name: str
    milliseconds: float
    top1: float
    megabytes: float


def measured() -> dict[str, float]:
    """Returns the milliseconds of each network; of several machines those of the first file."""
    path = min(RESULTS.glob("networks-*core.csv"))
    with path.open(newline="") as file:
        return {row["network"]: float(row["milliseconds"]) for row in csv.DictReader(file)}


def drawing(milliseconds: Mapping[str, float]) -> str:
    """Returns the plot: names to the right, each with a line to its point."""
    points = []
    for name, time in milliseconds.items():
        info = model_info(name)
        top1 = max(row.top1 for row in info.weights)
        points.append(Network(name, time, top1, 4 * info.parameters_total / 1e6))
    fastest, slowest = (pick(milliseconds.values()) for pick in (min, max))
    first, last = math.log(fastest / 1.25), math.log(slowest * 1.25)
    low, high = 35.0, 80.0

    def across(time: float) -> float:
        return _LEFT + _WIDTH * (math.log(time) - first) / (last - first)

    def down(top1: float) -> float:
        return _TOP + _HEIGHT * (high - top1) / (high - low)

    bottom, right = _TOP + _HEIGHT, _LEFT + _WIDTH
    shapes = []
    for percent in range(40, 81, 10):
        y = down(percent)
        shapes.append(f'<path d="M{_LEFT} {y:.1f} H{right}" stroke="#ddd"/>')
        shapes.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" class="end">{percent}</text>')
    for time in (1, 2, 5, 10, 20, 50, 100, 200):
        if first <= math.log(time) <= last:
            x = across(time)
            shapes.append(f'<path d="M{x:.1f} {_TOP} V{bottom}" stroke="#ddd"/>')
            shapes.append(f'<text x="{x:.1f}" y="{bottom + 18}" class="middle">{time}</text>')
    place = -math.inf
    for point in sorted(points, key=lambda point: -point.top1):
        x, y = across(point.milliseconds), down(point.top1)
        place = max(place + _LINE, y)
        colour = _COLOURS[point.name.partition("_")[0]]
        shapes.append(f'<path d="M{x:.1f} {y:.1f} L{right + 8} {place:.1f}" stroke="#aaa"/>')
        radius = 2 * math.sqrt(point.megabytes)
        shapes.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}" fill="{colour}"/>')
        shapes.append(f'<text x="{right + 12}" y="{place + 4:.1f}">{point.name}</text>')
    axis = "milliseconds for one image (log); area of a point: size of the weights"
    shapes.append(f'<text x="{_LEFT}" y="{bottom + 38}">{axis}</text>')
    shapes.append(f'<text x="8" y="{_TOP - 16}">published ImageNet top-1, %</text>')
    inside = "\n".join(shapes)
    size = f'width="{right + _NAMES}" height="{bottom + 52}"'
    return f"""<svg xmlns="http://www.w3.org/2000/svg" {size}>
<style>text {{ font: 13px sans-serif; fill: #222 }} .end {{ text-anchor: end }}
.middle {{ text-anchor: middle }} path {{ fill: none }} circle {{ fill-opacity: 0.85 }}</style>
<rect width="100%" height="100%" fill="#fff"/>
{inside}
</svg>
"""


if __name__ == "__main__":
    (HERE / "networks.svg").write_text(drawing(measured()), encoding="utf-8")
