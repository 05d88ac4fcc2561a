"""Counts of parameters and operations, taken from a built model."""

from __future__ import annotations

import math

import keras


def count_macs(model: keras.Model) -> int:
    """Multiply-accumulates of the convolutions and fully connected layers, for one image.

    Biases, normalization, activations, pooling and shuffles are not counted, as in the
    papers. One multiply-accumulate is two FLOPs.

    Args:
        model: A model with known image height and width.

    Raises:
        ValueError: If a layer's output size is not known.
    """
    total = 0
    for layer in model.layers:
        kernel = getattr(layer, "kernel", None)
        if kernel is None:
            continue
        positions = layer.output.shape[1:-1]  # () behind a fully connected layer
        if None in positions:
            raise ValueError(
                f"Layer {layer.name!r} has no fixed output size. Build the model with the "
                "image's height and width in `input_shape`."
            )
        total += math.prod(kernel.shape) * math.prod(positions)
    return total


def count_parameters(model: keras.Model) -> tuple[int, int]:
    """Returns `(trainable, all)`; all includes the moving statistics, as Keras counts."""
    trainable = sum(math.prod(weight.shape) for weight in model.trainable_weights)
    return trainable, model.count_params()
