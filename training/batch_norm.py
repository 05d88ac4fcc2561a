"""Batch normalization over replicas: synchronized, or with averaged moving statistics."""

from __future__ import annotations

import math
from collections.abc import Iterator

import keras


def layers(model: keras.Model) -> Iterator[keras.layers.BatchNormalization]:
    """Yields the batch-norm layers of `model`, nested ones too."""
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from layers(layer)
        elif isinstance(layer, keras.layers.BatchNormalization):
            yield layer


def synchronize(model: keras.Model) -> None:
    """Makes every batch-norm layer take its moments over all replicas.

    The result then equals that of one device with the same global batch.
    """
    for layer in layers(model):
        layer.synchronized = True


def few_steps_warning(steps: int, momentum: float) -> str | None:
    """Returns a warning when moving statistics still hold much of their start after `steps`.

    A share `momentum ** steps` of the initial mean 0 and variance 1 is left at the end: with
    more than 1% of it, the evaluated network is not the one that was trained.
    """
    if momentum <= 0 or steps * -math.log(momentum) >= -math.log(0.01):
        return None
    enough = 0.01 ** (1 / steps)
    return (
        f"Batch norm's moving statistics need more than these {steps} steps at "
        f"model.bn_momentum={momentum}: {momentum**steps:.0%} of their initial values remain. "
        f"Use model.bn_momentum={math.floor(enough * 100) / 100:g} or lower, or train longer."
    )


def statistics(model: keras.Model) -> list[keras.Variable]:
    """Returns the moving means and variances of all batch-norm layers that are not frozen."""
    moving = [layer for layer in layers(model) if layer.trainable]
    return [v for layer in moving for v in (layer.moving_mean, layer.moving_variance)]
