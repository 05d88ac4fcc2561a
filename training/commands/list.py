"""`lightnets list`: the networks and the recipes. Imports TensorFlow only to measure."""

from __future__ import annotations

import argparse
import json
import sys

from keras_lightnets.catalogue.registry import ModelInfo, list_models, model_info
from lightnets.config.choices import PRETRAINED, SCRATCH
from lightnets.config.recipes import RECIPES
from lightnets.support import console
from lightnets.support.errors import UsageError
from lightnets.support.words import nearest

# What a person should know first, with why. The rest is behind --all.
FIRST = {
    PRETRAINED: "recommended",
    "mobilenet_v2_x1_4": "more accurate, slower",
    "mobilenet_v2_x0_5": "faster",
    "mobilenet_v1_relu6_x1_25": "the most accurate",
    "mobilenet_v1_relu6_x1_0": "plain layers",
    "mobilenet_v1_x0_25": "under 2 MB",
    "shufflenet_v2_x2_0": "accurate",
    "shufflenet_v2": "few operations",
    "shufflenet_v2_x0_5": "for slow devices",
    SCRATCH: "for small pictures",
    "shufflenet_v1_g1_x0_25": "the smallest",
    "squeezenet": "no batch norm",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.add_argument("pattern", nargs="?", help='shell pattern, e.g. "shuffle*"')
    parser.add_argument("--all", action="store_true", help="all networks, not the first dozen")
    parser.add_argument(
        "--pretrained", action="store_true", help="all networks with published weights"
    )
    parser.add_argument(
        "--measure", action="store_true", help="add milliseconds for one image on this machine"
    )
    parser.add_argument("--json", action="store_true", help="all networks as JSON")
    parser.add_argument(
        "--recipes", action="store_true", help="the recipes of train --recipe, and what each gave"
    )


def run(args: argparse.Namespace) -> int:
    """Prints the table."""
    if args.recipes:
        return _list_recipes()
    whole = args.all or args.pretrained or args.json or args.pattern is not None
    pattern = "*" if args.pattern is None else args.pattern
    names = list_models(pattern, pretrained=args.pretrained) if whole else list(FIRST)
    if not names:
        raise UsageError(f"No network matches {pattern!r}.{nearest(pattern, list_models())}")
    times = _measure(names) if args.measure else {}
    if args.json:
        print(json.dumps([_record(model_info(name), times) for name in names], indent=2))
        return 0
    headers = ["network", "top-1 %", "MB", "MACs (M)", "weights" if whole else "why"]
    rows = [_cells(model_info(name), None if whole else FIRST[name]) for name in names]
    if times:
        headers.insert(4, "ms")
        for name, row in zip(names, rows, strict=True):
            row.insert(4, f"{times[name]:.1f}")
    console.columns(headers, rows)
    if not whole and sys.stdout.isatty():
        more = len(list_models()) - len(names)
        console.line(f"{more} more: lightnets list --all. About one: lightnets info NETWORK")
    return 0


def _list_recipes() -> int:
    rows = [
        [name, one.purpose, *(one.config["train"][key] for key in ("epochs", "batch_size")), gave]
        for name, one in RECIPES.items()
        for gave in [one.result or "not run"]
    ]
    rows.sort(key=lambda row: row[-1] == "not run")
    console.columns(["recipe", "for", "epochs", "batch", "gave"], rows)
    return 0


def _measure(names: list[str]) -> dict[str, float]:
    from lightnets.run import speed

    return {name: speed.of_name(name) for name in console.bar(names, "Measuring", len(names))}


def _accuracy(info: ModelInfo) -> float | None:
    """Returns that of the best published weights, else the paper's."""
    return max((row.top1 for row in info.weights), default=info.paper_top1)


def _record(info: ModelInfo, times: dict[str, float]) -> dict[str, object]:
    record: dict[str, object] = {
        "name": info.name,
        "alias_of": info.alias_of,
        "parameters": info.parameters,
        "macs": info.macs,
        "top1": _accuracy(info),
        "paper_top1": info.paper_top1,
        "weights": [row.tag for row in info.weights],
    }
    if times:
        record["milliseconds"] = times[info.name]
    return record


def _cells(info: ModelInfo, why: str | None) -> list[str]:
    accuracy = _accuracy(info)
    return [
        info.name,
        "-" if accuracy is None else f"{accuracy:.1f}",
        f"{4 * info.parameters_total / 1e6:.1f}",
        f"{info.macs / 1e6:.0f}",
        why or ", ".join(row.tag for row in info.weights) or "-",
    ]
