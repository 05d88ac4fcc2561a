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
import pickletools
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


class Budget:
    """How many bytes the tensors of a file may take in memory.

    A few hundred bytes can stand for any number: compressed, repeated by a stride of 0, or not
    there at all. No file is worth more than the network that it is for.
    """

    def __init__(self, network_bytes: int) -> None:
        # Other types, another number of classes, an optimizer's state, wrappers.
        self.left = self.whole = 16 * network_bytes + (64 << 20)

    def take(self, size: int) -> int:
        """Returns `size`; a ValueError once more was taken than there is."""
        if not 0 <= size <= self.left:
            raise ValueError(
                f"it takes more than {self.whole >> 20} MiB, much more than its network"
            )
        self.left -= size
        return size


def read_state_dict(path: pathlib.Path, network_bytes: int = 1 << 26) -> dict[str, np.ndarray]:
    """Reads a `.pth` or `.safetensors` file.

    Args:
        path: The file.
        network_bytes: Size of the network it is for; memory is bounded by it.

    Raises:
        ValueError: If it is damaged, holds something else than tensors by name, or much more
            than the network.
    """
    reader = read_safetensors if path.suffix == ".safetensors" else read_pth
    try:
        return reader(path, Budget(network_bytes))
    except ERRORS as error:
        raise _damaged(path, error) from error


def read_safetensors(path: pathlib.Path, budget: Budget) -> dict[str, np.ndarray]:
    """Reads `.safetensors`: the length of a JSON header, the header, the raw tensors."""
    end_of_file = path.stat().st_size
    tensors = {}
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        if length > end_of_file - 8:
            raise ValueError("its header lies beyond its end")
        header = json.loads(file.read(budget.take(length)))
        header.pop("__metadata__", None)
        for name, entry in header.items():
            begin, end = entry["data_offsets"]
            if not 0 <= begin <= end <= end_of_file - 8 - length:
                raise ValueError(f"{name} lies beyond its end")
            file.seek(8 + length + begin)
            raw = file.read(budget.take(end - begin))
            tensors[name] = _array(raw, _SAFETENSORS[entry["dtype"]]).reshape(entry["shape"])
    return tensors


def read_member(archive: zipfile.ZipFile, name: str, budget: Budget) -> bytes:
    """Returns a member of a zip file that is no larger than the budget."""
    member = archive.getinfo(name)
    if member.flag_bits & 1:
        raise ValueError("it is encrypted")
    budget.take(member.file_size)  # more is not read
    return archive.read(name)


def check_hdf5(file: h5py.File, budget: Budget) -> None:
    """Raises a ValueError if the arrays of an HDF5 file are larger than the budget."""

    def visit(name: str, item: h5py.Dataset | h5py.Group) -> None:
        if isinstance(item, h5py.Dataset):
            budget.take(math.prod(item.shape) * item.dtype.itemsize)

    file.visititems(visit)


def read_pth(path: pathlib.Path, budget: Budget) -> dict[str, np.ndarray]:
    """Reads a PyTorch `state_dict`, of the zip format or the one before PyTorch 1.6."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            loaded = _read_zip_format(archive, budget)
    else:
        with path.open("rb") as file:
            loaded = _read_legacy_format(file, budget)
    for key in _WRAPPERS:
        if isinstance(loaded, dict) and isinstance(loaded.get(key), dict):
            loaded = loaded[key]
    if not isinstance(loaded, dict) or not loaded:
        raise ValueError("it holds no tensors by name")
    tensors = {}
    for name, value in loaded.items():
        if not isinstance(value, _Tensor):
            raise ValueError(f"entry {name!r} is no tensor")
        tensors[str(name).removeprefix("module.")] = value.numpy(budget)
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

    def numpy(self, budget: Budget) -> np.ndarray:
        values = self.storage.values
        if values is None:
            raise ValueError("a storage is missing")
        budget.take(math.prod(self.shape) * values.itemsize)
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


def _check_pickle(file: BinaryIO) -> None:
    """Refuses a pickle that makes its reader allocate more than the file holds.

    The C unpickler makes room for any memo index, and for any length of a bytearray, at once.
    """
    start = file.tell()
    for opcode, argument, position in pickletools.genops(file):
        if "PUT" in opcode.name and (argument or 0) > (position or 0):
            raise ValueError("its pickle has a memo without bounds")
        if opcode.name == "BYTEARRAY8":
            raise ValueError("its pickle holds bytes, which are no tensor")
    file.seek(start)


def _read_zip_format(archive: zipfile.ZipFile, budget: Budget) -> Any:
    names = {name.partition("/")[2]: name for name in archive.namelist()}
    if "data.pkl" not in names:
        raise ValueError("it is a zip file without data.pkl")

    blocks: dict[str, _Storage] = {}

    def storage(dtype: str, key: str, elements: int) -> _Storage:
        if key not in blocks:
            blocks[key] = _Storage(dtype, elements)
            blocks[key].fill(read_member(archive, names[f"data/{key}"], budget))
        return blocks[key]

    file = io.BytesIO(read_member(archive, names["data.pkl"], budget))
    _check_pickle(file)
    return _Unpickler(file, storage).load()


def _read_legacy_format(file: BinaryIO, budget: Budget) -> Any:
    """Five pickles (magic number, protocol, system, object, storage keys), then the storages."""
    blocks: dict[str, _Storage] = {}

    def storage(dtype: str, key: str, elements: int) -> _Storage:
        return blocks.setdefault(key, _Storage(dtype, elements))

    def load() -> Any:
        _check_pickle(file)
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
        block.fill(file.read(budget.take(elements * size)))
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
