"""Finds the models below a directory: what is served, under which name, from where."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any

from keras_lightnets.export import bundle, models_config
from keras_lightnets.export.models_config import MODELS_FILE
from keras_lightnets.export.tf_serving import BATCHING_FILE


@dataclasses.dataclass(frozen=True)
class ServedModel:
    """One model to serve.

    Attributes:
        name: Its name in URLs.
        base_path: The directory that holds the numbered versions.
        config: Its entry in the `models.config` beside it, if there is one.
    """

    name: str
    base_path: pathlib.Path
    config: Any = None


def served_models(root: pathlib.Path, only: str | None = None) -> list[ServedModel]:
    """Every model below `root`, named after its directory.

    A `models.config` beside a model names it. Paths in it are those of a container, so the entry is
    matched by the last part of its `base_path`.

    Args:
        root: A model's directory, a bundle, or a folder of bundles.
        only: Serve this model alone.

    Raises:
        ValueError: Nothing to serve, an unknown `only`, or two models of one name.
    """
    if not root.is_dir():
        raise ValueError(f"No such directory: {root}")
    models = [
        _named(folder.resolve())
        for folder in sorted([root, *root.glob("*/"), *root.glob("*/*/")])
        if bundle.is_model(folder)
        and not any(part.startswith(".") for part in folder.relative_to(root).parts)
    ]
    if not models:
        raise ValueError(
            f"No versions found below {root}: expected <model>/<integer>/saved_model.pb, "
            "as `lightnets export` writes it"
        )
    names = [model.name for model in models]
    if only is not None and only not in names:
        raise ValueError(f"No model {only!r}; found: {', '.join(names)}")
    models = [model for model in models if only in (None, model.name)]
    for model in models:
        if names.count(model.name) > 1:
            paths = ", ".join(str(m.base_path) for m in models if m.name == model.name)
            raise ValueError(f"Two models are called {model.name!r}: {paths}. Serve one of them.")
    return models


def _named(path: pathlib.Path) -> ServedModel:
    config = path.parent / MODELS_FILE
    if not config.is_file():
        return ServedModel(path.name, path)
    entries = models_config.read(config)
    for problem in models_config.problems(entries, [p.name for p in path.parent.glob("*/")]):
        raise ValueError(f"{config}: {problem}.")
    for entry in entries:
        if models_config.folder_of(entry) == path.name:
            return ServedModel(entry.name, path, entry)
    return ServedModel(path.name, path)


def batching_file(root: pathlib.Path, models: list[ServedModel]) -> pathlib.Path | None:
    """The batching file to honour: in `root`, or beside the models when all share one directory."""
    for folder in [root, *sorted({m.base_path.parent for m in models})]:
        if (folder / BATCHING_FILE).is_file():
            return folder / BATCHING_FILE
    return None
