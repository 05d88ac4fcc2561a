"""`lightnets list`: the networks by name. Does not import TensorFlow."""

from __future__ import annotations

import argparse
import json

from keras_lightnets.catalogue.registry import ModelInfo, list_models, model_info
from lightnets.support import console
from lightnets.support.errors import UsageError
from lightnets.support.words import nearest

_HEADERS = "network", "parameters (M)", "MACs (M)", "paper's top-1 (%)", "weights"


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
    networks = list(map(model_info, names))
    if args.json:
        print(json.dumps(list(map(_record, networks)), indent=2))
    else:
        console.columns(_HEADERS, map(_cells, networks))
    return 0


def _record(info: ModelInfo) -> dict[str, object]:
    return {
        "name": info.name,
        "alias_of": info.alias_of,
        "parameters": info.parameters,
        "macs": info.macs,
        "paper_top1": info.paper_top1,
        "weights": [row.tag for row in info.weights],
    }


def _cells(info: ModelInfo) -> list[str]:
    return [
        info.name,
        f"{info.parameters / 1e6:.2f}",
        f"{info.macs / 1e6:.0f}",
        "-" if info.paper_top1 is None else f"{info.paper_top1:.1f}",
        ", ".join(row.tag for row in info.weights) or "-",
    ]
