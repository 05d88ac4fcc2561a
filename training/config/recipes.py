"""The named configurations of `recipes.yaml`."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

import yaml


@dataclasses.dataclass(frozen=True)
class Recipe:
    """One of them; what the fields mean stands in the file.

    Attributes:
        config: Keys of `lightnets.config.keys.Config`, nested, that differ from the defaults.
    """

    config: Mapping[str, Any]
    source: str
    note: str = ""
    rates: Mapping[str, float] = dataclasses.field(default_factory=dict)
    families: tuple[str, ...] = ()
    purpose: str = "ImageNet"
    result: str = ""


def _read() -> dict[str, Recipe]:
    text = pathlib.Path(__file__).with_name("recipes.yaml").read_text(encoding="utf-8")
    # That of libyaml, which PyYAML has on most machines, takes a tenth of the time.
    values = yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    facts = {field.name for field in dataclasses.fields(Recipe)}
    found = {}
    for name, keys in values.items():
        if not name.startswith("."):  # parts that several recipes share
            own = {key: keys.pop(key) for key in facts & keys.keys()}
            own["families"] = tuple(own.get("families", ()))
            found[name] = Recipe(keys, **own)
    return found


RECIPES = _read()
