"""`lightnets compare`: finished runs side by side. Imports TensorFlow only to measure them."""

from __future__ import annotations

import argparse
import pathlib

from lightnets.run import directory
from lightnets.support import console
from lightnets.support.errors import UsageError
from lightnets.support.words import command
from lightnets.support.writing import check_file, write_text


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the runs and where tables go."""
    parser.add_argument("runs", nargs="+", metavar="RUN", type=pathlib.Path, help="run directory")
    parser.add_argument(
        "--measure", action="store_true", help="add milliseconds for one image on this machine"
    )
    parser.add_argument("--csv", type=pathlib.Path, metavar="FILE", help="write a row a run")
    parser.add_argument(
        "--page", type=pathlib.Path, metavar="FILE.html", help="write a page with the curves"
    )


def run(args: argparse.Namespace) -> int:
    """Prints what each run reached and what was set otherwise."""
    if len(args.runs) < 2:
        raise UsageError(f"With what is {args.runs[0]} compared? Name two runs or more.")
    for path in args.runs:
        directory.check_is_run(path)
    for flag, path in (("--csv", args.csv), ("--page", args.page)):
        if path is not None:
            check_file(path, flag)

    from lightnets.evaluation import compare

    runs = list(map(compare.read, args.runs))
    if args.measure:
        runs = [run._replace(milliseconds=_milliseconds(run.path)) for run in runs]
    numbered = range(1, len(runs) + 1)
    rows = [[number, *row] for number, row in zip(numbered, compare.cells(runs), strict=True)]
    console.table(("", *compare.header(runs)), rows)
    console.line()
    console.paragraph(compare.EXPLAINED)
    if different := compare.differences(runs):
        console.line()
        console.table(("set otherwise", *(f"run {number}" for number in numbered)), different)
    if args.csv:
        write_text(args.csv, compare.table_text(runs))
    if args.page:
        compare.write_page(runs, args.page)
    for path in filter(None, (args.csv, args.page)):
        console.line(f"Wrote {path}")
    console.line(f"Next: {command('export', compare.best(runs).path, '--out', 'served')}")
    return 0


def _milliseconds(path: pathlib.Path) -> float:
    from lightnets.run import speed

    return speed.milliseconds(directory.load_network(path / "weights" / "best.keras"))[0]
