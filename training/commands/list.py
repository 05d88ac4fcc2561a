"""`lightnets list`: the networks by name. Does not import TensorFlow."""

from __future__ import annotations

import argparse
import json
import sys

from keras_lightnets.catalogue.registry import list_models, model_info
from lightnets.support.errors import UsageError
from lightnets.support.words import nearest

HELP = "list the networks"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.add_argument("pattern", nargs="?", default="*", help='shell pattern, e.g. "shuffle*"')
    parser.add_argument(
        "--pretrained", action="store_true", help="only networks with published weights"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Prints the table."""
    names = list_models(args.pattern, pretrained=args.pretrained)
    if not names:
        raise UsageError(
            f"No network matches {args.pattern!r}.{nearest(args.pattern, list_models())}"
        )
    rows = [_row(name) for name in names]
    if args.json:
        print(json.dumps(rows, indent=2))
    elif sys.stdout.isatty():
        _print_table(rows)
    else:
        for row in rows:  # for grep, cut and sort: one tab between columns
            print("\t".join(_cells(row)))
    return 0


def _row(name: str) -> dict[str, object]:
    info = model_info(name)
    return {
        "name": name,
        "alias_of": info.alias_of,
        "parameters": info.parameters,
        "macs": info.macs,
        "paper_top1": info.paper_top1,
        "weights": [row.tag for row in info.weights],
    }


def _cells(row: dict) -> list[str]:
    top1 = row["paper_top1"]
    return [
        row["name"],
        f"{row['parameters'] / 1e6:.2f}",
        f"{row['macs'] / 1e6:.0f}",
        "-" if top1 is None else f"{top1:.1f}",
        ", ".join(row["weights"]) or "-",
    ]


def _print_table(rows: list[dict]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(caption="MACs of one 224x224 image; top-1 as printed in the papers")
    table.add_column("network", no_wrap=True)
    for title in ("parameters (M)", "MACs (M)", "top-1 (%)"):
        table.add_column(title, justify="right")
    table.add_column("weights")
    for row in rows:
        table.add_row(*_cells(row))
    Console().print(table)
