"""Where an int8 file parts from the network that it was made of."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from keras_lightnets.export import runtimes
from keras_lightnets.export.litert import layer_outputs
from keras_lightnets.inference.folding import calls_of

_IMAGES = 16  # more change the ratios by less than a dB
_EXACT = 48.0  # dB, about the best of eight bits; pixels have no more


def advice(*, equalized: bool, trained: bool) -> str:
    """Says for a person what can be done where int8 loses too much."""
    if trained:
        return "Train with quantization for more epochs."
    first = "Train" if equalized else "Try `equalize` (--equalize), or train"
    return f"{first} with quantization (--quantize int8)."


def told(network: keras.Model, content: bytes, images: np.ndarray) -> str:
    """Says for a person where int8 loses most; see `worst_layers`."""
    layers = ", ".join(
        f"{name!r} ({before:.0f} to {after:.0f} dB)"
        for name, before, after in worst_layers(network, content, images)
    )
    return f"Int8 parts from float in {layers}."


def worst_layers(
    network: keras.Model, content: bytes, images: np.ndarray, count: int = 3
) -> list[tuple[str, float, float]]:
    """Finds the layers where int8 loses most.

    The signal-to-noise ratio of a tensor is that of the square of float's output to the square of
    the difference, for each channel by itself: small channels that are lost beside large ones
    would not be seen in the sum. The mean over channels of its inverse counts.

    Args:
        network: The float one, as `litert.int8_file` got it.
        content: What that gave.
        images: Pixels `(n, height, width, 3)`, of which some are taken.

    Returns:
        `(layer, ratio of its input, ratio of its output)` in dB, the deepest fall first.
    """
    interpreter = runtimes.litert_interpreter(content, keep_all=True)
    tensors = {tensor["index"]: tensor for tensor in interpreter.get_tensor_details()}
    operations = interpreter._get_ops_details()  # there is no public list
    layers = _layers_of(network, [tensors[op["outputs"][0]] for op in operations])
    chosen = np.unique(np.linspace(0, len(images) - 1, _IMAGES).astype(int))
    ratios = _ratios(network, interpreter, layers, images[chosen])
    falls = []
    known: dict[int, float] = {}
    for operation in operations:
        place = operation["outputs"][0]
        before = min((known[each] for each in operation["inputs"] if each in known), default=_EXACT)
        after = ratios.get(place, before)
        known |= dict.fromkeys(operation["outputs"], after)
        if place in ratios:
            falls.append((_shown(network, tensors[place]["name"]), before, after))
    return sorted(falls, key=lambda fall: fall[2] - fall[1])[:count]


def _ratios(
    network: keras.Model, interpreter: Any, layers: Mapping[str, Any], images: np.ndarray
) -> dict[int, float]:
    """Returns the ratio in dB for the index of each tensor in `layers`."""
    ask = layer_outputs(network)
    (given,) = interpreter.get_input_details()
    signal: dict[str, Any] = defaultdict(float)
    noise: dict[str, Any] = defaultdict(float)
    for image in images:
        expected = ask(image[None])
        interpreter.set_tensor(given["index"], runtimes.quantized(image[None], given))
        interpreter.invoke()
        for name, details in layers.items():
            received = runtimes.dequantized(interpreter.get_tensor(details["index"]), details)
            places = tuple(range(received.ndim - 1))
            signal[name] += (expected[name] ** 2).sum(places)
            noise[name] += ((received - expected[name]) ** 2).sum(places)
    ratios = {}
    for name, details in layers.items():
        lost = noise[name] / np.maximum(signal[name], 1e-30)
        share = np.minimum(lost, 1)[signal[name] > 0].mean() if signal[name].any() else 0
        ratios[details["index"]] = min(_EXACT, -10 * np.log10(max(share, 1e-9)))
    return ratios


def _layers_of(network: keras.Model, outputs: list[Any]) -> dict[str, Any]:
    """Returns layer -> the tensor that holds its output, the last one where there are several."""
    shapes = {node.operation.name: node.outputs[0].shape[1:] for node in calls_of(network)}
    found = {}
    for details in outputs:
        for name in _names(network, details["name"])[:1]:
            if tuple(details["shape"][1:]) == tuple(shapes[name]):
                found[name] = details
    return found


def _names(network: keras.Model, tensor: str) -> list[str]:
    """Returns the layers in the name of a tensor, "act_1/Relu;conv_1/convolution", last first."""
    known = {layer.name for layer in network.layers}
    scopes = [part.split("/")[0] for part in tensor.split(";")]
    # Keras has numbered the scope of a layer's second call.
    names = [scope if scope in known else scope.rpartition("_")[0] for scope in scopes]
    return [name for name in names if name in known]


def _shown(network: keras.Model, tensor: str) -> str:
    """The layer with weights, where one has taken over the activation behind it."""
    names = _names(network, tensor)
    return next((name for name in names if network.get_layer(name).weights), names[0])
