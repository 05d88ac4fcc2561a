"""`lightnets embed`: what a network sees in pictures, as a file."""

from __future__ import annotations

import argparse
import pathlib

from lightnets.config import keys as configs
from lightnets.config import resolve
from lightnets.config.choices import PRETRAINED
from lightnets.evaluation import feature_file
from lightnets.run import networks
from lightnets.support import console
from lightnets.support.errors import UserError
from lightnets.support.words import command, count


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the pictures, the network and the file."""
    parser.description = (
        "Writes the pooled features of each picture, before the classifier, with its name and "
        "its class."
    )
    parser.add_argument("data", metavar="DATA", help="folder, CSV or JSONL list, or TFDS name")
    parser.add_argument(
        "model",
        nargs="?",
        metavar="MODEL",
        default=PRETRAINED,
        help="network of `lightnets list` with its published weights, run directory, or weight "
        "file",
    )
    parser.add_argument(
        "--out", type=pathlib.Path, required=True, metavar="FILE", help=".npz or .parquet file"
    )
    parser.add_argument("--split", help="of DATA (default: all)")
    resolve.add_place(parser)


def run(args: argparse.Namespace) -> int:
    """Writes the features of all pictures."""
    feature_file.check(args.out, "--out")
    if not pathlib.Path(args.model).exists():
        networks.check_name(args.model)

    import numpy as np

    from lightnets.data import Splits, check
    from lightnets.data.dataset import find
    from lightnets.evaluation import features

    config = configs.from_dict({"data": resolve.place(args, args.data)})
    dataset = find(config.data)
    network = networks.open(args.model)
    if network.transform is None:
        raise UserError(f"{args.model} does not say how images are prepared.")
    found, names, labels = [], [], []
    for split in [dataset.split(args.split)] if args.split else dataset.sizes:
        source = dataset.labelled(split, dataset.classes, "the data set")
        splits = Splits(dataset.classes, network.transform, source, source, config)
        with check.explained(source, args.data):
            found.append(features.extract(network.model, splits, source).features)
        names += [source.name(place) for place in range(source.count)]
        labels += [dataset.classes[label] for label in source.read_labels()]
    path = pathlib.Path(args.model)
    made = feature_file.Features(
        np.concatenate(found),
        np.array(names),
        np.array(labels),
        str(path.absolute()) if path.exists() else args.model,
        features.fingerprint(network.model),
    )
    feature_file.write(args.out, made)
    images, channels = made.features.shape
    console.line(f"{count(images, 'image')}, {channels} numbers each: {args.out}")
    console.line(f"Next: {command('search', args.out, 'IMAGE')}", error=True)
    return 0
