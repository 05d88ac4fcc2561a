"""From flags to one resolved configuration: defaults < recipe < file < flags."""

from __future__ import annotations

import argparse
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from training import config as configs
from training.config import Config
from training.errors import UsageError
from training.validate import validate
from training.words import nearest

# Flag -> (key, help). Every other key is reached by `--set section.key=value`.
FLAGS: dict[str, tuple[str, str]] = {
    "--model": ("model.name", "network, a name of `lightnets list`"),
    "--weights": ("model.weights", "start from these weights: a file or a tag as `imagenet`"),
    "--freeze": ("model.freeze", "layers that do not learn: `backbone` or a regular expression"),
    "--image-size": ("model.image_size", "pixels of the square the network sees"),
    "--alpha": ("model.alpha", "width multiplier"),
    "--dataset": ("data.dataset", "TFDS name, folder of class folders, CSV or JSONL file"),
    "--data-dir": ("data.data_dir", "where TFDS keeps prepared data"),
    "--val-split": ("data.val_split", "share held out when the data has no split of its own"),
    "--cache": ("data.cache", "auto, memory, disk or none"),
    "--data-service": ("data.data_service", "address of a tf.data service dispatcher"),
    "--epochs": ("train.epochs", "passes over the training images"),
    "--batch-size": ("train.batch_size", "images a step, over all devices"),
    "--optimizer": ("optimizer.name", "sgd, rmsprop, adamw, lion or muon"),
    "--learning-rate": ("optimizer.learning_rate", "peak, after the warm-up"),
    "--weight-decay": ("optimizer.weight_decay", "see docs/recipes.md"),
    "--schedule": ("optimizer.schedule", "learning rate over time"),
    "--seed": ("train.seed", "decides initial weights, order, augmentation and dropout"),
    "--precision": ("train.precision", "auto, float32, mixed_bfloat16 or mixed_float16"),
    "--devices": ("train.devices", "all, 0,1 (GPUs) or cpu:2 (logical CPUs)"),
    "--workers": ("train.workers", "host:port,... of all machines"),
    "--worker-index": ("train.worker_index", "which of --workers this is"),
    "--accumulate": ("train.accumulate", "parts into which each batch is cut to save memory"),
    "--ema": ("train.ema", "decay of the average of weights; 0: none"),
    "--steps-per-execution": ("train.steps_per_execution", "steps in one call of the graph"),
    "--jit": ("train.jit", "compile the step with XLA: off, on or auto"),
    "--checkpoint-steps": ("train.checkpoint_steps", "steps between checkpoints; 0: each epoch"),
    "--time-limit": ("train.time_limit_minutes", "minutes after which the run stops and is saved"),
    "--early-stopping": ("train.early_stopping_epochs", "epochs without progress before it stops"),
}
SWITCHES: dict[str, tuple[str, str]] = {
    "--download": ("data.download", "let TFDS download what is not prepared"),
    "--skip-corrupt": ("data.skip_corrupt", "train without damaged images instead of stopping"),
    "--small-input": ("model.small_input", "stem for images of 32 to 64 pixels"),
    "--sync-bn": ("train.sync_bn", "batch statistics over all devices"),
    "--tensorboard": ("train.tensorboard", "write TensorBoard logs into the run"),
}
# Keys that change how a run is computed but not what it computes: free to differ on --resume.
RESUMABLE = {
    *("train.devices", "train.workers", "train.worker_index", "train.worker_wait_minutes"),
    "train.steps_per_execution",
    *("train.jit", "train.checkpoint_steps", "train.keep_checkpoints", "train.tensorboard"),
    *("train.time_limit_minutes", "data.cache", "data.num_threads", "data.data_dir"),
    *("data.download", "data.data_service"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares `--recipe`, `--config`, `--set` and a flag for each common key."""
    parser.add_argument("--recipe", help="named configuration of docs/recipes.md")
    parser.add_argument("--config", metavar="FILE", help="YAML file of keys, such as a run's")
    for flag, (key, text) in FLAGS.items():
        parser.add_argument(flag, dest=key, help=f"{text} ({key})", default=argparse.SUPPRESS)
    for flag, (key, text) in SWITCHES.items():
        parser.add_argument(
            flag,
            dest=key,
            action=argparse.BooleanOptionalAction,
            help=f"{text} ({key})",
            default=argparse.SUPPRESS,
        )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="SECTION.KEY=VALUE",
        help="set any key of the configuration; may be repeated",
    )


def flag_values(args: argparse.Namespace) -> dict[str, Any]:
    """Returns the nested keys that the command line sets by flags and `--set`."""
    values: dict[str, Any] = {}
    named = {**FLAGS, **SWITCHES}
    for key, _ in named.values():
        if key in vars(args):
            value = vars(args)[key]
            text = value if isinstance(value, str) else str(value).lower()
            merge(values, _assignment(key, text))
    for text in args.set:
        merge(values, configs.parse_assignment(text))
    return values


def _assignment(key: str, text: str) -> dict[str, Any]:
    """Reads a flag's text; a name, path or list such as `0,1` or `on` stays text."""
    section, name = key.split(".")
    if isinstance(getattr(getattr(Config(), section), name), str) or key in _TEXT:
        return {section: {name: text}}
    return configs.parse_assignment(f"{key}={text}")


# Keys of text that default to nothing.
_TEXT = {"model.weights", "model.freeze", "data.data_dir", "data.data_service", "train.workers"}


def resolve(args: argparse.Namespace) -> Config:
    """Returns the configuration of a new run.

    Raises:
        UsageError: An unknown recipe, key or value, or values that contradict each other.
    """
    from training import recipes

    file = configs.load(args.config) if args.config else {}
    flags = flag_values(args)
    merged: dict[str, Any] = {}
    merge(merged, file)
    merge(merged, flags)
    name = args.recipe or merged.get("recipe")
    if name is None:
        name = default_recipe(configs.from_dict(merged, where="the command line"))
    if name not in recipes.RECIPES:
        close = nearest(str(name), recipes.RECIPES)
        raise UsageError(f"Unknown recipe {name!r}.{close} Known: {', '.join(recipes.RECIPES)}.")
    config = configs.from_dict(recipes.RECIPES[name].config, where=f"recipe {name}")
    config = configs.update(config, file, where=args.config or "file")
    config = configs.update(config, flags, where="the command line")
    config = configs.update(config, {"recipe": name}, where="the command line")
    config = _give_way(_anchored(config), chosen=merged)
    validate(config)
    return config


def _anchored(config: Config) -> Config:
    """Makes the paths in `config` absolute: a run is also read from other working directories."""
    values: dict[str, Any] = {}
    for section, key in (("data", "dataset"), ("data", "data_dir"), ("model", "weights")):
        text = getattr(getattr(config, section), key)
        # What does not exist is a name, or will be reported as it was given.
        if text and (path := pathlib.Path(text).expanduser()).exists():
            values.setdefault(section, {})[key] = str(path.absolute())
    return configs.update(config, values, where="the command line")


def _give_way(config: Config, chosen: Mapping[str, Any]) -> Config:
    """Takes back what the recipe sets where it contradicts what the user has `chosen`.

    A run shorter than the recipe's warms up for at most a fifth of it; a backbone frozen to the
    end needs no epochs in which only the head learns.
    """
    values: dict[str, Any] = {}
    if "warmup_epochs" not in chosen.get("optimizer", {}):
        warmup = min(config.optimizer.warmup_epochs, max(config.train.epochs, 0) / 5)
        values["optimizer"] = {"warmup_epochs": warmup}
    if config.model.freeze == "backbone":
        released = ("head_warmup_epochs", "unfreeze_epochs")
        values["model"] = {key: 0 for key in released if key not in chosen.get("model", {})}
    return configs.update(config, values, where=f"recipe {config.recipe}")


# The recipe of ImageNet when none is named: each network's own.
_IMAGENET_RECIPES = {
    "squeezenet": "squeezenet-paper",
    "mobilenet_v1": "mobilenet_v1-paper",
    "mobilenet_v2": "mobilenet_v2-torchvision",
    "shufflenet_v1": "shufflenet-paper",
    "shufflenet_v2": "shufflenet-paper",
}


def default_recipe(config: Config) -> str:
    """Returns the recipe for a configuration that names none."""
    if config.data.dataset == "digits":
        return "digits"
    if config.data.dataset.startswith("imagenet2012"):
        for family, name in _IMAGENET_RECIPES.items():
            if config.model.name.startswith(family):
                return name
    return "finetune" if config.model.weights else "scratch-small"


def resolve_resumed(args: argparse.Namespace, run: pathlib.Path) -> Config:
    """Returns the configuration of the run in `run`, with what may change from the flags.

    On which machines a run goes on is not taken from how it was started: named once more, or not.

    Raises:
        UsageError: A flag contradicts what the run was started with.
    """
    saved = configs.from_dict(configs.load(run / "config.yaml"), where=f"{run}/config.yaml")
    started_on = saved.train.workers
    here = {"train": {"workers": None, "worker_index": 0}}
    saved = configs.update(saved, here, where=f"{run}/config.yaml")
    values = configs.load(args.config) if args.config else {}
    merge(values, flag_values(args))
    if args.recipe:
        values["recipe"] = args.recipe
    wanted = _anchored(configs.update(saved, values, where="the command line"))
    old, new = configs.to_dict(saved), configs.to_dict(wanted)
    for section, keys in new.items():
        if not isinstance(keys, Mapping):
            keys, old[section] = {None: keys}, {None: old[section]}
        for key, value in keys.items():
            name = section if key is None else f"{section}.{key}"
            if name not in RESUMABLE and value != old[section][key]:
                raise UsageError(
                    f"{name} (={value}) differs from the run in {run}, which was started with "
                    f"{old[section][key]}. Drop it to resume, or start a new run with --out."
                )
    validate(wanted)
    if started_on and not wanted.train.workers and "TF_CONFIG" not in os.environ:
        count = len(started_on.split(","))
        print(
            f"This run was started on {count} workers and goes on on this machine alone. To use "
            f"several again, start all with: --workers {started_on} --worker-index I",
            flush=True,
        )
    return wanted


def merge(target: dict[str, Any], values: Mapping[str, Any]) -> None:
    """Merges nested `values` into `target`, key by key."""
    for key, value in values.items():
        if isinstance(value, Mapping) and isinstance(target.get(key), dict):
            merge(target[key], value)
        else:
            target[key] = dict(value) if isinstance(value, Mapping) else value
