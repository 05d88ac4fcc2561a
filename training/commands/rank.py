"""`lightnets rank`: which network suits some pictures, without training one."""

from __future__ import annotations

import argparse
import pathlib
from typing import TYPE_CHECKING

from keras_lightnets.intervals import interval
from lightnets.commands.list import FIRST
from lightnets.config import keys as configs
from lightnets.config import resolve
from lightnets.run import networks
from lightnets.support import arguments, console
from lightnets.support.errors import UserError
from lightnets.support.words import command, count

if TYPE_CHECKING:
    from lightnets.data.sources.stream import AnySource


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the pictures and the networks."""
    parser.description = (
        "A linear classifier is fitted to each network's features of the pictures, on five folds: "
        "its accuracy says how much the network already sees in them."
    )
    parser.add_argument("data", metavar="DATA", help="folder, CSV or JSONL list, or TFDS name")
    parser.add_argument(
        "models",
        nargs="*",
        metavar="MODEL",
        help="network of `lightnets list` with its published weights, run directory, or weight "
        "file (default: those of the first table of `lightnets list`)",
    )
    resolve.add_place(parser)
    parser.add_argument(
        "--images", type=arguments.whole(10), default=1000, help="training images to look at"
    )


def run(args: argparse.Namespace) -> int:
    """Prints the networks, the most accurate first; what cannot be opened is named."""
    models = args.models or list(FIRST)
    for model in models:
        if not pathlib.Path(model).exists():
            networks.check_name(model)

    from lightnets.data import check
    from lightnets.data.load import open_dataset
    from lightnets.data.sources.source import spread

    config = configs.from_dict({"data": resolve.place(args, args.data)})
    opened = open_dataset(config)
    source = opened.train.subset(spread(opened.train.count, args.images))
    rows, failed = [], False
    for model in models:
        try:
            with check.explained(source, args.data):
                rows.append((model, *_judge(networks.open(model), source, opened.labels, config)))
        except UserError as error:
            console.line(f"lightnets: {model}: {error}", error=True)
            failed = True
    rows.sort(key=lambda row: -row[1])
    console.columns(("network", "accuracy", "95 % interval", "ms"), [_cells(*row) for row in rows])
    if rows:
        console.line(
            f"On {count(source.count, 'image')}. ms: one image on this machine.", error=True
        )
        best = rows[0][0]
        flags = ["--weights" if pathlib.Path(best).exists() else "--model", best]
        console.line(f"Next: {command('train', args.data, *flags)}", error=True)
    return 1 if failed else 0


def _judge(
    network: networks.Network, source: AnySource, labels: list[str], config: configs.Config
) -> tuple[float, float, float, float]:
    """Returns accuracy, its interval, and milliseconds."""
    from lightnets.data import Splits
    from lightnets.evaluation import features
    from lightnets.run import speed

    if network.transform is None:
        raise UserError("it does not say how images are prepared.")
    true = source.read_labels()
    splits = Splits(labels, network.transform, source, source, config)
    found = features.extract(network.model, splits, source).features
    told = features.cross_validated(found, true, len(labels))
    if told is None:
        raise UserError("two classes with two images each are needed.")
    right = int((told.argmax(-1) == true).sum())
    accuracy = right / len(true)
    return accuracy, *interval(right, len(true)), speed.milliseconds(network.model)[0]


def _cells(model: str, accuracy: float, low: float, high: float, ms: float) -> list[str]:
    return [model, f"{accuracy:.4f}", f"{low:.3f}-{high:.3f}", f"{ms:.1f}"]
