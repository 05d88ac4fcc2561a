"""Features of pictures as a file: `.npz` for NumPy, `.parquet` for tables."""

from __future__ import annotations

import json
import pathlib
import zipfile
from typing import Any, NamedTuple

import numpy as np

from keras_lightnets.text import visible
from lightnets.support.errors import UsageError, UserError
from lightnets.support.words import command
from lightnets.support.writing import check_file, replacing


class Features(NamedTuple):
    """Pictures as a network sees them.

    Attributes:
        features: float32 `(images, channels)`.
        names: Of the files, `(images,)`.
        labels: Names of their classes, `(images,)`.
        model: The network as it was named.
        network: What changes with its weights.
    """

    features: np.ndarray
    names: np.ndarray
    labels: np.ndarray
    model: str
    network: str


def check(path: pathlib.Path, flag: str) -> None:
    """Raises UserError, before the work, unless features can be written to `path`."""
    if path.suffix not in (".npz", ".parquet"):
        raise UsageError(f"{flag} takes a name that ends with .npz or .parquet. Received: {path}.")
    check_file(path, flag)


def write(path: pathlib.Path, found: Features) -> None:
    """Writes the file, whole or not at all."""
    with replacing(path, "wb") as file:
        if path.suffix == ".npz":
            values: dict[str, Any] = found._asdict()
            np.savez(file, **values)
            return
        import pyarrow as pa  # TFDS needs it, too
        from pyarrow import parquet

        rows = pa.FixedSizeListArray.from_arrays(
            pa.array(found.features.reshape(-1)), found.features.shape[1]
        )
        names, labels = ([visible(str(text)) for text in part] for part in found[1:3])
        about = json.dumps({"model": found.model, "network": found.network})
        table = pa.table({"name": names, "label": labels, "features": rows})
        parquet.write_table(table.replace_schema_metadata({"lightnets": about}), file)


def read(path: pathlib.Path) -> Features:
    """Reads what `write` wrote.

    Raises:
        UserError: There is no such file, or it is another one.
    """
    if not path.is_file():
        again = command("embed", "DATA", "--out", path)
        raise UserError(f"There is no file {path}. Make it: {again}")
    try:
        return _parquet(path) if path.suffix == ".parquet" else _npz(path)
    except (OSError, ValueError, KeyError, EOFError, TypeError, zipfile.BadZipFile):
        raise UserError(f"{path} is no file of `lightnets embed`, or is damaged.") from None


def _npz(path: pathlib.Path) -> Features:
    with path.open("rb") as raw, np.load(raw) as file:
        features, names, labels, model, network = (file[field] for field in Features._fields)
    return Features(features, names, labels, str(model), str(network))


def _parquet(path: pathlib.Path) -> Features:
    from pyarrow import parquet

    table = parquet.read_table(path)
    about = json.loads(table.schema.metadata[b"lightnets"])
    rows = table["features"].combine_chunks()
    features = rows.flatten().to_numpy().reshape(len(rows), -1)
    names, labels = (np.array(table[part].to_pylist()) for part in ("name", "label"))
    return Features(features, names, labels, about["model"], about["network"])
