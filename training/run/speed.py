"""How long networks take on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

import keras_lightnets
from keras_lightnets.inference import timing

if TYPE_CHECKING:
    import keras


def milliseconds(model: keras.Model, batches: Sequence[int] = (1,)) -> list[float]:
    """Returns the median time of an image through a classifier, as `inference_function` runs it.

    Args:
        model: Of a known height and width.
        batches: Images in one call; a time for each.
    """
    classify = keras_lightnets.inference_function(model)
    times = []
    for batch in batches:
        images = np.full((batch, *model.input_shape[1:]), 127, np.float32)
        taken = timing.milliseconds(lambda images=images: classify(images).numpy())
        times.append(taken / batch)
    return times


def of_name(name: str) -> float:
    """Returns the `milliseconds` of a registered network and one 224x224 image."""
    return milliseconds(keras_lightnets.create_model(name, input_shape=(224, 224, 3)))[0]
