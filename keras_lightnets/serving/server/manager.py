"""Keeps the newest version of each model loaded: finds it, switches, unloads the one before.

In its place, the versions that an entry in the `models.config` beside the model names.
"""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from tensorflow_serving.apis.get_model_status_pb2 import GetModelStatusResponse
from tensorflow_serving.apis.get_model_status_pb2 import ModelVersionStatus as State

from keras_lightnets.export import models_config
from keras_lightnets.export.bundle import list_versions
from keras_lightnets.serving.server import errors
from keras_lightnets.serving.server.log import log

if TYPE_CHECKING:
    from keras_lightnets.serving.server.servable import Servable


@dataclasses.dataclass
class _Version:
    number: int
    path: pathlib.Path
    state: State.State.ValueType = State.START
    error: errors.ServingError | None = None
    servable: Servable | None = None
    users: int = 0
    fingerprint: object = None  # of the files a failed load saw: retried when they change


class ModelManager:
    """Loads, switches and unloads the versions of some models.

    Args:
        models: Name -> directory that holds the numbered versions.
        load: Loads a version and warms it up: `(name, version, path)`.
        poll_interval_s: Seconds between two looks at the directories.
    """

    def __init__(
        self,
        models: Mapping[str, pathlib.Path],
        load: Callable[[str, int, pathlib.Path], Servable],
        poll_interval_s: float,
    ) -> None:
        self._models = dict(models)
        self._load, self._poll_interval_s = load, poll_interval_s
        self._versions: dict[str, dict[int, _Version]] = {name: {} for name in self._models}
        self._labels: dict[str, dict[str, int]] = {}
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="serving-watch", daemon=True)

    def start(self) -> None:
        """Loads what is there, then watches for changes.

        Raises:
            ServingError: A model of which no version can be loaded.
        """
        for name in self._models:
            self._update(name)
            if self._available(name):
                continue
            for version in self._versions[name].values():
                if version.error is not None:
                    what = f"model {name} version {version.number} from {version.path}"
                    message = f"Cannot load {what}: {version.error}"
                    raise errors.ServingError(version.error.code, message)
        self._watcher.start()

    def close(self) -> None:
        """Stops watching and unloads everything, what is in use as soon as it no longer is."""
        self._stop.set()
        if self._watcher.ident is not None:
            self._watcher.join()
        for name in self._models:
            for version in self._available(name).values():
                self._unload(version)

    @property
    def names(self) -> list[str]:
        """The models' names, sorted."""
        return sorted(self._models)

    @contextlib.contextmanager
    def acquire(self, name: str, version: int | str | None = None) -> Iterator[Servable]:
        """The given version, or the newest available; it stays loaded until the end of the block.

        Args:
            name: Of the model.
            version: Its number or its label.

        Raises:
            ServingError: No such model or version is available.
        """
        with self._lock:
            version = self._number(name, version)
            available = self._available(name)
            number = max(available, default=None) if version is None else version
            found = None if number is None else available.get(number)
            if found is None or found.servable is None:
                asked = f"Latest({name})" if version is None else f"Specific({name}, {version})"
                raise _not_found(f"Servable not found for request: {asked}")
            found.users += 1
            servable = found.servable
        try:
            yield servable
        finally:
            with self._lock:
                found.users -= 1
            self._free(found)

    def status(self, name: str, version: int | str | None = None) -> GetModelStatusResponse:
        """The states of a model's versions, newest first.

        Raises:
            ServingError: No such model or version.
        """
        response = GetModelStatusResponse()
        with self._lock:
            version = self._number(name, version)
            for number, each in sorted(self._versions.get(name, {}).items(), reverse=True):
                if version in (None, number):
                    row = response.model_version_status.add(version=number, state=each.state)
                    row.status.error_code = each.error.number if each.error else 0
                    row.status.error_message = each.error.message if each.error else ""
        if not response.model_version_status:
            asked = f"version {version}" if version is not None else "any versions"
            raise _not_found(f"Could not find {asked} of model {name}")
        return response

    def _number(self, name: str, version: int | str | None) -> int | None:
        if not isinstance(version, str):
            return version
        if version not in self._labels.get(name, {}):
            raise errors.invalid(f"Unrecognized servable version label: {version}")
        return self._labels[name][version]

    def _available(self, name: str) -> dict[int, _Version]:
        versions = self._versions.get(name, {}).values()
        return {v.number: v for v in versions if v.state == State.AVAILABLE}

    def _watch(self) -> None:
        while not self._stop.wait(self._poll_interval_s):
            for name in self._models:
                try:
                    self._update(name)
                except ValueError as error:  # somebody is writing models.config
                    log.error("model %s stays as it is: %s", name, error)
                except Exception:  # the watcher must outlive any fault of one look
                    log.exception("model %s: looking for new versions failed", name)

    def _update(self, name: str) -> None:
        """Loads what is wanted first and unloads others after: one is always there."""
        try:
            folders = list_versions(self._models[name])
            entry = models_config.entry_for(self._models[name])
        except OSError:
            return  # a file system that is away for a moment takes no version with it
        pinned = set() if entry is None else set(entry.model_version_policy.specific.versions)
        wanted = pinned & folders.keys() if pinned else set(sorted(folders)[-1:])
        for number in sorted(wanted):
            self._load_version(name, number, folders[number])
        if not wanted <= self._available(name).keys():
            return  # something new does not work: go on with the old
        with self._lock:
            self._labels[name] = {} if entry is None else dict(entry.version_labels)
        for number, version in self._available(name).items():
            if number not in wanted:
                self._unload(version)

    def _load_version(self, name: str, number: int, path: pathlib.Path) -> None:
        known = self._versions[name].get(number)
        if known is not None and known.state == State.AVAILABLE:
            return
        fingerprint = _fingerprint(path)
        if known is not None and known.error is not None and known.fingerprint == fingerprint:
            return
        version = _Version(number, path, State.LOADING, fingerprint=fingerprint)
        with self._lock:
            self._versions[name][number] = version
        try:
            servable = self._load(name, number, path)
        except Exception as error:
            version.error = errors.describe(error)
            version.state = State.END
            log.error("model %s version %d not loaded: %s", name, number, version.error)
            return
        with self._lock:
            version.servable, version.state = servable, State.AVAILABLE
        log.info("model %s version %d is available", name, number)

    def _unload(self, version: _Version) -> None:
        with self._lock:
            version.state = State.UNLOADING
        self._free(version)

    def _free(self, version: _Version) -> None:
        """Frees a version that is to go, once nobody uses it."""
        with self._lock:
            if version.state != State.UNLOADING or version.users or version.servable is None:
                return
            servable, version.servable = version.servable, None
        servable.close()
        version.state = State.END
        log.info("model %s version %d is unloaded", servable.name, version.number)


def _not_found(message: str) -> errors.ServingError:
    return errors.ServingError("NOT_FOUND", message)


def _fingerprint(path: pathlib.Path) -> object:
    """Changes when a file below `path` does: a version copied in place is retried as it grows."""
    try:
        stats = [(str(p), p.stat()) for p in sorted(path.rglob("*"))]
        return tuple((name, s.st_size, s.st_mtime_ns) for name, s in stats)
    except OSError:
        return object()
