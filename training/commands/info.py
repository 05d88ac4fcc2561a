"""`lightnets info NAME`: what is known about one network. Does not import TensorFlow."""

from __future__ import annotations

import argparse
import dataclasses
import json

from keras_lightnets.catalogue.registry import ModelInfo, model_info
from lightnets.run import networks
from lightnets.support import console
from lightnets.support.words import command


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.add_argument("name", help="a name that `lightnets list` prints")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Prints the facts."""
    networks.check_name(args.name)
    info = model_info(args.name)
    if args.json:
        print(json.dumps(dataclasses.asdict(info), indent=2))
        return 0
    console.columns(None, _facts(info))
    console.line(f"Next: {command('train', 'DATA', '--model', info.name)}", error=True)
    return 0


def _facts(info: ModelInfo) -> list[tuple[str, str]]:
    arguments = ", ".join(f"{key}={value!r}" for key, value in info.arguments.items())
    facts = [
        ("network", info.name),
        ("build", f"{info.builder}({arguments})"),
        ("parameters", f"{info.parameters:,} trainable, {info.parameters_total:,} in all"),
        ("MACs", f"{info.macs:,} for one 224x224 image"),
        ("minimum input", f"{info.minimum_size}x{info.minimum_size} pixels"),
        ("paper", f"{info.paper.title}, {info.paper.url}"),
        ("paper's top-1", "-" if info.paper_top1 is None else f"{info.paper_top1:g} %"),
    ]
    if info.alias_of:
        facts.insert(1, ("stands for", info.alias_of))
    for row in info.weights:
        top5 = "" if row.top5 is None else f", top-5 {row.top5:g} %"
        checked = "" if row.digest else ", no published checksum"
        measured = f"top-1 {row.top1:g} %{top5}"
        facts.append((f"weights={row.tag!r}", f"{measured}, {row.licence}{checked}, {row.url}"))
    if not info.weights:
        facts.append(("weights", "none published"))
    return facts
