"""Where other implementations keep each layer, for `Family.tensor_names`."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any


def own(layers: Collection[str], _: Any) -> dict[str, str]:
    """Our own names, as `keras_h5` gives them to the layers of a file."""
    return {name: name for name in layers}


def by_unit(
    layers: Collection[str],
    _: Any,
    *,
    stem: str,
    unit: str,
    roles: Mapping[str, str],
    bare: Mapping[str, str] | None = None,
    stages: Sequence[int] | None = None,
    head: str | None = None,
    logits: str,
) -> dict[str, str]:
    """Names in a network of units between a stem, a head and a classifier.

    A convolution and its batch normalization are written `"conv bn"`, or as the one module that
    holds them as `conv` and `bn`.

    Args:
        layers: Our names; units begin with `block<number>` or `stage<number>_unit<number>`.
        stem: First convolution.
        unit: A unit, with its `{index}`, `{stage}`, and number in its stage, `{unit}`, from 1 on;
            `{stage0}` and `{unit0}` are one less.
        roles: Convolutions in a unit, by their role.
        bare: The same for units without the first of these roles.
        stages: Number of units in each stage where the source counts them otherwise.
        head: Last convolution.
        logits: Classifier.
    """
    matches = (re.match(r"(stage(\d+)_unit|block)(\d+)_", name) for name in layers)
    ours = {(int(m[2] or 0), int(m[3])): m[0] for m in matches if m}
    theirs = sorted(ours)
    if stages:
        theirs = [(s, u + 1) for s, count in enumerate(stages, 1) for u in range(count)]
    places = {"stem": stem}
    for index, (key, (s, u)) in enumerate(zip(sorted(ours), theirs, strict=False), 1):
        place = unit.format(index=index, stage=s, unit=u, stage0=s - 1, unit0=u - 1)
        is_bare = bare and f"{ours[key]}{next(iter(roles))}_conv" not in layers
        for role, modules in ((bare if is_bare else roles) or {}).items():
            places[ours[key] + role] = " ".join(f"{place}.{module}" for module in modules.split())
    if head:
        places["head"] = head
    names = {}
    for name, modules in places.items():
        conv, bn = modules.split() if " " in modules else (f"{modules}.conv", f"{modules}.bn")
        names |= {f"{name}_conv": conv, f"{name}_bn": bn}
    return {**names, "logits": logits}
