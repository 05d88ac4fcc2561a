"""`lightnets search`: the pictures of a file of features that are most like an image."""

from __future__ import annotations

import argparse
import pathlib

from keras_lightnets.export.answers import Answer
from lightnets.commands import predict
from lightnets.evaluation import feature_file
from lightnets.run import networks
from lightnets.support import arguments, console
from lightnets.support.errors import UserError
from lightnets.support.words import command


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the file and the images."""
    parser.add_argument("file", metavar="FILE", type=pathlib.Path, help="of `lightnets embed`")
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="image files, folders or globs")
    parser.add_argument(
        "--top-k", type=arguments.whole(1), default=5, metavar="K", help="pictures for each image"
    )
    parser.add_argument(
        "--model", help="the network of FILE, where it is now (default: where it was)"
    )


def run(args: argparse.Namespace) -> int:
    """Prints the nearest pictures of each image, by the cosine of their features."""
    known = feature_file.read(args.file)
    target = args.model or known.model
    if not pathlib.Path(target).exists():
        if pathlib.Path(target).is_absolute():
            raise UserError(f"There is no {target}, which made {args.file}. Name it by --model.")
        networks.check_name(target)

    from lightnets.evaluation import features
    from lightnets.run import artifacts

    network = networks.open(target)
    if features.fingerprint(network.model) != known.network:
        again = command("embed", "DATA", target, "--out", args.file)
        raise UserError(
            f"{args.file} has the features of another network than {target}. Make it anew: {again}"
        )
    look = features.pooled(network.model)
    artifact = artifacts.Artifact(None, network.transform, lambda images: Answer(look(images)))
    rows, failed = [], False
    for path, found in predict.predictions(artifact, list(predict.find(args.images)), 32):
        if isinstance(found, str):
            console.line(f"lightnets: {path}: {found}", error=True)
            failed = True
            continue
        likeness = features.cosine(found[0][None], known.features)[0]
        for rank, place in enumerate((-likeness).argsort(kind="stable")[: args.top_k], 1):
            like = f"{likeness[place]:.4f}"
            rows.append([path, rank, known.names[place], known.labels[place], like])
    console.columns(("image", "rank", "name", "label", "similarity"), rows)
    return 1 if failed else 0
