"""Every network by name. Importing this module does not import Keras or TensorFlow."""

from __future__ import annotations

import dataclasses
import difflib
import fnmatch
import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from keras_lightnets.catalogue.model_rows import FAMILIES, PAPERS, ROWS, Paper, Row
from keras_lightnets.catalogue.weight_rows import WEIGHTS, WeightsRow

if TYPE_CHECKING:
    import keras

MINIMUM_SIZE = 32  # pixels, of every network

# Name -> row; a family's name stands for its usual member.
MODELS: Mapping[str, Row] = {
    **{row.name: row for row in ROWS},
    **{
        family: next(row for row in ROWS if row.name == member)
        for family, member in FAMILIES.items()
    },
}


@dataclasses.dataclass(frozen=True)
class ModelInfo:
    """What is known about a network without building it.

    Attributes:
        name: Registered name.
        builder: Name of the builder in `keras_lightnets`.
        arguments: Arguments of the builder.
        parameters: Trainable parameters, with 1000 classes.
        parameters_total: All of them, moving statistics included.
        macs: Multiply-accumulates of one 224x224 RGB image.
        minimum_size: Smallest height and width in pixels.
        paper: Title and address.
        paper_top1: ImageNet top-1 accuracy in percent that the paper prints for this
            network, or None.
        weights: Published weights that fit.
    """

    name: str
    builder: str
    arguments: Mapping[str, Any]
    parameters: int
    parameters_total: int
    macs: int
    minimum_size: int
    paper: Paper
    paper_top1: float | None
    weights: tuple[WeightsRow, ...]


def list_models(pattern: str = "*", *, pretrained: bool = False) -> list[str]:
    """Names of the registered networks, sorted.

    Args:
        pattern: Shell pattern, e.g. `"shuffle*"`.
        pretrained: Only networks for which weights are published.
    """
    names = fnmatch.filter(MODELS, pattern)
    return sorted(n for n in names if not pretrained or MODELS[n].name in WEIGHTS)


def create_model(name: str, /, **kwargs: Any) -> keras.Model:
    """Builds a network by name.

    Args:
        name: One of `list_models()`. (The name of the model itself is a keyword.)
        **kwargs: Arguments of the network's builder; they win over the row's.

    Raises:
        ValueError: If there is no such network, or an argument is wrong.
    """
    row = find(name)
    return load_builder(row)(**{**row.kwargs, **kwargs})


def model_info(name: str) -> ModelInfo:
    """Parameters, operations, paper and weights of a network, without building it.

    Raises:
        ValueError: If there is no such network.
    """
    row = find(name)
    module, builder = row.builder.split(":")
    return ModelInfo(
        name=name,
        builder=builder,
        arguments=row.kwargs,
        parameters=row.parameters,
        parameters_total=row.parameters_total,
        macs=row.macs,
        minimum_size=MINIMUM_SIZE,
        paper=PAPERS[module],
        paper_top1=row.paper_top1,
        weights=WEIGHTS.get(row.name, ()),
    )


def find(name: str) -> Row:
    """Returns the row of a name, or raises a ValueError with the nearest ones."""
    if name not in MODELS:
        near = difflib.get_close_matches(str(name), MODELS, n=3, cutoff=0.5)
        hint = f"Did you mean {' or '.join(repr(n) for n in near)}? " if near else ""
        raise ValueError(
            f"`name` must be one of `keras_lightnets.list_models()`. {hint}Received: {name!r}"
        )
    return MODELS[name]


def load_builder(row: Row) -> Any:
    """Imports a row's builder (and with it TensorFlow)."""
    module, builder = row.builder.split(":")
    return getattr(importlib.import_module(f"keras_lightnets.networks.{module}"), builder)
