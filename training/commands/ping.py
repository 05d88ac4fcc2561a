"""`lightnets ping`: classify image files with a running server."""

from __future__ import annotations

import argparse

from keras_lightnets.serving.client import Client
from keras_lightnets.serving.transport import ClientError
from lightnets.support import console
from lightnets.support.errors import UsageError, UserError

HELP = "classify image files with a running server"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument("url", help="http://HOST:PORT or grpc://HOST:PORT, with /v1/models/NAME")
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="JPEG, PNG, BMP or GIF files")
    parser.add_argument("--model", help="its name, if not in the URL")
    parser.add_argument("--top", type=int, default=1, help="classes to print (%(default)s)")
    parser.add_argument(
        "--timeout", type=float, default=30.0, help="seconds for one attempt (%(default)s)"
    )


def run(args: argparse.Namespace) -> int:
    """Prints one line an image: file, label and probability."""
    if args.top < 1:
        raise UsageError(f"--top must be at least 1. Received: {args.top}")
    try:
        client = Client(args.url, args.model, timeout_s=args.timeout)
    except ValueError as error:
        raise UsageError(str(error)) from error
    failed = 0
    with client:
        try:
            args.model = client.model
        except ClientError as error:  # not the fault of an image
            raise UserError(str(error)) from error
        for image in args.images:
            try:
                (result,) = client.classify(image, args.top)
            except ClientError as error:
                if error.status is None:  # no server: the other images would fare no better
                    raise UserError(str(error)) from error
                reason = str(error).removeprefix(f"{image}: ")
            except OSError as error:
                reason = error.strerror
            else:
                shown = [f"{label} {score:.4f}" for label, score in result]
                console.fields(image, *shown)
                continue
            console.fields(image, f"error: {reason}")
            failed += 1
    if failed:
        raise UserError(f"{failed} of {len(args.images)} images failed")
    return 0
