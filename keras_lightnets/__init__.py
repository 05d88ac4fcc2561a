"""Light image classifiers for Keras 3.

`__init__.pyi` lists the public names. They are imported on first use: importing the package
costs milliseconds, so that command lines can check their arguments, and a `Client` can work,
without Keras and TensorFlow, which take seconds.
"""

from __future__ import annotations

import importlib
from types import ModuleType

import lazy_loader
import wrapt

from keras_lightnets._version import __version__ as __version__

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


@wrapt.when_imported("keras")
def _register_layers(keras: ModuleType) -> None:
    """Keras finds the layers of a saved network only if they are registered before."""
    # Without a backend Keras is half imported: this is imported by something that it tries.
    if hasattr(keras, "backend"):
        importlib.import_module("keras_lightnets.layers")
