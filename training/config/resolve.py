"""From flags to one resolved configuration: defaults < recipe < file < flags."""

from __future__ import annotations

import argparse
import os
import pathlib
import re
from collections.abc import Mapping
from typing import Any

from lightnets.config import keys as configs
from lightnets.config import recipes, tasks
from lightnets.config.keys import Config
from lightnets.config.validate import validate
from lightnets.support import console
from lightnets.support.errors import UsageError
from lightnets.support.words import nearest

# Headings of `--help`, in order, and the sections whose flags stand there if a key says no other.
_GROUPS = {
    "data": "data",
    "network": "model",
    "training": "optimizer train distillation",
    "machine": "",
    "output": "",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares `--recipe`, `--config`, `--set` and a flag for each common key."""
    parser.add_argument("--recipe", help="named configuration: lightnets list --recipes")
    parser.add_argument("--config", metavar="FILE", help="YAML file of keys, such as a run's")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="SECTION.KEY=VALUE",
        help="set any key of the configuration; may be repeated",
    )
    groups = {name: parser.add_argument_group(name) for name in _GROUPS}
    home = {section: name for name, sections in _GROUPS.items() for section in sections.split()}
    for one in configs.declared():
        if one.flag is None:
            continue
        default = "" if one.default in (None, False, "") else f", default: {one.default}"
        kind: dict[str, Any] = {"metavar": one.metavar}
        if one.type is bool:
            kind = {"action": argparse.BooleanOptionalAction}
        group = one.group or home[one.name.partition(".")[0]]
        groups[group].add_argument(
            one.flag,
            dest=one.name,
            help=f"{one.help} ({one.name}{default})",
            default=argparse.SUPPRESS,
            **kind,
        )


def add_place(parser: argparse.ArgumentParser) -> None:
    """Declares what is said of a data set that is only looked at."""
    parser.add_argument("--layout", choices=configs.LAYOUTS, help="what the folders in DATA are")
    parser.add_argument("--data-dir", help="where TFDS keeps prepared data")


def place(args: argparse.Namespace, dataset: str | None) -> dict[str, str]:
    """Returns the keys of `data` that `add_place` and the name of a data set give."""
    given = {"dataset": dataset, "data_dir": args.data_dir, "layout": args.layout}
    return {key: value for key, value in given.items() if value is not None}


def flag_values(args: argparse.Namespace) -> dict[str, Any]:
    """Returns the nested keys that the command line sets by flags and `--set`."""
    values: dict[str, Any] = {}
    for one in configs.declared():
        if one.name in vars(args):
            value = vars(args)[one.name]
            text = value if isinstance(value, str) else str(value).lower()
            merge(values, _assignment(one, text))
    for text in args.set:
        merge(values, configs.parse_assignment(text))
    return values


def _assignment(one: configs.Key, text: str) -> dict[str, Any]:
    """Reads a flag's text; a name, path or list such as `0,1` or `on` stays text."""
    if one.is_text:
        section, name = one.name.split(".")
        absent = text == "none" and one.default is None
        return {section: {name: None if absent else text}}
    return configs.parse_assignment(f"{one.name}={text}")


def named(args: argparse.Namespace) -> dict[str, Any]:
    """Returns the nested keys that file and command line set, the recipe among them."""
    values = configs.load(args.config) if args.config else {}
    merge(values, flag_values(args))
    if args.recipe:
        values["recipe"] = args.recipe
    return values


def resolve(args: argparse.Namespace, chosen: Mapping[str, Any] | None = None) -> Config:
    """Returns the configuration of a new run.

    Args:
        args: The command line.
        chosen: Nested keys that hold where neither the file nor a flag sets them.

    Raises:
        UsageError: An unknown recipe, key or value, or values that contradict each other.
    """
    file = configs.load(args.config) if args.config else {}
    flags = flag_values(args)
    merged = named(args)
    base = _finished_run(merged)
    name = merged.get("recipe") or (chosen or {}).get("recipe") or base.get("recipe")
    if name is None:
        name = default_recipe(configs.from_dict(merged, where="the command line"))
    if name not in recipes.RECIPES:
        close = nearest(str(name), recipes.RECIPES)
        raise UsageError(f"Unknown recipe {name!r}.{close} Known: {', '.join(recipes.RECIPES)}.")
    recipe = recipes.RECIPES[name]
    config = configs.from_dict(recipe.config, where=f"recipe {name}")
    config = configs.update(config, base, where="the run of --weights")
    config = configs.update(config, chosen or {}, where="the data set")
    config = configs.update(config, file, where=args.config or "file")
    config = configs.update(config, flags, where="the command line")
    config = configs.update(config, {"recipe": name}, where="the command line")
    if not base and not {"name", "learning_rate"} & set(merged.get("optimizer", {})):
        config = _at_its_rate(config, recipe.rates)
    config = _give_way(_anchored(config), chosen=merged)
    validate(config)
    return config


# What training for int8 takes from the run that it goes on from: a tenth of the epochs and a
# hundredth of the rate, as NVIDIA's quantization toolkit advises. Folded batch norms damp no step
# any more: at a tenth of the rate all five families lost more than plain int8 costs.
_SHARE_OF_EPOCHS, _SHARE_OF_RATE = 0.1, 0.01


def _finished_run(named: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the keys of the run that `--quantize` trains on, {} without that flag.

    Raises:
        UsageError: `--weights` names no run.
    """
    model = named.get("model", {})
    if model.get("quantize", "none") == "none":
        return {}
    run = pathlib.Path(model.get("weights") or "").expanduser()
    if not (run / "config.yaml").is_file():
        raise UsageError(
            "--quantize trains a finished run on. Name its folder: --weights RUN. "
            f"Received: {model.get('weights')}"
        )
    values = configs.load(run / "config.yaml")
    saved = configs.from_dict(values, where=f"{run}/config.yaml")
    if saved.model.quantize != "none":
        raise UsageError(f"{run} is quantized already. Name the run that it was made from.")
    values.get("optimizer", {}).pop("extensions", None)
    epochs = max(1, round(_SHARE_OF_EPOCHS * saved.train.epochs))
    rate = _SHARE_OF_RATE * saved.optimizer.learning_rate
    own = {
        "model": {"freeze": None, "head_warmup_epochs": 0, "unfreeze_epochs": 0},
        "optimizer": {"learning_rate": rate, "warmup_epochs": 0.0},
        "train": {"epochs": epochs, "precision": "auto", "workers": None, "worker_index": 0},
    }
    merge(values, own)
    return values


def _at_its_rate(config: Config, rates: Mapping[str, float]) -> Config:
    """Gives a network the rate that it needs, where that is not the recipe's."""
    for pattern, rate in rates.items():
        if re.match(pattern, config.model.name) and not config.model.args.get("batch_norm"):
            values = {"optimizer": {"learning_rate": rate}}
            return configs.update(config, values, where=f"recipe {config.recipe}")
    return config


def _anchored(config: Config) -> Config:
    """Makes the paths in `config` absolute: a run is also read from other working directories."""
    values: dict[str, Any] = {}
    names = [
        "data.dataset",
        "data.data_dir",
        "data.unlabelled",
        "model.weights",
        "distillation.teacher",
    ]
    if config.model.is_file:
        names.append("model.name")
    for name in names:
        text, (section, key) = configs.value_of(config, name), name.split(".")
        # What does not exist is a name, or will be reported as it was given.
        if text and (path := pathlib.Path(text).expanduser()).exists():
            values.setdefault(section, {})[key] = str(path.absolute())
    return configs.update(config, values, where="the command line")


def _give_way(config: Config, chosen: Mapping[str, Any]) -> Config:
    """Takes back what the recipe sets where it contradicts what the user has `chosen`.

    A run shorter than the recipe's warms up for at most a fifth of it; a backbone frozen to the
    end needs no epochs in which only the head learns; of whole pictures nothing is cut off; the
    stem of somebody else's network is as it is; a task has its own number for the best epoch, and
    nothing of what it lacks.
    """
    values: dict[str, Any] = {}
    facts = tasks.TASKS[config.train.task]
    own = {one.name: one.default for one in configs.declared() if one.name in facts.lacks}
    if not re.fullmatch(facts.monitors[0], config.train.monitor):
        own["train.monitor"] = facts.monitor
    for name, value in own.items():
        section, key = name.split(".")
        if key not in chosen.get(section, {}):
            values.setdefault(section, {})[key] = value
    config = configs.update(config, values, where=f"--task {config.train.task}")
    values = {}
    if "warmup_epochs" not in chosen.get("optimizer", {}):
        warmup = min(config.optimizer.warmup_epochs, max(config.train.epochs, 0) / 5)
        values["optimizer"] = {"warmup_epochs": warmup}
    if config.model.freeze == "backbone":
        released = ("head_warmup_epochs", "unfreeze_epochs")
        values["model"] = {key: 0 for key in released if key not in chosen.get("model", {})}
    if config.model.foreign and "small_input" not in chosen.get("model", {}):
        values.setdefault("model", {})["small_input"] = False
    if config.data.resize != "crop":
        crop = "center" if config.data.crop == "random_resized" else config.data.crop
        own = {"crop": crop, "resize_shorter": None}
        values["data"] = {k: own[k] for k in own if k not in chosen.get("data", {})}
    return configs.update(config, values, where=f"recipe {config.recipe}")


def default_recipe(config: Config) -> str:
    """Returns the recipe for a configuration that names none."""
    return recipe_of_data(config) or ("finetune" if config.model.weights else "scratch-small")


def recipe_of_data(config: Config) -> str | None:
    """Returns the recipe that was made for a data set and network, None if there is none."""
    if config.data.dataset == "digits":
        return "digits"
    if config.data.dataset.startswith("imagenet2012"):
        for name, recipe in recipes.RECIPES.items():
            if config.model.name.startswith(recipe.families):
                return name
    return None


def _extended(saved: Config, values: dict[str, Any], done: int, epochs: int) -> Config:
    """Returns the configuration of a finished run that goes on, and takes its rate from `values`.

    Args:
        saved: Of the run.
        values: What the command line sets; a learning rate is that of the new schedule.
        done: Epochs after which it is finished.
        epochs: That it goes on.
    """
    rate = values.get("optimizer", {}).pop("learning_rate", saved.optimizer.learning_rate)
    rated = configs.update(saved, {"optimizer": {"learning_rate": rate}}, where="the command line")
    begun = {**saved.optimizer.extensions, str(done): rated.optimizer.learning_rate}
    values = {"train": {"epochs": done + epochs}, "optimizer": {"extensions": begun}}
    return configs.update(saved, values, where="the command line")


def resolve_resumed(
    args: argparse.Namespace, run: pathlib.Path, done: int = 0, extend: int = 0
) -> Config:
    """Returns the configuration of the run in `run`, with what may change from the flags.

    On which machines a run goes on is not taken from how it was started: named once more, or not.

    Args:
        args: The command line.
        run: Its folder.
        done: Epochs after which it is finished.
        extend: Epochs that it then goes on; 0: it is continued as it is.

    Raises:
        UsageError: A flag contradicts what the run was started with.
    """
    saved = configs.from_dict(configs.load(run / "config.yaml"), where=f"{run}/config.yaml")
    started_on = saved.train.workers
    here = {"train": {"workers": None, "worker_index": 0}}
    saved = configs.update(saved, here, where=f"{run}/config.yaml")
    values = named(args)
    if extend:
        saved = _extended(saved, values, done, extend)
    wanted = _anchored(configs.update(saved, values, where="the command line"))
    fixed = [one.name for one in configs.declared() if not one.resumable]
    for name in ("distillation.teacher", "data.unlabelled"):
        if None in (configs.value_of(saved, name), configs.value_of(wanted, name)):
            fixed.append(name)  # it may have moved, but not come or gone
    for name in ("recipe", *fixed):
        old, new = configs.value_of(saved, name), configs.value_of(wanted, name)
        if new != old:
            more = (
                " Of a finished run --extend N asks for N more." if name == "train.epochs" else ""
            )
            raise UsageError(
                f"{name} (={new}) differs from the run in {run}, which has {old}.{more} Drop it to "
                "resume, or start a new run with --out."
            )
    validate(wanted)
    if started_on and not wanted.train.workers and "TF_CONFIG" not in os.environ:
        count = len(started_on.split(","))
        console.line(
            f"This run was started on {count} workers and goes on on this machine alone. To use "
            f"several again, start all with: --workers {started_on} --worker-index I"
        )
    return wanted


def merge(target: dict[str, Any], values: Mapping[str, Any]) -> None:
    """Merges nested `values` into `target`, key by key."""
    for key, value in values.items():
        if isinstance(value, Mapping) and isinstance(target.get(key), dict):
            merge(target[key], value)
        else:
            target[key] = dict(value) if isinstance(value, Mapping) else value
