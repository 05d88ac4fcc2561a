"""`lightnets verify`: whether exported files are still those that were written."""

from __future__ import annotations

import argparse
import pathlib

from keras_lightnets.export import bundle, checksums
from lightnets.support import console
from lightnets.support.errors import UserError
from lightnets.support.words import command


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's flags."""
    parser.add_argument(
        "directory", type=pathlib.Path, metavar="DIR", help="a version, a model, or a bundle"
    )


def run(args: argparse.Namespace) -> int:
    """Prints a line for each version that is whole and for each file that is not."""
    if not args.directory.is_dir():
        raise UserError(f"There is no folder {args.directory}.")
    versions = bundle.versions_below(args.directory)
    if not versions:
        raise UserError(f"{args.directory} holds no exported version.")
    failed = 0
    for version in versions:
        problems = checksums.problems(version)
        for problem in problems:
            console.line(f"FAILED  {version}/{problem}")
        if not problems:
            console.line(f"ok      {version}")
        failed += bool(problems)
    if failed:
        raise UserError(f"{failed} of {len(versions)} versions are not as they were exported.")
    model = args.directory.parent if versions == [args.directory] else args.directory
    console.line(f"Next: {command('serve', model)}")
    return 0
