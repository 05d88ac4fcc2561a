"""How long networks take on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

import keras_lightnets
from keras_lightnets.inference import timing

if TYPE_CHECKING:
    import keras


def milliseconds(model: keras.Model) -> float:
    """Returns the median time of one image through a classifier, as `inference_function` runs it.

    Args:
        model: Of a known height and width.
    """
    classify = keras_lightnets.inference_function(model)
    image = np.full((1, *model.input_shape[1:]), 127, np.float32)
    return timing.milliseconds(lambda: classify(image).numpy())


def of_name(name: str) -> float:
    """Returns the `milliseconds` of a registered network and one 224x224 image."""
    return milliseconds(keras_lightnets.create_model(name, input_shape=(224, 224, 3)))
