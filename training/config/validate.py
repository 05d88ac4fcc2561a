"""Ranges and rules between keys of a configuration, checked before anything is built."""

from __future__ import annotations

import math
import re

from lightnets.config import keys as configs
from lightnets.config import tasks
from lightnets.config.keys import Config, DistillationConfig, ModelConfig
from lightnets.support.errors import UsageError


def validate(config: Config) -> None:
    """Raises UsageError naming the first key that is out of range or contradicts another."""
    for key in configs.declared():
        value, low, high = configs.value_of(config, key.name), key.low, key.high
        numbers = config.model.sides if key.name == "model.image_size" else (value,)
        if value is None or all(
            (low is None or number >= low) and (high is None or number <= high)
            for number in numbers
        ):
            continue
        bounds = f"at least {low}" if high is None else f"between {low} and {high}"
        raise UsageError(f"{key.name} must be {bounds}. Received: {value}.")
    _check_ascending("crop_area", "shares of the image area, at most 1", config.data.crop_area, 1)
    _check_ascending("crop_aspect", "ratios of width to height", config.data.crop_aspect, math.inf)
    background = config.data.background
    if not all(0 <= level <= 255 for level in background):
        raise UsageError(f"data.background must be levels from 0 to 255. Received: {background}.")
    _check_task(config)
    _check_resize(config)
    _check_folds(config)
    if config.train.worker_index and not config.train.workers:
        raise UsageError(
            f"train.worker_index (={config.train.worker_index}) needs train.workers "
            "(--workers host:port,...)."
        )
    _check_extensions(config)
    _check_freezing(config.model)
    views = config.data.views
    if views and config.model.freeze != "backbone" and config.model.head_warmup_epochs <= views:
        raise UsageError(
            f"data.views (={views}) is for a backbone that does not learn. Add --freeze backbone."
        )
    if config.model.quantize != "none":
        if config.model.weights is None:
            raise UsageError("--quantize trains a finished run on. Name it: --weights RUN.")
        if config.train.precision.startswith("mixed"):
            raise UsageError(
                f"--quantize computes in float32. Leave out train.precision "
                f"(={config.train.precision})."
            )
    _check_distillation(config)
    if 0 < config.train.epochs <= config.optimizer.warmup_epochs:
        raise UsageError(
            f"optimizer.warmup_epochs (={config.optimizer.warmup_epochs}) must be less than "
            f"train.epochs (={config.train.epochs})."
        )
    if config.train.batch_size % config.train.accumulate:
        raise UsageError(
            f"train.batch_size (={config.train.batch_size}) must be divisible by "
            f"train.accumulate (={config.train.accumulate})."
        )


def _check_task(config: Config) -> None:
    task, monitor = config.train.task, config.train.monitor
    pattern, words = tasks.TASKS[task].monitors
    if not re.fullmatch(pattern, monitor):
        raise UsageError(f"train.monitor must be {words}. Received: {monitor!r}.")
    for key in configs.declared():
        if configs.value_of(config, key.name) != key.default:
            tasks.check(task, key.name)


def _check_distillation(config: Config) -> None:
    distillation = config.distillation
    if distillation.teacher is None and distillation != DistillationConfig():
        raise UsageError(
            "distillation.temperature and distillation.student_loss_weight need a teacher: "
            "--teacher RUN."
        )
    of_labels = distillation.teacher is None or distillation.student_loss_weight == 1
    if config.data.unlabelled and of_labels:
        raise UsageError(
            f"data.unlabelled (={config.data.unlabelled}) is learned from a teacher alone: "
            "--teacher RUN, and distillation.student_loss_weight below 1."
        )


def _check_folds(config: Config) -> None:
    data = config.data
    if data.folds == 1 or data.fold > data.folds:
        raise UsageError(
            f"data.folds (={data.folds}) must be at least 2, and data.fold (={data.fold}) one of "
            "them, or 0 for all."
        )
    if data.every_fold and config.train.workers:
        raise UsageError("--folds trains on one machine. Leave out --workers.")


def _check_resize(config: Config) -> None:
    data, shorter = config.data, config.data.resize_shorter
    if data.resize != "crop":
        for key, cuts in (
            ("resize_shorter", shorter is not None),
            ("crop", data.crop == "random_resized"),
        ):
            if cuts:
                raise UsageError(
                    f"data.{key} (={getattr(data, key)}) cuts something off, but data.resize "
                    f"(={data.resize}) keeps whole pictures. Leave one of them out."
                )
    elif shorter is not None and shorter < min(config.model.sides):
        raise UsageError(
            f"data.resize_shorter (={shorter} pixels) must be at least the smaller side of "
            f"model.image_size (={config.model.image_size})."
        )


def _check_ascending(key: str, what: str, values: tuple[float, float], most: float) -> None:
    low, high = values
    if not 0 < low <= high <= most:
        raise UsageError(
            f"data.{key} must be two {what}, the smaller one first. Received: [{low}, {high}]."
        )


def _check_extensions(config: Config) -> None:
    for after, rate in config.optimizer.extensions.items():
        epochs = str(after).isdecimal() and 0 < int(after) < config.train.epochs
        if not epochs or not isinstance(rate, int | float) or not 0 <= rate < math.inf:
            raise UsageError(
                "optimizer.extensions must be epochs, below train.epochs "
                f"(={config.train.epochs}), each with a learning rate. Received: {after}: {rate}."
            )


def _check_freezing(model: ModelConfig) -> None:
    if model.freeze is None:
        return
    if model.freeze == "backbone":
        for name in ("head_warmup_epochs", "unfreeze_epochs"):
            if getattr(model, name):
                raise UsageError(
                    f"model.freeze=backbone keeps the backbone fixed to the end, so model.{name} "
                    f"(={getattr(model, name)}) must be 0. Leave out model.freeze to release it."
                )
        return
    try:
        re.compile(model.freeze)
    except re.error as error:
        raise UsageError(
            f"model.freeze must be 'backbone' or a regular expression for layer names. "
            f"Received: {model.freeze!r} ({error})."
        ) from None
