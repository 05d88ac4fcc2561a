"""Which versions of a model are served, and under which labels: a canary, and the way back.

stable     what clients ask for
canary     what some of them ask for, to try it
previous   what was stable before; it stays loaded, so that going back takes no time
"""

from __future__ import annotations

import pathlib
from typing import Any

from keras_lightnets.export import bundle, checksums, models_config
from keras_lightnets.export.models_config import CANARY, MODELS_FILE, PREVIOUS, STABLE


def change(
    base_dir: pathlib.Path, name: str | None, stable: int | None, canary: int | None
) -> tuple[str, str, str]:
    """Works out a new `models.config`; without versions, the one before the last step.

    Args:
        base_dir: Holds the models and `models.config`.
        name: Of the model there; None: the only one.
        stable: The version for everybody; None: as it is.
        canary: The version to try; None: as it is.

    Returns:
        The model's name, the text of the file, and the text to put in its place.

    Raises:
        OSError: The file cannot be read.
        ValueError: That cannot be served, or a server that runs would refuse it.
    """
    path = base_dir / MODELS_FILE
    if not path.is_file():
        raise ValueError(f"There is no {path}: `lightnets export` writes it.")
    entries = {each.name: each for each in models_config.read(path)}
    if name is None and len(entries) != 1:
        raise ValueError(f"{path} has {len(entries)} models: choose one of {', '.join(entries)}.")
    chosen: str = next(iter(entries)) if name is None else name
    if chosen not in entries:
        raise ValueError(f"{path} has no model {chosen!r}, but {', '.join(entries)}.")
    entry = entries[chosen]
    back = stable is None and canary is None
    labels = _back(entry) if back else _forward(entry, stable, canary)
    for version in {*labels.values()}:
        _check(base_dir / models_config.folder_of(entry), version)
    text = path.read_bytes().decode()
    try:
        return chosen, text, models_config.with_release(text, chosen, labels)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _back(entry: Any) -> dict[str, int]:
    """The labels before the last step: without the canary, or with the stable version before."""
    labels = models_config.released(entry)
    if CANARY not in labels and PREVIOUS not in labels:
        raise ValueError(f"{entry.name!r} has no canary and no previous version to go back to.")
    if labels.pop(CANARY, None) is None:
        labels[STABLE] = labels.pop(PREVIOUS)
    return labels


def _forward(entry: Any, stable: int | None, canary: int | None) -> dict[str, int]:
    old = models_config.released(entry)
    new = dict(old)
    if stable is not None:
        new[STABLE] = stable
        if old.get(STABLE, stable) != stable:
            new[PREVIOUS] = old[STABLE]
    if canary is not None:
        new[CANARY] = canary
    if STABLE not in new:
        raise ValueError(f"{entry.name!r} has no stable version yet: name it, too.")
    if new.get(CANARY) == new[STABLE]:
        if canary is not None:
            raise ValueError(f"Version {canary} cannot be stable and canary at once.")
        del new[CANARY]  # it has become stable
    if new.get(PREVIOUS) == new[STABLE]:
        del new[PREVIOUS]
    # TensorFlow Serving moves a label that is in use only to a version that it has loaded, and
    # drops the whole file otherwise.
    loaded = entry.model_version_policy.specific.versions
    for label, first in ((STABLE, "make it the canary"), (CANARY, "take the canary away")):
        if label in old and new.get(label, old[label]) not in {old[label], *loaded}:
            raise ValueError(
                f"A running server does not move {label!r} from version {old[label]} to version "
                f"{new[label]}, which it has not loaded: {first} first."
            )
    return new


def _check(model_dir: pathlib.Path, version: int) -> None:
    """Raises ValueError unless a version is there as it was exported."""
    found = bundle.versions(model_dir)
    if version not in found or not (found[version] / "saved_model.pb").is_file():
        there = ", ".join(map(str, found)) or "none"
        raise ValueError(f"{model_dir} has no version {version}. There: {there}.")
    for problem in checksums.problems(found[version])[:1]:
        raise ValueError(f"{found[version]} is not as it was exported: {problem}.")
