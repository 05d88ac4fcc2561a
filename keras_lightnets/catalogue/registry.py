"""Every network by name. Importing this module does not import Keras or TensorFlow."""

from __future__ import annotations

import dataclasses
import difflib
import fnmatch
from collections.abc import Iterator, Mapping
from typing import Any

from keras_lightnets.catalogue import (
    mobilenet_v1,
    mobilenet_v2,
    shufflenet_v1,
    shufflenet_v2,
    squeezenet,
)
from keras_lightnets.catalogue.family import MINIMUM_SIZE, Family, Paper, Row
from keras_lightnets.catalogue.published import WeightsRow

FAMILIES: dict[str, Family] = {}
# Name -> network; a family's name stands for its usual member.
_NETWORKS: dict[str, tuple[Family, Row]] = {}


@dataclasses.dataclass(frozen=True)
class ModelInfo:
    """What is known about a network without building it.

    Attributes:
        name: Registered name.
        alias_of: The network that the name stands for, if it is a family's.
        builder: Where the builder lies, e.g. `"keras_lightnets.SqueezeNet"`.
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
    alias_of: str | None
    builder: str
    arguments: Mapping[str, Any]
    parameters: int
    parameters_total: int
    macs: int
    minimum_size: int
    paper: Paper
    paper_top1: float | None
    weights: tuple[WeightsRow, ...]


def register(family: Family) -> None:
    """Makes the networks of a family known by name, here and to the command line.

    Raises:
        ValueError: If a name is taken, or the usual network is none of the rows.
    """
    rows = {row.name: row for row in family.rows}
    if family.usual not in rows:
        raise ValueError(
            f"`usual` of family {family.name!r} must be the name of a row. "
            f"Received: {family.usual!r}"
        )
    networks = {**rows, family.name: rows[family.usual]}
    taken = sorted(networks.keys() & _NETWORKS.keys())
    if taken:
        raise ValueError(f"There is already a network of this name: {', '.join(taken)}")
    FAMILIES[family.name] = family
    _NETWORKS.update({name: (family, row) for name, row in networks.items()})


def list_models(pattern: str = "*", *, pretrained: bool = False) -> list[str]:
    """Names of the registered networks, sorted.

    Args:
        pattern: Shell pattern, e.g. `"shuffle*"`.
        pretrained: Only networks for which weights are published.
    """
    names = sorted(fnmatch.filter(_NETWORKS, pattern))
    return [name for name in names if not pretrained or model_info(name).weights]


def model_info(name: str) -> ModelInfo:
    """Parameters, operations, paper and weights of a network, without building it.

    Raises:
        ValueError: If there is no such network.
    """
    family, row = find(name)
    return ModelInfo(
        **{**row._asdict(), "name": name},
        alias_of=None if name == row.name else row.name,
        builder=family.builder.replace(":", "."),
        minimum_size=MINIMUM_SIZE,
        paper=family.paper,
        weights=family.weights.get(row.name, ()),
    )


def find(name: str) -> tuple[Family, Row]:
    """Returns the network of a name, or raises a ValueError with the nearest ones."""
    if name not in _NETWORKS:
        near = difflib.get_close_matches(str(name), _NETWORKS, n=3, cutoff=0.5)
        hint = f"Did you mean {' or '.join(repr(n) for n in near)}? " if near else ""
        raise ValueError(
            f"`name` must be one of `keras_lightnets.list_models()`. {hint}Received: {name!r}"
        )
    return _NETWORKS[name]


def published() -> Iterator[tuple[str, WeightsRow]]:
    """Every published file, with the name of its network."""
    for family in FAMILIES.values():
        for name, rows in family.weights.items():
            yield from ((name, row) for row in rows)


for module in (squeezenet, mobilenet_v1, mobilenet_v2, shufflenet_v1, shufflenet_v2):
    register(module.FAMILY)
