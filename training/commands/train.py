"""`lightnets train`: from a data set and the name of a network to a run directory."""

from __future__ import annotations

import argparse
import contextlib
import pathlib

from lightnets.config import resolve
from lightnets.config.keys import Config
from lightnets.distribution import workers
from lightnets.run import directory as runs
from lightnets.run import networks, run_lock
from lightnets.support import console
from lightnets.support.errors import UsageError, UserError
from lightnets.support.words import command, is_path

HELP = "Train a network and leave a run directory with weights, numbers and pictures."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the flags; those of the configuration stand in `lightnets.config.resolve`."""
    parser.usage = "lightnets train --dataset DATA --out DIR [flags]"
    parser.epilog = (
        "A recipe, chosen for the data or named, sets other values than the defaults shown. "
        "Any key, with a flag or without, is set by --set; docs/training.md explains them."
    )
    parser.add_argument("--out", metavar="DIR", type=pathlib.Path, help="new run directory")
    parser.add_argument(
        "--resume",
        metavar="RUN",
        nargs="?",
        type=pathlib.Path,
        const=True,
        help="continue the run in RUN; alone: continue the run in --out, or start it",
    )
    parser.add_argument("--overwrite", action="store_true", help="delete the run in --out first")
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="build everything, run one batch, print sizes and times, write nothing",
    )
    resolve.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Checks all that can be checked in a moment, then trains."""
    out, resumed = _run_directory(args)
    config = resolve.resolve_resumed(args, out) if out and resumed else resolve.resolve(args)
    _check_names(config, resumed)
    members = workers.cluster(config.train)
    chief = members is None or members.is_chief  # the others write nothing
    place = contextlib.nullcontext()
    if chief and out is not None:
        place = run_lock.held(out) if resumed else runs.claim(out, overwrite=args.overwrite)
    with place:
        if chief and not resumed and config.recipe != args.recipe:
            console.line(f"Recipe: {config.recipe} (chosen for this data; --recipe names another)")
        from lightnets.run import train

        results = train.train(config, out, resume=resumed)
    if chief and out is not None:
        _announce(out, results)
    return 0


def _run_directory(args: argparse.Namespace) -> tuple[pathlib.Path | None, bool]:
    """Returns where the run lives, None for a dry run, and whether it is continued."""
    if args.resume and (args.overwrite or args.dry_run):
        other = "--overwrite" if args.overwrite else "--dry-run"
        raise UsageError(f"--resume and {other} contradict each other. Give one of them.")
    if args.resume is True:
        if args.out is None:
            raise UsageError("--resume needs a run directory: lightnets train --resume RUN.")
        return args.out, (args.out / "config.yaml").is_file()
    if args.resume:
        if args.out not in (None, args.resume):
            raise UsageError("--resume RUN continues in RUN. Drop --out.")
        runs.check_is_run(args.resume)
        return args.resume, True
    if args.dry_run:
        return None, False
    if args.out is None:
        raise UsageError("--out DIR is missing: the directory to write the run to.")
    return args.out, False


def _check_names(config: Config, resumed: bool) -> None:
    """Raises for a network or path that does not exist, before TensorFlow is imported."""
    networks.check_name(config.model.name)
    dataset = config.data.dataset
    if not dataset:
        raise UsageError(
            "--dataset is missing: a folder with a subfolder of pictures for each class, a CSV or "
            "JSONL list, or the name of a TFDS data set. To try it: --dataset digits."
        )
    if is_path(dataset) and not pathlib.Path(dataset).expanduser().exists():
        moved = " If it has moved, name its new place: --dataset PLACE." if resumed else ""
        raise UserError(f"There is no data set at {dataset}.{moved}")
    weights = config.model.weights
    if weights and "/" in weights and not pathlib.Path(weights).expanduser().exists():
        raise UserError(f"There is no weight file {weights}.")


def _announce(out: pathlib.Path, results: dict) -> None:
    numbers = [f"{key} {results[key]:.4f}" for key in ("accuracy", "loss") if key in results]
    if numbers:
        console.line(f"Held out: {', '.join(numbers)}")
    console.line(f"Run: {out}")
    console.line(f"Next: {command('evaluate', out)}")
