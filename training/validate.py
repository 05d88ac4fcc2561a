"""Ranges and rules between keys of a configuration, checked before anything is built."""

from __future__ import annotations

import re

from training.config import Config, ModelConfig
from training.errors import UsageError

# Key -> (lowest, highest) allowed value; None: no bound.
_RANGES: dict[str, tuple[float | None, float | None]] = {
    "model.alpha": (0.05, 8),
    "model.image_size": (32, 4096),
    "model.dropout_rate": (0, 0.99),
    "model.bn_momentum": (0, 0.9999),
    "model.head_warmup_epochs": (0, None),
    "model.unfreeze_epochs": (0, None),
    "data.val_split": (0.001, 0.9),
    "data.shift": (0, 0.5),
    "data.color_jitter": (0, 1),
    "data.mixup": (0, None),
    "data.cutmix": (0, None),
    "data.random_erasing": (0, 1),
    "data.num_threads": (0, 256),
    "optimizer.learning_rate": (0, None),
    "optimizer.scale_to_batch": (0, None),
    "optimizer.momentum": (0, 1),
    "optimizer.weight_decay": (0, None),
    "optimizer.rho": (0, 1),
    "optimizer.epsilon": (1e-12, None),
    "optimizer.global_clipnorm": (1e-9, None),
    "optimizer.clipnorm": (1e-9, None),
    "optimizer.clipvalue": (1e-9, None),
    "optimizer.beta_1": (0, 1),
    "optimizer.beta_2": (0, 1),
    "optimizer.warmup_epochs": (0, None),
    "optimizer.warmup_start": (0, 1),
    "optimizer.end_rate": (0, 1),
    "optimizer.power": (0, None),
    "optimizer.decay_rate": (0, 1),
    "optimizer.decay_epochs": (1e-3, None),
    "train.epochs": (1, None),
    "train.batch_size": (1, None),
    "train.eval_batch_size": (0, None),
    "train.accumulate": (1, None),
    "train.seed": (0, 2**31 - 1),
    "train.worker_index": (0, None),
    "train.worker_wait_minutes": (0, None),
    "train.reestimate_bn_batches": (0, None),
    "train.ema": (0, 0.999999),
    "train.label_smoothing": (0, 0.9),
    "train.steps_per_execution": (1, None),
    "train.checkpoint_steps": (0, None),
    "train.keep_checkpoints": (2, None),
    "train.early_stopping_epochs": (0, None),
    "train.time_limit_minutes": (0, None),
}


def validate(config: Config) -> None:
    """Raises UsageError naming the first key that is out of range or contradicts another."""
    for key, (low, high) in _RANGES.items():
        section, name = key.split(".")
        value = getattr(getattr(config, section), name)
        if value is None or ((low is None or value >= low) and (high is None or value <= high)):
            continue
        bounds = f"at least {low}" if high is None else f"between {low} and {high}"
        raise UsageError(f"{key} must be {bounds}. Received: {value}.")
    low, high = config.data.crop_area
    if not 0 < low <= high <= 1:
        raise UsageError(
            "data.crop_area must be two shares of the image area, the smaller one first, "
            f"between 0 and 1. Received: [{low}, {high}]."
        )
    low, high = config.data.crop_aspect
    if not 0 < low <= high:
        raise UsageError(
            "data.crop_aspect must be two ratios of width to height, the smaller one first. "
            f"Received: [{low}, {high}]."
        )
    monitor = config.train.monitor
    if not re.fullmatch(r"(val_)?(accuracy|loss)|val_top_\d+_accuracy", monitor):
        raise UsageError(
            "train.monitor must be val_accuracy, val_loss, val_top_5_accuracy (with fewer classes "
            f"a lower number), accuracy or loss. Received: {monitor!r}."
        )
    resize = config.data.resize_shorter
    if resize is not None and resize < config.model.image_size:
        raise UsageError(
            f"data.resize_shorter (={resize} pixels) must be at least model.image_size "
            f"(={config.model.image_size})."
        )
    if config.train.worker_index and not config.train.workers:
        raise UsageError(
            f"train.worker_index (={config.train.worker_index}) needs train.workers "
            "(--workers host:port,...)."
        )
    _check_freezing(config.model)
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
