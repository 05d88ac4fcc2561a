"""Moving statistics over replicas: batch norm's, synchronized or averaged, and ranges of int8."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

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


def reestimate(
    model: keras.Model, batches: Iterable[Any], count: int, strategy: tf.distribute.Strategy
) -> None:
    """Replaces moving statistics by those of `count` batches, each weighing the same.

    The variance is that of all batches together: the mean of their variances plus the variance
    of their means.

    Args:
        model: Made inside the scope of `strategy`.
        batches: `(images, labels, weights)`, distributed.
        count: How many of them to take.
        strategy: Where `model` lives.
    """
    moving = layers(model)
    momenta = [layer.momentum for layer in moving]

    @tf.function
    def measure(batch):
        def forward(images, *_):
            model(tf.cast(images, tf.float32), training=True)
            means = [layer.moving_mean.value for layer in moving]
            squares = [
                layer.moving_variance.value + tf.square(mean)
                for layer, mean in zip(moving, means, strict=True)
            ]
            context = tf.distribute.get_replica_context()
            return context.all_reduce(tf.distribute.ReduceOp.MEAN, [*means, *squares])

        return strategy.run(forward, args=batch)

    sums: list[Any] = [0.0] * (2 * len(moving))
    try:
        for layer in moving:
            layer.momentum = 0.0  # the moving statistics are then those of the last batch
        for batch in itertools.islice(batches, count):
            values = [strategy.experimental_local_results(value)[0] for value in measure(batch)]
            sums = [total + value.numpy() for total, value in zip(sums, values, strict=True)]
    finally:
        for layer, momentum in zip(moving, momenta, strict=True):
            layer.momentum = momentum
    for number, layer in enumerate(moving):
        mean, square = sums[number] / count, sums[len(moving) + number] / count
        layer.moving_mean.assign(mean)
        layer.moving_variance.assign(np.maximum(square - mean**2, 0.0))
