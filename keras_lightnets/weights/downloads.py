"""Fetches published files into Keras' cache and checks them."""

from __future__ import annotations

import contextlib
import hashlib
import os
import pathlib
import zipfile
from collections.abc import Iterator
from typing import Any

import keras

from keras_lightnets import paths
from keras_lightnets.catalogue.published import WeightsRow
from keras_lightnets.weights.files import ERRORS, check_size

FOLDER = "models/keras_lightnets"  # below ~/.keras, or below $KERAS_HOME
MIRROR = "KERAS_LIGHTNETS_MIRROR"  # address of a folder with the published files, by their names
KERAS_FOLDER = "models"  # of `keras.applications`, whose files are not fetched twice


def home() -> pathlib.Path:
    """Keras' folder."""
    return pathlib.Path(os.environ.get("KERAS_HOME") or paths.home() / ".keras")


def cached(row: WeightsRow) -> pathlib.Path:
    """Where a published file is kept."""
    return home() / (KERAS_FOLDER if row.source == "keras" else FOLDER) / row.file


def fetch(row: WeightsRow) -> pathlib.Path:
    """Returns the path of published weights; see `fetch_file`."""
    return fetch_file(cached(row), row.url, row.digest, "pass {} as `weights`")


def fetch_file(
    path: pathlib.Path, url: str, digest: str | None, instead: str | None = None
) -> pathlib.Path:
    """Returns the path of a published file, downloaded if it is not in the cache.

    A download gets its name in the cache only when it is complete and its hash is right.

    Args:
        path: Where it is kept, below `home()`.
        url: Of its publisher; `MIRROR` goes before it.
        digest: "<algorithm>:<first hex digits>", or None.
        instead: What a person may do without the network; `{}` stands for a path.

    Raises:
        ValueError: If it cannot be downloaded, or a hash is wrong; says what to do.
    """
    if path.exists():
        found = wrong_digest(path, digest)
        if found:
            raise ValueError(
                f"{path} is damaged or another file: its {found}, expected {digest}. It was "
                f"left as it is; move it away to download {url} again."
            )
        return path
    received = _download(path, url, instead)
    found = wrong_digest(received, digest)
    if found:
        received.unlink()
        other = f", or {instead.format('the path of a file you trust')}" if instead else ""
        raise ValueError(
            f"{url} is not the published file: its {found}, expected {digest}. Nothing "
            f"was kept. Try again{other}."
        )
    # `get_file` may have moved to another folder, when the cache cannot be written.
    kept = received.with_name(path.name)
    received.replace(kept)
    return kept


def _download(path: pathlib.Path, url: str, instead: str | None) -> pathlib.Path:
    _make(path.parent)
    mirror = os.environ.get(MIRROR)
    url = f"{mirror.rstrip('/')}/{path.name}" if mirror else url
    try:
        return pathlib.Path(
            keras.utils.get_file(
                f"partial-{os.getpid()}-{path.name}",
                origin=url,
                cache_dir=str(home()),
                cache_subdir=str(path.parent.relative_to(home())),
            )
        )
    except Exception as error:  # `get_file` raises plain exceptions
        reason = str(error).rpartition(" -- ")[2]
        other = f", {instead.format('its path')}" if instead else ""
        raise ValueError(
            f"Cannot download {url} ({reason}). Without a network, put the file at {path}{other}, "
            f"or set {MIRROR} to the address of a folder that has it."
        ) from error


def wrong_digest(path: pathlib.Path, digest: str | None) -> str | None:
    """Returns None if the file has the digest, else what it has instead."""
    if digest is None:
        return None
    algorithm, _, expected = digest.partition(":")
    try:
        with open_content(path) as file:
            found = hashlib.file_digest(file, algorithm).hexdigest()
    except ERRORS as error:
        return f"content is no archive ({error})"
    return None if found.startswith(expected) else f"digest is {algorithm}:{found}"


@contextlib.contextmanager
def open_content(path: pathlib.Path) -> Iterator[Any]:
    """Opens a file, or the only file in a `.zip`, for reading bytes."""
    if path.suffix != ".zip":
        with path.open("rb") as file:
            yield file
        return
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if not name.endswith("/")]
        if len(names) != 1:
            raise ValueError(f"{path} must hold one file. Found: {', '.join(names[:5])}")
        with archive.open(names[0]) as file:
            yield file


def read_bytes(path: pathlib.Path, most: int) -> bytes:
    """Content of a file, or of the only file in a `.zip`, unless it is too large."""
    with open_content(path) as file:
        content = file.read(most + 1)
    check_size(len(content), most)
    return content


def _make(folder: pathlib.Path) -> None:
    # `get_file` uses /tmp when the cache does not exist yet. A cache that cannot be made, on
    # the other hand, is a good reason to do so.
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
