"""What a model keeps about itself, wherever it is saved, loaded or copied to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras


@keras.saving.register_keras_serializable(package="keras_lightnets")
class Notes(keras.layers.Layer):
    """Passes its input on; its configuration holds notes about the model.

    A functional model has no place for them, and an attribute of it is lost when it is saved. The
    configuration of a layer is part of `.keras` files and of every copy.

    Attributes:
        notes: A dict of values that JSON can hold. They may be changed at any time.
    """

    notes: dict[str, Any]

    def __init__(self, notes: Mapping[str, Any] | None = None, **kwargs: Any) -> None:
        # Not to be cast: pixels lose bits in the float16 of a mixed policy.
        super().__init__(**{"dtype": "float32", "autocast": False, **kwargs})
        # Past Keras, which would watch the values for variables and wrap them.
        object.__setattr__(self, "notes", dict(notes or {}))

    def call(self, inputs: Any) -> Any:
        return inputs

    def compute_output_spec(self, inputs: keras.KerasTensor) -> keras.KerasTensor:
        return keras.KerasTensor(inputs.shape, inputs.dtype)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "notes": dict(self.notes)}


def notes(model: keras.Model) -> dict[str, Any]:
    """What the model keeps about itself, `.keras` files included; change it to add to it.

    Known are, each where it applies: `family` and `variant`, the name of its catalogue and the
    builder's own arguments; `class_names` in the order of the outputs; `transform`, an
    `EvalTransform` as a dict; `mean` and `std` of the pixels, 0 to 255; `padding`, `bn_epsilon`;
    `weights`, the published file it was built with; `task`, what numbers mean that are no
    probabilities of classes.

    Returns:
        An empty dict if it has none, as a model of somebody else's.
    """
    return next((layer.notes for layer in model.layers if isinstance(layer, Notes)), {})
