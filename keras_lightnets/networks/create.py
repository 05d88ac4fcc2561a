"""Builds networks by name."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable
from typing import Any

import keras

from keras_lightnets.catalogue import registry


def create_model(name: str, /, **kwargs: Any) -> keras.Model:
    """Builds a network by name.

    Args:
        name: One of `list_models()`. (The name of the model itself is a keyword.)
        **kwargs: Arguments of the network's builder; they win over the row's.

    Raises:
        ValueError: If there is no such network, or an argument is wrong.
    """
    _, row = registry.find(name)
    return builder(name)(**{**row.arguments, **kwargs})


def builder(name: str) -> Callable[..., keras.Model]:
    """Imports the builder of a network.

    Raises:
        ValueError: If there is no such network.
    """
    family, _ = registry.find(name)
    return pkgutil.resolve_name(family.builder)
