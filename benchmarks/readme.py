"""Writes the tables of measured ratios into documents, from the files in `results/`.

    python benchmarks/readme.py README.md docs/performance.md docs/choosing.md

In a document the lines between `<!-- speed:begin NAME ... -->` and `<!-- speed:end -->` are
replaced by the rows of the named result files, of every machine that measured them; without names
by all comparisons; with `headlines` by five of them. Profiles, growth and networks have tables of
their own.
`--check` only says whether they are up to date.
"""

from __future__ import annotations

import argparse
import pathlib
import re
import sys

import common

from keras_lightnets.catalogue.registry import model_info
from lightnets.commands.list import FIRST

# Comparisons, in the order of the tables; other results have columns of their own.
NAMES = (
    "train_step",
    "train_step_torch",
    "mixed_precision",
    "memory",
    "inference",
    "predict_files",
    "serving",
    "serving_int8",
    "runtimes",
    "litert",
    "litert_kinds",
    "data_pipeline",
    "listed_files",
    "startup",
    "grouped_forms",
)
# Result, beginning of the case, peer: the first page names these.
HEADLINES = (
    ("train_step", "train step mobilenet_v2-224-b32", "keras.applications"),
    ("train_step", "train step shufflenet_v1_g3-224-b16", "Keras layers"),
    ("train_step_torch", "train step shufflenet_v2-224-b16", "torchvision"),
    ("inference", "inference mobilenet_v2-224-b16 folded", "keras.applications"),
    ("data_pipeline", "input pipeline JPEG 500x375 of 100 kB", "torchvision DataLoader"),
)
PROFILED = 6  # operations of each case that the table of profiles names
_BLOCK = re.compile(r"(<!-- speed:begin([ \w]*) -->\n).*?(<!-- speed:end -->)", re.DOTALL)


def table(names: list[str], folder: pathlib.Path = common.RESULTS) -> str:
    """A Markdown table of the rows of the named results; of all comparisons without names.

    Raises:
        ValueError: A named result does not exist.
    """
    if names == ["headlines"]:
        return "\n".join(_headlines(folder)) + "\n"
    if len(names) == 1 and names[0] in _OWN_TABLES:
        return "\n".join(_OWN_TABLES[names[0]](_rows(names[0], folder))) + "\n"
    lines = [
        "| what | against | ratio | middle half | fastest turns | processor time | target |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in names or NAMES:
        lines += [_line(_cells(row)) for row in _rows(name, folder, needed=bool(names))]
    return "\n".join(lines) + "\n"


def _rows(name: str, folder: pathlib.Path, needed: bool = True) -> list[dict[str, str]]:
    # A machine's name ends in its number of cores; no other result's name is a prefix of it.
    paths = sorted(folder.glob(f"{name}-*core.csv"))
    if needed and not paths:
        raise ValueError(f"There is no {folder}/{name}-*.csv. Run benchmarks/{name}.py.")
    rows = []
    for path in paths:
        machine = path.stem.removeprefix(f"{name}-")
        for row in common.load(path):
            several = len(paths) > 1 and "case" in row
            rows.append(row | ({"case": f"{row['case']}, {machine}"} if several else {}))
    return rows


def _headlines(folder: pathlib.Path) -> list[str]:
    """One line for each headline: what, against what, ratio and its middle half."""
    lines = ["| what | against | ratio | middle half |", "|---|---|---|---|"]
    for name, case, peer in HEADLINES:
        rows = [
            row
            for row in _rows(name, folder)
            if row["case"].startswith(case) and row["peer"] == peer
        ]
        lines += [_line(_cells(row)[:4]) for row in rows]
    return lines


def _profile_lines(rows: list[dict[str, str]]) -> list[str]:
    """One line for each profiled step: its time, and the share of its longest operations."""
    lines = ["| what | ms, all operations | share of the longest |", "|---|---|---|"]
    for case in dict.fromkeys(row["case"] for row in rows):
        own = [row for row in rows if row["case"] == case]
        total = sum(float(row["milliseconds"]) for row in own)
        named = [
            f"{row['operation']} {float(row['share']):.0%} ({float(row['calls']):.0f} calls)"
            for row in own[:PROFILED]
        ]
        lines.append(f"| {case} | {total:.0f} | {', '.join(named)} |")
    return lines


def _scaling_lines(rows: list[dict[str, str]]) -> list[str]:
    """One line for each quantity: its values, and what relates to the first of them."""
    lines = ["| grows | values | time | MACs | bytes |", "|---|---|---|---|---|"]
    for axis in dict.fromkeys(row["axis"] for row in rows):
        own = [row for row in rows if row["axis"] == axis]
        values = [f"{float(row['value']):,.10g}" for row in own]
        factors = [
            [f"{float(row[column]):.3g}" for row in own] for column in ("time", "macs", "bytes")
        ]
        cells = [", ".join(column) for column in ([v.replace(",", " ") for v in values], *factors)]
        lines.append(f"| {axis.replace('_', ' ')} | {' | '.join(cells)} |")
    return lines


def _network_lines(rows: list[dict[str, str]]) -> list[str]:
    """One line for each network to begin with: what is published, then what was measured."""
    lines = [
        "| network | for | top-1 % | weights | MB | MACs (M) | ms |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        info = model_info(row["network"])
        best = max(info.weights, key=lambda weights: weights.top1)
        cells = [f"`{info.name}`", FIRST[info.name], f"{best.top1:.1f}", best.tag]
        cells += [f"{4 * info.parameters_total / 1e6:.1f}", f"{info.macs / 1e6:.0f}"]
        lines.append(_line([*cells, row["milliseconds"]]))
    return lines


_OWN_TABLES = {
    "networks": _network_lines,
    "train_step_profile": _profile_lines,
    "data_pipeline_profile": _profile_lines,
    "scaling": _scaling_lines,
}


def _cells(row: dict[str, str]) -> list[str]:
    """What a row says, in the order of the columns."""
    numbers = {
        key: f"{float(row[key]):.2f}" if row[key] else ""
        for key in ("ratio", "low", "high", "best", "processor")
    }
    target = f"{float(row['target']):.3g}" if row["target"] else ""
    middle = f"{numbers['low']} to {numbers['high']}"
    return [
        *(row["case"], row["peer"], numbers["ratio"], middle),
        *(numbers["best"], numbers["processor"], target),
    ]


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def filled(text: str, folder: pathlib.Path = common.RESULTS) -> str:
    """The document with its tables renewed."""
    return _BLOCK.sub(lambda m: m.group(1) + table(m.group(2).split(), folder) + m.group(3), text)


def main(arguments: list[str] | None = None) -> int:
    """Renews the documents, or checks them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("documents", nargs="+", type=pathlib.Path)
    parser.add_argument("--check", action="store_true", help="exit 1 if one is out of date")
    args = parser.parse_args(arguments)
    stale = []
    for path in args.documents:
        text = path.read_text(encoding="utf-8")
        new = filled(text)
        if new != text:
            stale.append(str(path))
            if not args.check:
                path.write_text(new, encoding="utf-8")
    state = "Out of date" if args.check else "Renewed"
    print(f"{state}: {', '.join(stale)}" if stale else "All tables are up to date.")
    return int(bool(stale) and args.check)


if __name__ == "__main__":
    sys.exit(main())
