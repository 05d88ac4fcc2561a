"""Finds the models below a directory: what is served, under which name, from where."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any

from keras_lightnets.serving import models_config
from keras_lightnets.serving.models_config import MODELS_FILE

# A served directory may be a model, a bundle of models, or a folder of bundles.
_MAX_DEPTH = 2

BATCHING_FILE = "batching_parameters.txt"


@dataclasses.dataclass(frozen=True)
class ServedModel:
    """One model to serve.

    Attributes:
        name: Its name in URLs.
        base_path: The directory that holds the numbered versions.
        policy: `"latest"`, `"all"` or `"specific"`, as in `models.config`.
        latest: How many of the newest versions to serve under policy `"latest"`.
        versions: The versions to serve under policy `"specific"`.
        labels: Label -> version.
    """

    name: str
    base_path: pathlib.Path
    policy: str = "latest"
    latest: int = 1
    versions: tuple[int, ...] = ()
    labels: tuple[tuple[str, int], ...] = ()

    def wanted(self, available: list[int]) -> list[int]:
        """The versions to serve out of `available`, newest first."""
        ordered = sorted(available, reverse=True)
        if self.policy == "all":
            return ordered
        if self.policy == "specific":
            return [v for v in ordered if v in self.versions]
        return ordered[: self.latest]


def versions(base_path: pathlib.Path) -> list[int]:
    """The numbered subdirectories of `base_path`; everything else is ignored, as in TF Serving."""
    try:
        return sorted(int(p.name) for p in base_path.iterdir() if p.name.isdecimal() and p.is_dir())
    except OSError:
        return []


def is_model(path: pathlib.Path) -> bool:
    """Whether `path` holds at least one `<integer>/saved_model.pb`."""
    return any((path / str(v) / "saved_model.pb").is_file() for v in versions(path))


def find_models(root: pathlib.Path) -> list[pathlib.Path]:
    """The model directories at `root` or up to two levels below it, sorted.

    Raises:
        ValueError: `root` is no directory, or holds no model.
    """
    if not root.is_dir():
        raise ValueError(f"No such directory: {root}")
    level, found = [root], []
    for _ in range(_MAX_DEPTH + 1):
        found += [p for p in level if is_model(p)]
        level = [
            child
            for parent in level
            if parent not in found
            for child in sorted(_subdirectories(parent))
        ]
    if not found:
        raise ValueError(
            f"No versions found below {root}: expected <model>/<integer>/saved_model.pb, "
            "as `lightnets export` writes it"
        )
    return sorted(found)


def _subdirectories(path: pathlib.Path) -> list[pathlib.Path]:
    try:
        return [p for p in path.iterdir() if p.is_dir() and not p.name.startswith(".")]
    except OSError:
        return []


def served_models(root: pathlib.Path, only: str | None = None) -> list[ServedModel]:
    """Every model below `root`, named after its directory.

    A `models.config` beside a model adds its name, version policy and labels. Paths in it are
    those of a container, so the entry is matched by the last part of its `base_path`.

    Args:
        root: A model's directory, a bundle, or a folder of bundles.
        only: Serve this model alone.

    Raises:
        ValueError: Nothing to serve, an unknown `only`, or two models of one name.
    """
    models = [_with_config(path.resolve()) for path in find_models(root)]
    if only is not None:
        models = [m for m in models if m.name == only] or _unknown(only, models)
    names = [m.name for m in models]
    for model in models:
        if names.count(model.name) > 1:
            paths = ", ".join(str(m.base_path) for m in models if m.name == model.name)
            raise ValueError(f"Two models are called {model.name!r}: {paths}. Serve one of them.")
    return models


def _unknown(only: str, models: list[ServedModel]) -> list[ServedModel]:
    raise ValueError(f"No model {only!r}; found: {', '.join(m.name for m in models)}")


def _with_config(path: pathlib.Path) -> ServedModel:
    config = path.parent / MODELS_FILE
    if not config.is_file():
        return ServedModel(path.name, path)
    entries = models_config.read(config)
    for problem in models_config.problems(entries, [p.name for p in _subdirectories(path.parent)]):
        raise ValueError(f"{config}: {problem}.")
    for entry in entries:
        if models_config.folder_of(entry) == path.name:
            return served_model(entry, path)
    return ServedModel(path.name, path)


def served_model(entry: Any, base_path: pathlib.Path) -> ServedModel:
    """A `ModelConfig` entry with the path where the model really lies."""
    policy = entry.model_version_policy
    return ServedModel(
        name=entry.name,
        base_path=base_path,
        policy=policy.WhichOneof("policy_choice") or "latest",
        latest=max(policy.latest.num_versions, 1),
        versions=tuple(policy.specific.versions),
        labels=tuple(sorted(entry.version_labels.items())),
    )


def batching_file(root: pathlib.Path, models: list[ServedModel]) -> pathlib.Path | None:
    """The batching file to honour: in `root`, or beside the models when all share one directory."""
    for folder in [root, *sorted({m.base_path.parent for m in models})]:
        if (folder / BATCHING_FILE).is_file():
            return folder / BATCHING_FILE
    return None
