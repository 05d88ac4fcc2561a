"""The same network of Keras' own layers, for who does not have this package."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

from keras_lightnets.inference.folding import as_functional, copy_weights, rewrite
from keras_lightnets.layers import (
    ChannelShuffle,
    ChannelSplit,
    ConcatShuffleSplit,
    FakeQuantize,
    Notes,
)


def plain_keras(model: keras.Model) -> keras.Model:
    """Returns a copy of `model` that any Keras 3 loads and trains, with the same weights.

    Layers of this package become those of Keras that they stand in for, channel shuffles `Reshape`
    and `Permute`. The copy computes the same numbers up to rounding, more slowly; what the model
    notes about its class names and the preparation of images is not in it.

        keras_lightnets.plain_keras(model).save("model.keras")

    Args:
        model: A built functional or sequential model. Where it shuffles channels it must know the
            height and width of its images.

    Raises:
        ValueError: The model is neither functional nor sequential, has no weights yet, shuffles
            images of unknown size, or has a layer that is neither Keras' nor of this package.
    """
    model = as_functional(model)
    notes = [layer.name for layer in model.layers if isinstance(layer, Notes)]
    plain, pairs = rewrite(model, _plain_layer, plain_keras, skip=notes)
    copy_weights(pairs)
    return plain


def _plain_layer(layer: keras.layers.Layer) -> Any:
    if type(layer) in _FUNCTIONS:
        return _FUNCTIONS[type(layer)](layer)
    if not type(layer).__module__.startswith(("keras.", "keras_lightnets.")):
        raise ValueError(
            f"The layer {layer.name!r} is a {type(layer).__name__}: neither of Keras nor of "
            "keras_lightnets."
        )
    if type(layer).__module__ == FakeQuantize.__module__:
        raise ValueError(
            f"The layer {layer.name!r} rounds as an int8 file does, which layers of Keras cannot. "
            "Export 'litert-int8', or the network that it was made from."
        )
    stock = next(kind for kind in type(layer).__mro__ if kind.__module__.startswith("keras."))
    # What a layer of ours adds to the configuration is about speed, but for padding of its own.
    plain = stock.from_config(stock.get_config(layer))
    return _padded(plain, pads) if (pads := getattr(layer, "pads", None)) else plain


def _padded(convolution: Any, pads: Any) -> Any:
    name = f"{convolution.name}_pad"
    pad = keras.layers.ZeroPadding2D(pads, convolution.data_format, name=name)
    padded: Any = lambda x: convolution(pad(x))  # noqa: E731
    padded.set_weights = convolution.set_weights
    return padded


def _shuffled(x: Any, groups: int, name: str) -> Any:
    *sizes, channels = x.shape[1:]
    if None in sizes:
        raise ValueError(
            f"{name!r} shuffles channels: build the model for images of a known size. "
            f"Received: {tuple(x.shape)}"
        )
    x = keras.layers.Reshape((-1, groups, channels // groups), name=f"{name}_grouped")(x)
    x = keras.layers.Permute((1, 3, 2), name=f"{name}_transposed")(x)
    return keras.layers.Reshape((*sizes, channels), name=name)(x)


def _concat_shuffle_split(layer: ConcatShuffleSplit) -> Callable[[Any], Any]:
    def call(branches):
        x = keras.layers.Concatenate(name=f"{layer.name}_concat")(branches)
        return keras.ops.split(_shuffled(x, 2, layer.name), 2, axis=-1)

    return call


# Layers that Keras has not, as functions of its layers.
_FUNCTIONS: dict[type, Callable[[Any], Any]] = {
    ChannelShuffle: lambda layer: lambda x: _shuffled(x, layer.groups, layer.name),
    ChannelSplit: lambda layer: lambda x: keras.ops.split(x, 2, axis=-1),
    ConcatShuffleSplit: _concat_shuffle_split,
    Notes: lambda layer: layer,  # is left out
}
