"""`lightnets release`: which versions servers of a bundle offer as stable and as canary."""

from __future__ import annotations

import argparse
import difflib
import pathlib

from keras_lightnets.export import bundle, release
from keras_lightnets.export.models_config import MODELS_FILE
from lightnets.support import arguments, console
from lightnets.support.errors import UsageError, UserError, told
from lightnets.support.writing import write_text


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's flags."""
    add, version = parser.add_argument, arguments.whole(1, bundle.MAX_VERSION)
    add("directory", type=pathlib.Path, metavar="DIR", help="of `lightnets export --out`")
    add("--model", metavar="NAME", help="in models.config (default: the only one)")
    add("--stable", type=version, metavar="N", help="the version for everybody")
    add("--canary", type=version, metavar="N", help="the version to try, beside it")
    add(
        "--rollback",
        action="store_true",
        help="take the canary away; without one, return to the stable version before",
    )


def run(args: argparse.Namespace) -> int:
    """Changes `models.config`, and shows how."""
    given = args.stable is not None or args.canary is not None
    if given == args.rollback:
        raise UsageError("Name versions, with --stable and --canary, or say --rollback.")
    if not args.directory.is_dir():
        raise UserError(f"There is no folder {args.directory}.")
    path = args.directory / MODELS_FILE
    with bundle.locked(args.directory), told(ValueError):
        name, before, after = release.change(args.directory, args.model, args.stable, args.canary)
        if before == after:
            console.line(f"{path} says so already.")
            return 0
        write_text(path, after)
        bundle.make_readable(path)
    lines = difflib.unified_diff(
        before.splitlines(), after.splitlines(), str(path), str(path), lineterm=""
    )
    for line in lines:
        console.line(line)
    console.line(
        "A server that polls this file, as that of compose.yaml does, follows in some seconds. "
        f"Clients ask for /v1/models/{name}/labels/stable"
    )
    return 0
