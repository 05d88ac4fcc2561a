"""`lightnets train`: from a data set and the name of a network to a run directory."""

from __future__ import annotations

import argparse
import contextlib
import itertools
import pathlib
from collections.abc import Mapping
from typing import Any

from lightnets.config import resolve
from lightnets.config.choices import Choice, choose, nested
from lightnets.config.keys import APPLICATIONS, Config, ModelConfig
from lightnets.distribution import workers
from lightnets.run import directory as runs
from lightnets.run import networks, run_lock
from lightnets.support import console, modules
from lightnets.support.arguments import whole
from lightnets.support.errors import UsageError, UserError
from lightnets.support.words import command, is_path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the flags; those of the configuration stand in `lightnets.config.resolve`."""
    parser.usage = "lightnets train DATA [flags]"
    parser.epilog = (
        "What is not named is chosen from the data, and printed before the first step; with "
        "--recipe nothing is. Any key, with a flag or without, is set by --set; "
        "docs/training.md explains them."
    )
    parser.add_argument("data", metavar="DATA", nargs="?", help="the same as --dataset DATA")
    parser.add_argument(
        "--out",
        metavar="DIR",
        type=pathlib.Path,
        help="new run directory, default: runs/DATA-1, or the next number that is free",
    )
    parser.add_argument(
        "--resume",
        metavar="RUN",
        nargs="?",
        type=pathlib.Path,
        const=True,
        help="continue the run in RUN; alone: continue the run in --out, or start it",
    )
    parser.add_argument(
        "--extend",
        metavar="N",
        type=whole(1),
        help="N more epochs for the finished run of --resume: from its last state, by a new "
        "schedule from --learning-rate, default: its own",
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
    _check_one_data_set(args)
    continued = _continued(args)
    if args.extend and continued is None:
        raise UsageError("--extend goes on with a finished run. Name it: --resume RUN --extend N.")
    choices: list[Choice] = []
    if continued is not None:
        done = runs.epochs_done(continued) if args.extend else 0
        config = resolve.resolve_resumed(args, continued, done, args.extend or 0)
        _check_names(config, resumed=True)
    else:
        config = resolve.resolve(args)
        _check_names(config, resumed=False)
        config, choices = _complete(args, config)
    out = None if args.dry_run else continued or args.out or _free_folder(config)
    members = workers.cluster(config.train)
    chief = members is None or members.is_chief  # the others write nothing
    place = contextlib.nullcontext()
    if chief and out is not None:
        held = continued is not None
        place = run_lock.held(out) if held else runs.claim(out, overwrite=args.overwrite)
    with place:
        if chief and choices:
            _tell(choices)
        if config.data.every_fold:
            return _train_folds(config, out)
        from lightnets.run import train

        results = train.train(config, out, resume=continued is not None)
    if chief and out is not None:
        _announce(out, results, config.data.dataset)
    return 0


def _train_folds(config: Config, out: pathlib.Path | None) -> int:
    if out is None:
        raise UsageError("--dry-run tries one run. Leave out --folds.")
    from lightnets.run import folds

    folds.train_folds(config, out)
    return 0


def _check_one_data_set(args: argparse.Namespace) -> None:
    """Makes DATA the value of `--dataset`, which it may stand beside only if it is the same."""
    if args.data is None:
        return
    if vars(args).setdefault("data.dataset", args.data) != args.data:
        raise UsageError(f"DATA is {args.data}, --dataset another one. Give one of them.")


def _continued(args: argparse.Namespace) -> pathlib.Path | None:
    """Returns the run to continue, None for a new one."""
    if args.resume and (args.overwrite or args.dry_run):
        other = "--overwrite" if args.overwrite else "--dry-run"
        raise UsageError(f"--resume and {other} contradict each other. Give one of them.")
    if args.resume is True:
        if args.out is None:
            raise UsageError("--resume needs a run directory: lightnets train --resume RUN.")
        return args.out if runs.is_run(args.out) else None
    if args.resume:
        if args.out not in (None, args.resume):
            raise UsageError("--resume RUN continues in RUN. Drop --out.")
        runs.check_is_run(args.resume)
    return args.resume


def _complete(args: argparse.Namespace, config: Config) -> tuple[Config, list[Choice]]:
    """Chooses from the data what nobody has named, and fetches weights that were chosen."""
    named = resolve.named(args)
    if named.get("recipe") or config.model.quantize != "none":
        return config, []
    if recipe := resolve.recipe_of_data(config):
        return config, [Choice("", "recipe", recipe, f"the one for {config.data.dataset}")]
    from lightnets.data import facts

    found = facts.look(config)
    own = _of_run(config.model.weights, named.get("model", {}))
    config, given = resolve.resolve(args, nested(own)), nested(own)
    resolve.merge(given, named)
    choices = own + choose(config, given, found)
    config = resolve.resolve(args, nested(choices))
    if any(one.key == "weights" and one.value for one in choices):
        networks.fetch(config.model.name, config.model.sides, found.images)
    return config, choices


def _of_run(weights: str | None, named: Mapping[str, Any]) -> list[Choice]:
    """Returns the network of the run that `--weights` names, unless another one is named."""
    if not weights or "name" in named or not runs.is_run(pathlib.Path(weights)):
        return []
    saved = runs.Run.open(weights).config.model
    return [
        Choice("model", key, value, "that of the run of --weights")
        for key in ("name", "alpha", "args", "image_size", "small_input")
        if (value := getattr(saved, key)) and key not in named
    ]


def _free_folder(config: Config) -> pathlib.Path:
    """Returns the folder below `runs/` that a run gets which names none."""
    if workers.cluster(config.train) is not None:
        raise UsageError("--out DIR is missing: several workers write to the same one.")
    name = pathlib.Path(config.data.dataset).stem.replace(":", "-") or "run"
    numbers = itertools.count(1)
    folders = (pathlib.Path("runs") / f"{name}-{number}" for number in numbers)
    return next(folder for folder in folders if not folder.exists())


def _tell(choices: list[Choice]) -> None:
    console.line("Chosen for this data, where no flag says otherwise:")
    width = max(len(one.flag) for one in choices) + 2
    for one in choices:
        console.line(f"  {one.flag:<{width}}{one.why}")


def _check_names(config: Config, resumed: bool) -> None:
    """Raises for a network or path that does not exist, before TensorFlow is imported."""
    _check_network(config.model)
    dataset = config.data.dataset
    if not dataset:
        raise UsageError(
            "DATA is missing: a folder with a subfolder of pictures for each class, a CSV or JSONL "
            "list, or the name of a TFDS data set. To try it: lightnets train digits."
        )
    if is_path(dataset) and not pathlib.Path(dataset).expanduser().exists():
        moved = " If it has moved, name its new place: --dataset PLACE." if resumed else ""
        raise UserError(f"There is no data set at {dataset}.{moved}")
    unlabelled = config.data.unlabelled
    if unlabelled and not pathlib.Path(unlabelled).expanduser().exists():
        moved = " If it has moved, name its new place: --unlabelled PLACE." if resumed else ""
        raise UserError(f"There is no folder or list {unlabelled}.{moved}")
    if config.distillation.teacher is not None:
        _check_teacher(config.distillation.teacher, resumed)
    weights = config.model.weights
    if weights and "/" in weights and not pathlib.Path(weights).expanduser().exists():
        raise UserError(f"There is no weight file {weights}.")


def _check_network(model: ModelConfig) -> None:
    if not model.foreign:
        networks.check_name(model.name)
    elif not model.is_file:
        modules.check(model.name)
    elif not pathlib.Path(model.name).is_file():
        raise UserError(f"There is no network {model.name}.")


def _check_teacher(target: str, resumed: bool) -> None:
    path = pathlib.Path(target).expanduser()
    if path.is_dir():
        runs.Run.open(path).weights()
    elif not path.exists() and not target.startswith(APPLICATIONS):
        if is_path(target) or target.endswith(".keras"):
            moved = " If it has moved, name its new place: --teacher PLACE." if resumed else ""
            raise UserError(f"There is no teacher {target}.{moved}")
        networks.check_name(target)


def _announce(out: pathlib.Path, results: dict, dataset: str) -> None:
    from lightnets.evaluation import advice

    for line in advice.in_place(results["advice"], out, dataset):
        console.line(f"  {line}")
    console.line(f"Report: {out / 'report.html'}")
    console.line(f"Next: {command('evaluate', out)}")
