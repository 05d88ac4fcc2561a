"""Published weights: where they are kept and how they are loaded."""

from __future__ import annotations

from typing import Any

import keras

from keras_lightnets.options import Options


def resolve(weights: Any, family: str, variant: dict[str, Any], options: Options) -> None:
    """Finds what `weights` means, before anything is built."""
    if weights is not None:
        raise ValueError(f"`weights` must be None. Received: {weights!r}")


def load(model: keras.Model, source: Any) -> None:
    """Loads a resolved source into the model."""
    raise NotImplementedError
