"""Readers of weight files: path -> tensor name -> array.

Nothing here imports PyTorch, and nothing in a file is executed: the pickles inside `.pth`
files are read by an unpickler that knows tensors, numbers and containers only.
"""

from __future__ import annotations

import collections
import io
import json
import lzma
import math
import pathlib
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable
from typing import Any, BinaryIO

import h5py
import numpy as np

from keras_lightnets.text import first_line

# What a damaged or malicious file makes its readers raise. (zipfile: RuntimeError for an
# encrypted member, NotImplementedError for a compression that it does not know.)
ERRORS = (
    *(ArithmeticError, AttributeError, EOFError, LookupError, MemoryError, OSError, RuntimeError),
    *(TypeError, ValueError, lzma.LZMAError, pickle.UnpicklingError, struct.error),
    *(zipfile.BadZipFile, zlib.error),
)

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


def most_bytes(network_bytes: int) -> int:
    """Bytes that the content of a file may take, unpacked.

    A few hundred bytes can stand for any number. No file is worth more than the network that it is
    for: other types, another number of classes, an optimizer's state, wrappers.
    """
    return 16 * network_bytes + (64 << 20)


def check_size(size: int, most: int) -> None:
    """Raises a ValueError if a file asks for too much memory."""
    if not 0 <= size <= most:
        raise ValueError(f"it takes more than {most >> 20} MiB, much more than its network")


def check_hdf5(file: h5py.File, most: int) -> None:
    """Raises a ValueError if the arrays of an HDF5 file are too large."""
    sizes = []

    def visit(name: str, item: h5py.Dataset | h5py.Group) -> None:
        if isinstance(item, h5py.Dataset):
            sizes.append(math.prod(item.shape) * item.dtype.itemsize)

    file.visititems(visit)
    check_size(sum(sizes), most)


def read_member(archive: zipfile.ZipFile, name: str, most: int) -> bytes:
    """Returns a member of a zip file that is not too large."""
    member = archive.getinfo(name)
    if member.flag_bits & 1:
        raise ValueError("it is encrypted")
    check_size(member.file_size, most)  # more is not read
    return archive.read(name)


def read_state_dict(path: pathlib.Path, network_bytes: int = 1 << 26) -> dict[str, np.ndarray]:
    """Reads a `.pth` or `.safetensors` file.

    Args:
        path: The file.
        network_bytes: Size of the network it is for; memory is bounded by it.

    Raises:
        ValueError: If it is damaged, holds something else than tensors by name, or much more
            than the network.
    """
    read = _read_safetensors if path.suffix == ".safetensors" else _read_pth
    try:
        return read(path, most_bytes(network_bytes))
    except ERRORS as error:
        raise ValueError(
            f"{path} cannot be read as {path.suffix} ({first_line(error)}). It may be truncated "
            "or of another format: get it again."
        ) from error


def _read_safetensors(path: pathlib.Path, most: int) -> dict[str, np.ndarray]:
    """Reads `.safetensors`: the length of a JSON header, the header, the raw tensors."""
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    if length > len(content) - 8:
        raise ValueError("its header lies beyond its end")
    header = json.loads(content[8 : 8 + length])
    header.pop("__metadata__", None)
    data = memoryview(content)[8 + length :]
    tensors, size = {}, 0
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        if not 0 <= begin <= end <= len(data):
            raise ValueError(f"{name} lies beyond its end")
        size += end - begin  # more than the file has, where tensors share their bytes
        check_size(size, most)
        array = _array(data[begin:end], _SAFETENSORS[entry["dtype"]])
        tensors[name] = array.reshape(entry["shape"])
    return tensors


def _read_pth(path: pathlib.Path, most: int) -> dict[str, np.ndarray]:
    """Reads a PyTorch `state_dict`, of the zip format or the one before PyTorch 1.6."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            loaded = _read_zip_format(archive, most)
    else:
        loaded = _read_legacy_format(io.BytesIO(path.read_bytes()))
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
        """A view, which takes no memory, whatever its shape."""
        values = self.storage.values
        if values is None:
            raise ValueError("a storage is missing")
        if min((self.offset, *self.strides)) < 0:
            raise ValueError("a tensor has a negative stride")
        last = self.offset + sum((n - 1) * s for n, s in zip(self.shape, self.strides, strict=True))
        if math.prod(self.shape) and not 0 <= last < values.size:
            raise ValueError("a tensor reaches beyond its storage")
        strides = [s * values.itemsize for s in self.strides]
        return np.lib.stride_tricks.as_strided(values[self.offset :], self.shape, strides)


def _rebuild_tensor(
    storage: _Storage, offset: int, shape: tuple, strides: tuple, *unused: Any
) -> _Tensor:
    return _Tensor(storage, offset, shape, strides)


def _rebuild_parameter(tensor: _Tensor, *unused: Any) -> _Tensor:
    return tensor


class _Unpickler(pickle._Unpickler):
    """Refuses everything but what a state dict consists of.

    It is Python's own: that in C makes room for any memo index at once. So do both for any length
    of a bytearray, which no tensor is.
    """

    dispatch = pickle._Unpickler.dispatch.copy()
    del dispatch[pickle.BYTEARRAY8[0]]

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


def _read_zip_format(archive: zipfile.ZipFile, most: int) -> Any:
    check_size(sum(member.file_size for member in archive.infolist()), most)
    names = {name.partition("/")[2]: name for name in archive.namelist()}
    if "data.pkl" not in names:
        raise ValueError("it is a zip file without data.pkl")

    blocks: dict[str, _Storage] = {}

    def storage(dtype: str, key: str, elements: int) -> _Storage:
        if key not in blocks:
            blocks[key] = _Storage(dtype, elements)
            blocks[key].fill(read_member(archive, names[f"data/{key}"], most))
        return blocks[key]

    file = io.BytesIO(read_member(archive, names["data.pkl"], most))
    return _Unpickler(file, storage).load()


def _read_legacy_format(file: BinaryIO) -> Any:
    """Five pickles (magic number, protocol, system, object, storage keys), then the storages."""
    blocks: dict[str, _Storage] = {}

    def storage(dtype: str, key: str, elements: int) -> _Storage:
        return blocks.setdefault(key, _Storage(dtype, elements))

    def load() -> Any:
        return _Unpickler(file, storage).load()

    if load() != _LEGACY_MAGIC:
        raise ValueError("it is no PyTorch file")
    load()  # the protocol
    load()  # the system
    loaded = load()
    for key in load():
        (elements,) = struct.unpack("<q", file.read(8))
        block = blocks[key]
        if elements != block.elements:
            raise ValueError(f"a storage has {elements} of {block.elements} values")
        size = 2 if block.dtype == "bfloat16" else np.dtype(block.dtype).itemsize
        block.fill(file.read(elements * size))
    return loaded


def _array(raw: bytes | memoryview, dtype: str) -> np.ndarray:
    if dtype == "bfloat16":  # the upper half of a float32
        return (np.frombuffer(raw, "<u2").astype("<u4") << 16).view("<f4")
    return np.frombuffer(raw, dtype)
