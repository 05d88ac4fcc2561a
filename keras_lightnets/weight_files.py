"""Readers of weight files: path -> tensor name -> array.

Nothing here imports PyTorch, and nothing in a file is executed: the pickles inside `.pth`
files are read by an unpickler that knows tensors, numbers and containers only.
"""

from __future__ import annotations

import collections
import io
import json
import math
import pathlib
import pickle
import struct
import zipfile
from collections.abc import Callable
from typing import Any, BinaryIO

import numpy as np

from keras_lightnets.text import first_line

# PyTorch's storage classes -> little-endian NumPy types; bfloat16 is widened by hand.
_STORAGES = {
    "DoubleStorage": "<f8",
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "<i1",
    "ByteStorage": "<u1",
    "BoolStorage": "?",
}
_SAFETENSORS = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "BF16": "bfloat16",
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "<i1",
    "U8": "<u1",
    "BOOL": "?",
}
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_WRAPPERS = ("state_dict", "model")  # keys under which training checkpoints keep the weights


def read_state_dict(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Reads a `.pth` or `.safetensors` file.

    Raises:
        ValueError: If it is damaged or holds something else than tensors by name.
    """
    reader = read_safetensors if path.suffix == ".safetensors" else read_pth
    try:
        tensors = reader(path)
    except (ValueError, KeyError, IndexError, TypeError, EOFError, struct.error) as error:
        raise _damaged(path, error) from error
    except (pickle.UnpicklingError, zipfile.BadZipFile, AttributeError) as error:
        raise _damaged(path, error) from error
    return tensors


def read_safetensors(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Reads `.safetensors`: the length of a JSON header, the header, the raw tensors."""
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    header.pop("__metadata__", None)
    tensors = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        raw = data[8 + length + begin : 8 + length + end]
        tensors[name] = _array(raw, _SAFETENSORS[entry["dtype"]]).reshape(entry["shape"])
    return tensors


def read_pth(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Reads a PyTorch `state_dict`, of the zip format or the one before PyTorch 1.6."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            loaded = _read_zip_format(archive)
    else:
        with path.open("rb") as file:
            loaded = _read_legacy_format(file)
    for key in _WRAPPERS:
        if isinstance(loaded, dict) and isinstance(loaded.get(key), dict):
            loaded = loaded[key]
    if not isinstance(loaded, dict) or not loaded:
        raise ValueError("it holds no tensors by name")
    tensors = {}
    for name, value in loaded.items():
        if not isinstance(value, _Tensor):
            raise ValueError(f"entry {name!r} is no tensor")
        tensors[str(name).removeprefix("module.")] = value.numpy()
    return tensors


class _Storage:
    """A flat block of numbers; the legacy format fills it after the tensors are made."""

    def __init__(self, dtype: str, elements: int) -> None:
        self.dtype = dtype
        self.elements = elements
        self.values: np.ndarray | None = None

    def fill(self, raw: bytes) -> None:
        self.values = _array(raw, self.dtype)
        if self.values.size != self.elements:
            raise ValueError(f"a storage has {self.values.size} of {self.elements} values")


class _Tensor:
    """A view of a storage."""

    def __init__(self, storage: _Storage, offset: int, shape: tuple, strides: tuple) -> None:
        self.storage, self.offset, self.shape, self.strides = storage, offset, shape, strides

    def numpy(self) -> np.ndarray:
        values = self.storage.values
        if values is None:
            raise ValueError("a storage is missing")
        if min((self.offset, *self.strides)) < 0:
            raise ValueError("a tensor has a negative stride")
        last = self.offset + sum((n - 1) * s for n, s in zip(self.shape, self.strides, strict=True))
        if math.prod(self.shape) and not 0 <= last < values.size:
            raise ValueError("a tensor reaches beyond its storage")
        strides = [s * values.itemsize for s in self.strides]
        view = np.lib.stride_tricks.as_strided(values[self.offset :], self.shape, strides)
        return view.copy()


def _rebuild_tensor(
    storage: _Storage, offset: int, shape: tuple, strides: tuple, *unused: Any
) -> _Tensor:
    return _Tensor(storage, offset, shape, strides)


def _rebuild_parameter(tensor: _Tensor, *unused: Any) -> _Tensor:
    return tensor


class _Unpickler(pickle.Unpickler):
    """Refuses everything but what a state dict consists of."""

    def __init__(self, file: BinaryIO, storage: Callable[[str, str, int], _Storage]) -> None:
        super().__init__(file, encoding="utf-8")
        self._storage = storage

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuild_tensor
        if (module, name) == ("torch._utils", "_rebuild_parameter"):
            return _rebuild_parameter
        if module in ("torch", "torch.storage") and name in _STORAGES:
            return name
        raise pickle.UnpicklingError(f"it needs {module}.{name}, which is not a tensor")

    def persistent_load(self, pid: tuple) -> _Storage:
        kind, dtype, key, _, elements = pid[:5]
        if kind != "storage" or dtype not in _STORAGES:
            raise pickle.UnpicklingError(f"it refers to {kind!r}")
        return self._storage(_STORAGES[dtype], key, elements)


def _read_zip_format(archive: zipfile.ZipFile) -> Any:
    names = {name.partition("/")[2]: name for name in archive.namelist()}
    if "data.pkl" not in names:
        raise ValueError("it is a zip file without data.pkl")

    def storage(dtype: str, key: str, elements: int) -> _Storage:
        block = _Storage(dtype, elements)
        block.fill(archive.read(names[f"data/{key}"]))
        return block

    return _Unpickler(io.BytesIO(archive.read(names["data.pkl"])), storage).load()


def _read_legacy_format(file: BinaryIO) -> Any:
    """Five pickles (magic number, protocol, system, object, storage keys), then the storages."""
    blocks: dict[str, _Storage] = {}

    def storage(dtype: str, key: str, elements: int) -> _Storage:
        return blocks.setdefault(key, _Storage(dtype, elements))

    def load() -> Any:
        return _Unpickler(file, storage).load()

    if load() != _LEGACY_MAGIC:
        raise ValueError("it is no PyTorch file")
    load(), load()
    loaded = load()
    for key in load():
        (elements,) = struct.unpack("<q", file.read(8))
        block = blocks[key]
        if elements != block.elements:
            raise ValueError(f"a storage has {elements} of {block.elements} values")
        size = 2 if block.dtype == "bfloat16" else np.dtype(block.dtype).itemsize
        block.fill(file.read(elements * size))
    return loaded


def _array(raw: bytes, dtype: str) -> np.ndarray:
    if dtype == "bfloat16":  # the upper half of a float32
        return (np.frombuffer(raw, "<u2").astype("<u4") << 16).view("<f4")
    return np.frombuffer(raw, dtype)


def _damaged(path: pathlib.Path, error: Exception) -> ValueError:
    return ValueError(
        f"{path} cannot be read as {path.suffix} ({first_line(error)}). It may be truncated "
        "or of another format: get it again."
    )
