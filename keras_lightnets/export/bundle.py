"""Versions on disk: numbered directories that appear whole or not at all.

    DIR/<name>/<version>/saved_model.pb              what a server loads
    DIR/<name>/<version>/assets.extra/labels.txt     class names, one a line, escaped
    DIR/<name>/<version>/assets.extra/labels.json    the same exactly, where that differs
    DIR/<name>/<version>/assets.extra/metadata.json  input, preprocessing, versions, accuracy
    DIR/<name>/<version>/assets.extra/parity.json    the comparison with the Keras model
    DIR/<name>/<version>/assets.extra/selftest.py    asks a server for known answers
    DIR/<name>/<version>/MODEL_CARD.md               how well it does, and where it fails
    DIR/<name>/<version>/SHA256SUMS                  digests of all files
    DIR/<name>/<version>/formats/model.onnx, ...     files for other runtimes, if asked for

All of a version, whatever its formats, is written to one hidden sibling, which servers ignore,
and renamed once when it is complete.
"""

from __future__ import annotations

import contextlib
import fcntl
import glob
import json
import os
import pathlib
import platform
import re
import shutil
import uuid
from collections.abc import Iterator, Sequence
from numbers import Integral
from typing import Any

from keras_lightnets.catalogue import class_names
from keras_lightnets.errors import ExportError
from keras_lightnets.export import checksums

EXTRA = "assets.extra"
METADATA, PARITY = "metadata.json", "parity.json"
FORMATS = "formats"  # directory of files for other runtimes, in a version or beside all
_STAGING = ".incoming"
MAX_VERSION = 2**63 - 1


def check_name(name: str) -> None:
    """Raises ExportError unless `name` can be a directory and part of a URL."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise ExportError(
            "The name of a served model is made of letters, digits, '.', '_' and '-'. "
            f"Received: {name!r}"
        )


def list_versions(model_dir: pathlib.Path) -> dict[int, pathlib.Path]:
    """Returns the numbered folders of a model's directory, ascending, as TF Serving reads them.

    A number fits into 64 bits and may begin with zeros; everything else is ignored.

    Raises:
        OSError: The directory cannot be listed.
    """
    folders = {
        int(path.name): path
        for path in sorted(model_dir.iterdir())
        if re.fullmatch("[0-9]+", path.name) and path.is_dir()
    }
    return {number: folders[number] for number in sorted(folders) if number <= MAX_VERSION}


def versions(model_dir: pathlib.Path) -> dict[int, pathlib.Path]:
    """As `list_versions`; none where there is no such directory."""
    return list_versions(model_dir) if model_dir.is_dir() else {}


def is_model(path: pathlib.Path) -> bool:
    """Whether `path` holds at least one version that servers load."""
    return any((folder / "saved_model.pb").is_file() for folder in versions(path).values())


def versions_below(directory: pathlib.Path) -> list[pathlib.Path]:
    """Returns all versions in a bundle, in a model's directory, or `directory` if it is one."""
    if any((directory / file).exists() for file in (checksums.CHECKSUMS, "saved_model.pb")):
        return [directory]
    models = [directory, *sorted(directory.iterdir()), *sorted(directory.glob(f"*/{FORMATS}"))]
    return [version for model in models for version in versions(model).values()]


def choose_version(directories: Sequence[pathlib.Path], version: int | None) -> int:
    """Returns `version`, or the next one after all in `directories`.

    Raises:
        ExportError: No server loads it, or it exists.
    """
    existing = {number for directory in directories for number in versions(directory)}
    following = max(existing, default=0) + 1
    chosen = following if version is None else version
    if not (isinstance(chosen, Integral) and 1 <= chosen <= MAX_VERSION):
        raise ExportError(
            f"A version is a whole number from 1 to {MAX_VERSION}. Received: {chosen!r}"
        )
    chosen = int(chosen)
    if chosen in existing:
        raise ExportError(
            f"{directories[0] / str(chosen)} exists. Versions are never overwritten: leave out "
            f"the version to get {following}."
        )
    return chosen


def check_same_classes(model_dir: pathlib.Path, labels: Sequence[str]) -> None:
    """Raises ExportError if the newest version or other format of this name has other classes."""
    newest = [folder / EXTRA for folder in list(versions(model_dir).values())[-1:]]
    newest += list(versions(model_dir / FORMATS).values())[-1:]
    for directory in newest:
        with contextlib.suppress(OSError):
            published = class_names.read(directory)
            if list(labels) != published:
                raise ExportError(
                    f"{model_dir} holds another model of this name, with other classes "
                    f"({_some(published)}; now {_some(labels)}). Choose another name or directory."
                )


def _some(labels: Sequence[str]) -> str:
    return ", ".join(labels[:3]) + (f", ... ({len(labels)})" if len(labels) > 3 else "")


@contextlib.contextmanager
def staging(parent: pathlib.Path, version: int | None = None) -> Iterator[pathlib.Path]:
    """Yields a new hidden directory in `parent`, and removes it if it is still there at the end.

    Parents that had to be made go too if they end up empty.

    Args:
        parent: Where the directory is to be renamed.
        version: The number that the caller insists on, if it does: meanwhile no other process of
            this machine gets it.

    Raises:
        ExportError: The directory cannot be made, or another process is writing the version.
    """
    made = [p for p in [parent, *parent.parents] if not p.exists()]
    ours = f"{_STAGING}-{platform.node()}-"
    named = "" if version is None else f".{version}"
    path = parent / f"{ours}{os.getpid()}-{uuid.uuid4().hex[:8]}{named}"
    try:
        parent.mkdir(parents=True, exist_ok=True)
        for directory in made:
            make_readable(directory)
        with locked(parent):
            _remove_leftovers(parent)
            if named and any(parent.glob(f"{glob.escape(ours)}*{named}")):
                raise ExportError(f"Another export is writing {parent / str(version)} right now.")
            path.mkdir()
    except FileExistsError:
        raise ExportError(f"Cannot write to {parent}: it is no directory.") from None
    except OSError as error:
        raise ExportError(f"Cannot write to {parent}: {error.strerror}.") from None
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        for directory in made:
            with contextlib.suppress(OSError):
                directory.rmdir()  # only succeeds where it is empty


def _remove_leftovers(parent: pathlib.Path) -> None:
    """Removes what processes of this machine that are gone have left in `parent`."""
    for path in parent.glob(f"{_STAGING}-{platform.node()}-*"):
        pid = int(path.name.split("-")[-2])
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            shutil.rmtree(path, ignore_errors=True)
        except PermissionError:
            pass  # alive, of another user


def publish(staged: pathlib.Path, final: pathlib.Path) -> None:
    """Renames a complete directory to its final name, after its content has reached the disk.

    The last file in it is `SHA256SUMS`.

    Raises:
        ExportError: Somebody else published this version in the meantime.
    """
    checksums.write(staged)
    for path in [*staged.rglob("*"), staged]:
        make_readable(path)
        sync(path)
    try:
        staged.rename(final)
    except OSError as error:
        raise ExportError(f"Cannot publish {final}: {error.strerror}.") from None
    sync(final.parent)


@contextlib.contextmanager
def locked(directory: pathlib.Path) -> Iterator[None]:
    """Keeps other exports from publishing in `directory` meanwhile; waits for theirs to end."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # some network file systems have no locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)  # which gives the lock back


def make_readable(path: pathlib.Path) -> None:
    """Lets every user read a file or directory: servers often run as another one."""
    path.chmod(0o755 if path.is_dir() else 0o644)


def sync(path: pathlib.Path) -> None:
    """Waits until a file or directory has reached the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_extra(directory: pathlib.Path, labels: Sequence[str], metadata: dict[str, Any]) -> None:
    """Writes labels and metadata into `directory`."""
    directory.mkdir(exist_ok=True)
    class_names.write(directory, labels)
    write_json(directory / METADATA, metadata)


def write_json(path: pathlib.Path, value: Any) -> None:
    """Writes `value` as indented JSON."""
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
