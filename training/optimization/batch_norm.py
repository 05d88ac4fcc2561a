"""Moving statistics over replicas: batch norm's, synchronized or averaged, and ranges of int8."""

from __future__ import annotations

import math
from collections.abc import Iterator

import keras

from keras_lightnets.layers import FakeQuantize


def leaf_layers(model: keras.Model) -> Iterator[keras.layers.Layer]:
    """Yields the layers of `model`, and in place of a nested model its layers."""
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from leaf_layers(layer)
        else:
            yield layer


def layers(model: keras.Model) -> list[keras.layers.BatchNormalization]:
    """Returns the batch-norm layers of `model`, nested ones too."""
    kind = keras.layers.BatchNormalization
    return [layer for layer in leaf_layers(model) if isinstance(layer, kind)]


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
    """Returns what the layers that are not frozen average over steps.

    Those are the moving means and variances of batch norms and the ranges of a quantized network.
    """
    norms = [layer for layer in layers(model) if layer.trainable]
    moving = [v for layer in norms for v in (layer.moving_mean, layer.moving_variance)]
    return [*moving, *ranges(model)]


def ranges(model: keras.Model) -> list[keras.Variable]:
    """Returns the ends of the ranges of a quantized network, of layers that are not frozen."""
    found = [layer for layer in leaf_layers(model) if isinstance(layer, FakeQuantize)]
    return [v for layer in found if layer.trainable for v in layer.weights]
