"""Light image classifiers for Keras 3.

Public names are resolved on first use (PEP 562): importing the package costs
milliseconds, so that command lines can check their arguments before Keras and
TensorFlow, which take seconds, are imported.
"""

from __future__ import annotations

import importlib
from typing import Any

from keras_lightnets._version import __version__

# Public name -> module that defines it.
_PUBLIC = {
    "ChannelShuffle": "keras_lightnets.layers.channel_shuffle",
    "ChannelSplit": "keras_lightnets.layers.channel_split",
    "FusedBatchNormalization": "keras_lightnets.layers.fused_batch_normalization",
    "GroupedConv2D": "keras_lightnets.layers.grouped_conv2d",
    "MobileNetV1": "keras_lightnets.mobilenet_v1",
    "MobileNetV2": "keras_lightnets.mobilenet_v2",
    "ShuffleNetV1": "keras_lightnets.shufflenet_v1",
    "ShuffleNetV2": "keras_lightnets.shufflenet_v2",
    "SqueezeNet": "keras_lightnets.squeezenet",
    "create_model": "keras_lightnets.registry",
    "decode_predictions": "keras_lightnets.weights",
    "export_saved_model": "keras_lightnets.serving.export",
    "fold_batch_norm": "keras_lightnets.folding",
    "inference_function": "keras_lightnets.serving.inference",
    "list_models": "keras_lightnets.registry",
    "load_state_dict": "keras_lightnets.convert",
    "logits_model": "keras_lightnets.classifier",
    "model_info": "keras_lightnets.registry",
}

__all__ = [*_PUBLIC, "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'keras_lightnets' has no attribute {name!r}")
    value = getattr(importlib.import_module(_PUBLIC[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
