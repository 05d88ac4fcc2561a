"""A list of the software that made a version, for those who keep inventories: CycloneDX's JSON."""

from __future__ import annotations

import pathlib
from importlib import metadata
from typing import Any

NAME = "sbom.cdx.json"


def write(path: pathlib.Path, name: str, version: int) -> None:
    """Writes the installed packages that this one needs, and what they need, of which versions.

    Args:
        path: To write.
        name: Of the model.
        version: Of the model.
    """
    from cyclonedx.model import bom as boms
    from cyclonedx.model import component as components
    from cyclonedx.output.json import JsonV1Dot6
    from packageurl import PackageURL

    # Of any type: the library's decorators hide what its classes are from type checkers.
    bom: Any = boms.Bom()
    Component: Any = components.Component
    kinds = components.ComponentType
    model = Component(name=name, version=str(version), type=kinds.MACHINE_LEARNING_MODEL)
    bom.metadata.component = model
    bom.components.update(
        Component(
            name=package,
            version=number,
            type=kinds.LIBRARY,
            purl=PackageURL("pypi", name=package, version=number),
        )
        for package, number in _needed("keras-lightnets").items()
    )
    bom.register_dependency(model, bom.components)
    JsonV1Dot6(bom).output_to_file(str(path), indent=2)


def _needed(package: str) -> dict[str, str]:
    """Name -> version of a package and of all that it needs here; nothing that is not installed."""
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    found: dict[str, str] = {}
    waiting = [package]
    while waiting:
        name = canonicalize_name(waiting.pop())
        if name in found:
            continue
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
        needs = map(Requirement, metadata.requires(name) or ())
        waiting += [
            each.name
            for each in needs
            if each.marker is None or each.marker.evaluate({"extra": ""})
        ]
    return found
