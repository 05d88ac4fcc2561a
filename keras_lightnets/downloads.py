"""Fetches published files into Keras' cache and checks them."""

from __future__ import annotations

import contextlib
import hashlib
import os
import pathlib
import zipfile

import keras

from keras_lightnets.weight_rows import WeightsRow

FOLDER = "models/keras_lightnets"  # below ~/.keras, or below $KERAS_HOME
_NAMES_URL = "https://storage.googleapis.com/download.tensorflow.org/data/imagenet_class_index.json"
_NAMES_MD5 = "c2c37ea517e94d9795004a39431a14cb"


def cache_folder() -> pathlib.Path:
    """Where downloads are kept."""
    home = os.environ.get("KERAS_HOME") or pathlib.Path.home() / ".keras"
    return pathlib.Path(home) / FOLDER


def fetch(row: WeightsRow) -> pathlib.Path:
    """Returns the path of a published file, downloaded if it is not in the cache.

    A download gets its name in the cache only when it is complete and its hash is right.

    Raises:
        ValueError: If it cannot be downloaded, or a hash is wrong; says what to do.
    """
    path = cache_folder() / row.file
    if path.exists():
        found = wrong_digest(path, row.digest)
        if found:
            raise ValueError(
                f"{path} is damaged or another file: its {found}, expected {row.digest}. It was "
                f"left as it is; move it away to download {row.url} again."
            )
        return path
    received = _download(row, path)
    found = wrong_digest(received, row.digest)
    if found:
        received.unlink()
        raise ValueError(
            f"{row.url} is not the published file: its {found}, expected {row.digest}. Nothing "
            "was kept. Try again, or pass the path of a file you trust as `weights`."
        )
    # `get_file` may have moved to another folder, when the cache cannot be written.
    path = received.with_name(row.file)
    received.replace(path)
    return path


def _download(row: WeightsRow, path: pathlib.Path) -> pathlib.Path:
    _make(path.parent)
    try:
        return pathlib.Path(
            keras.utils.get_file(
                f"partial-{os.getpid()}-{row.file}",
                origin=row.url,
                cache_dir=str(cache_folder().parents[1]),
                cache_subdir=FOLDER,
            )
        )
    except Exception as error:  # `get_file` raises plain exceptions
        raise ValueError(
            f"Cannot download {row.url} ({error}). Without a network, put the file at {path}, "
            "or pass its path as `weights`."
        ) from error


def wrong_digest(path: pathlib.Path, digest: str | None) -> str | None:
    """Returns None if the file has the digest, else what it has instead."""
    if digest is None:
        return None
    algorithm, _, expected = digest.partition(":")
    try:
        found = hashlib.new(algorithm, read_bytes(path), usedforsecurity=False).hexdigest()
    except (zipfile.BadZipFile, ValueError) as error:
        return f"content is no archive ({error})"
    return None if found.startswith(expected) else f"digest is {algorithm}:{found}"


def read_bytes(path: pathlib.Path) -> bytes:
    """Content of a file, or of the only file in a `.zip`."""
    if path.suffix != ".zip":
        return path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if not name.endswith("/")]
        if len(names) != 1:
            raise ValueError(f"{path} must hold one file. Found: {', '.join(names)}")
        return archive.read(names[0])


def imagenet_index() -> pathlib.Path:
    """Path of the file with ImageNet's class names, shared with `keras.applications`."""
    _make(cache_folder())
    try:
        return pathlib.Path(
            keras.utils.get_file(
                "imagenet_class_index.json",
                origin=_NAMES_URL,
                cache_dir=str(cache_folder().parents[1]),
                cache_subdir="models",
                file_hash=_NAMES_MD5,
            )
        )
    except Exception as error:  # `get_file` raises plain exceptions
        target = cache_folder().parent / "imagenet_class_index.json"
        raise ValueError(
            f"Cannot download ImageNet's class names, {_NAMES_URL} ({error}). Without a network, "
            f"put the file at {target}, or pass `labels`."
        ) from error


def _make(folder: pathlib.Path) -> None:
    # `get_file` uses /tmp when the cache does not exist yet. A cache that cannot be made, on
    # the other hand, is a good reason to do so.
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
