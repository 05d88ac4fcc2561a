"""The classifier behind the last feature map, always computed in float32."""

from __future__ import annotations

import keras

from keras_lightnets.networks.options import Options


def classify(x: keras.KerasTensor, options: Options) -> keras.KerasTensor:
    """Global mean, dropout, fully connected layer: `(batch, classes)` logits."""
    x = keras.layers.GlobalAveragePooling2D(name="global_pool")(x)
    if options.dropout_rate:
        x = keras.layers.Dropout(options.dropout_rate, name="dropout")(x)
    return keras.layers.Dense(
        options.classes,
        kernel_initializer=keras.initializers.RandomNormal(stddev=0.01),
        dtype="float32",
        name="logits",
    )(x)


def logits_model(model: keras.Model) -> keras.Model:
    """The model up to its logits, float32 `(batch, classes)`, sharing all weights.

    Args:
        model: A classifier of this package, also one loaded from a `.keras` file.

    Raises:
        ValueError: If the model has no layer named `logits`.
    """
    names = {layer.name for layer in model.layers}
    if "logits" not in names:
        raise ValueError(
            f"Model {model.name!r} has no layer named 'logits'. "
            "Build it with `include_top=True` and `features_only=False`."
        )
    # Behind the logits of a quantized network stands what rounds them, and also gives a step, `()`.
    last = model.get_layer("logits_range" if "logits_range" in names else "logits")
    logits = next(node.outputs[0] for node in last._inbound_nodes if len(node.outputs[0].shape))
    return keras.Model(model.input, logits, name=model.name)
