"""What learns when: freezing, head-only warm-up and gradual unfreezing.

A pure function of the epoch, so that a resumed run has the same layers frozen as one that was
never interrupted. Frozen layers get no gradient, decay or momentum, and their batch norm keeps
its statistics and uses them (inference mode), or a small data set would overwrite them.
"""

from __future__ import annotations

import math
import pathlib
import re

import keras

from lightnets.config.keys import ModelConfig
from lightnets.support.errors import UserError

HEAD = "logits"  # name, or its beginning, of the layers that depend on the number of classes


def weights_file(weights: str | None) -> str | None:
    """Returns the builder's `weights` for `model.weights`: a run's directory means its best.

    Raises:
        UserError: `weights` is a directory without weights.
    """
    if weights is None or not pathlib.Path(weights).is_dir():
        return weights
    best = pathlib.Path(weights) / "weights" / "best.keras"
    if not best.is_file():
        raise UserError(
            f"model.weights={weights} is a folder without weights/best.keras. "
            "Name a weight file or a finished run."
        )
    return str(best)


def set_trainable(model: keras.Model, config: ModelConfig, epoch: int) -> bool:
    """Freezes and releases the layers of `model` for an epoch.

    Build the optimizer while all that ever learns does, as in a late epoch. When the result is
    True, trace the training step again: what it differentiates and which batch norms update is
    fixed in the graph.

    Args:
        model: The network, or its part up to the logits (they share layers).
        config: `freeze`, `head_warmup_epochs`, `unfreeze_epochs`.
        epoch: Counted from 0.

    Returns:
        Whether any layer changed.

    Raises:
        UserError: `config.freeze` fits no layer, or all of them.
    """
    frozen = frozen_layers(model, config, epoch)
    changed = False
    for layers in stages(model).values():
        for layer in layers:
            trainable = layer.name not in frozen
            if layer.trainable != trainable:
                layer.trainable = trainable
                changed = True
    return changed


def frozen_layers(model: keras.Model, config: ModelConfig, epoch: int) -> set[str]:
    """Returns the names of the layers with weights that do not learn in `epoch`."""
    by_stage = stages(model)
    backbone = [stage for stage in by_stage if stage != HEAD]
    released = _released(len(backbone), config, epoch)
    resting = backbone[: len(backbone) - released]
    frozen = {layer.name for stage in resting for layer in by_stage[stage]}
    return frozen | _frozen_for_good(by_stage, config.freeze)


def _released(count: int, config: ModelConfig, epoch: int) -> int:
    """Returns how many of `count` stages, from the last one on, learn in `epoch`."""
    if config.freeze == "backbone" or epoch < config.head_warmup_epochs:
        return 0
    # One part of E + 1 in the first epoch after the warm-up, all of them after E epochs.
    parts = epoch - config.head_warmup_epochs + 1
    return min(count, math.ceil(count * parts / (config.unfreeze_epochs + 1)))


def _frozen_for_good(
    by_stage: dict[str, list[keras.layers.Layer]], pattern: str | None
) -> set[str]:
    if pattern is None or pattern == "backbone":
        return set()
    names = [layer.name for layers in by_stage.values() for layer in layers]
    frozen = {name for name in names if re.search(pattern, name)}
    if not frozen or len(frozen) == len(names):
        fits = "every layer: nothing is left to learn" if frozen else "no layer"
        raise UserError(
            f"model.freeze={pattern!r} fits {fits}. It is 'backbone' or a regular expression "
            f"for layer names, which begin with {', '.join(by_stage)}."
        )
    return frozen


def stages(model: keras.Model) -> dict[str, list[keras.layers.Layer]]:
    """Returns the layers with weights by stage (first part of their name), first stage first."""
    by_stage: dict[str, list[keras.layers.Layer]] = {}
    for layer in model.layers:
        if layer.weights:
            by_stage.setdefault(layer.name.split("_")[0], []).append(layer)
    return by_stage
