"""How long networks take on this machine."""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING

import numpy as np

import keras_lightnets

if TYPE_CHECKING:
    import keras

# Calls that are timed, after those in which TensorFlow prepares.
_TIMED, _WARM_UP = 20, 3


def milliseconds(model: keras.Model) -> float:
    """Returns the median time of one image through a classifier, as `inference_function` runs it.

    Args:
        model: Of a known height and width.
    """
    classify = keras_lightnets.inference_function(model)
    image = np.full((1, *model.input_shape[1:]), 127, np.float32)
    times = []
    for _ in range(_WARM_UP + _TIMED):
        start = time.perf_counter()
        classify(image).numpy()  # waits for the device
        times.append(time.perf_counter() - start)
    return 1000 * statistics.median(times[_WARM_UP:])


def of_name(name: str) -> float:
    """Returns the `milliseconds` of a registered network and one 224x224 image."""
    return milliseconds(keras_lightnets.create_model(name, input_shape=(224, 224, 3)))
