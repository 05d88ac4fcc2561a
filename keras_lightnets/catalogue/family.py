"""The form of a catalogue file: what is known about a paper's networks without building one."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

from keras_lightnets.catalogue.published import WeightsRow

MINIMUM_SIZE = 32  # pixels: the deepest feature map of a stride-32 network is then 1x1


@dataclasses.dataclass(frozen=True)
class Paper:
    """Where a network was published."""

    title: str
    url: str


class Row(NamedTuple):
    """One network. Sizes are those of the built model with 1000 classes; a test compares."""

    name: str
    arguments: Mapping[str, Any]  # of the builder, where they are not its defaults
    parameters: int  # trainable
    parameters_total: int  # with moving statistics
    macs: int  # of one 224x224 image
    paper_top1: float | None  # percent, as the paper prints it for this network


@dataclasses.dataclass(frozen=True, kw_only=True)
class Family:
    """The networks of a paper.

    Attributes:
        name: Stands for the network `usual`; the default name of a model.
        usual: Name of the row that people mean by the family's name.
        builder: Where the function lies that builds them: `"package.module:function"`.
        paper: Title and address.
        defaults: The builder's own arguments, which make a variant, with their defaults.
        rows: The networks.
        weights: Published weights by the name of the network, the most accurate first.
        tensor_names: By source, a function `(layers, variant) -> {layer: module}`: where that
            source keeps the layers of these names of a model of this variant, in the source's
            order, which is also that of the tensors in a file. More than these do not matter.
        without_bias: By source, layers that have a bias here and none there: it is then 0.
    """

    name: str
    usual: str
    builder: str
    paper: Paper
    defaults: Mapping[str, Any]
    rows: tuple[Row, ...]
    weights: Mapping[str, tuple[WeightsRow, ...]] = dataclasses.field(default_factory=dict)
    tensor_names: Mapping[str, Callable[[Collection[str], Mapping[str, Any]], dict[str, str]]] = (
        dataclasses.field(default_factory=dict)
    )
    without_bias: Mapping[str, Collection[str]] = dataclasses.field(default_factory=dict)

    def published(self, variant: Mapping[str, Any]) -> tuple[WeightsRow, ...]:
        """Weights for exactly this variant, the most accurate first."""
        for row in self.rows:
            if {**self.defaults, **row.arguments} == variant:
                return self.weights.get(row.name, ())
        return ()
