"""Weight files of somebody who means harm: one ValueError each, in little memory."""

import io
import json
import pathlib
import pickle
import resource
import struct
import subprocess
import sys
import zipfile

import h5py
import numpy as np
import pytest

import keras_lightnets
from keras_lightnets.weights import files as weight_files

LIMIT = 512 << 20  # bytes that a file may cost, the interpreter aside
NETWORK = 1 << 20  # bytes of the network it is for


def _pickle(storage="1", elements=4, shape=(4,), strides=(1,)):
    """A state dict with one tensor, as PyTorch pickles it."""

    def text(value):
        return b"X" + struct.pack("<I", len(value)) + value.encode()

    def integers(values):
        return b"(" + b"".join(pickle.dumps(v, 2)[2:-1] for v in values) + b"t"

    persistent = b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text(storage) + text("cpu")
    persistent += pickle.dumps(elements, 2)[2:-1] + b"tQ"
    tensor = b"ctorch._utils\n_rebuild_tensor_v2\n(" + persistent + b"K\x00"
    tensor += integers(shape) + integers(strides) + b"\x89}tR"
    return b"\x80\x02}" + text("w") + tensor + b"s."


def _pth(path, data=bytes(16), compression=zipfile.ZIP_STORED, content=None, **tensor):
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("a/data.pkl", content or _pickle(**tensor))
        archive.writestr("a/data/1", data)


def _patched(path, change):
    """The zip with every header of a member changed: flags at 6 and 8, compression at 8 and 10."""
    data = bytearray(path.read_bytes())
    for signature, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        start = data.find(signature)
        while start >= 0:
            change(data, start + flags)
            start = data.find(signature, start + 4)
    path.write_bytes(data)


def encrypted(path):
    _pth(path)
    _patched(path, lambda data, at: data.__setitem__(at, data[at] | 1))


def unknown_compression(path):
    _pth(path)
    _patched(path, lambda data, at: data.__setitem__(at + 2, 77))


def deflate_bomb(path):
    _pth(path, bytes(1 << 30), zipfile.ZIP_DEFLATED, elements=1 << 28, shape=(1 << 28,))


def bzip2_bomb(path):
    _pth(path, bytes(1 << 30), zipfile.ZIP_BZIP2, elements=1 << 28, shape=(1 << 28,))


def lzma_garbage(path):
    _pth(path, bytes(1 << 16), zipfile.ZIP_LZMA, elements=1 << 14)
    data = bytearray(path.read_bytes())
    data[50:70] = bytes(20)
    path.write_bytes(data)


def huge_shape(path):
    _pth(path, shape=(2**70,))


def huge_empty_shape(path):
    _pth(path, shape=(2**70, 0), strides=(1, 1))


def stride_of_zero(path):
    _pth(path, shape=(1 << 34,), strides=(0,))


def huge_stride(path):
    _pth(path, shape=(2, 2), strides=(1 << 70, 1))


def huge_memo(path):
    _pth(path, content=b"\x80\x02}r" + struct.pack("<I", 2**32 - 1) + b".")


def huge_bytearray(path):
    _pth(path, content=b"\x80\x05\x96" + struct.pack("<Q", 1 << 33) + b"abc.")


def huge_bytes(path):
    _pth(path, content=b"\x80\x04\x8e" + struct.pack("<Q", 1 << 33) + b"abc.")


def huge_legacy_storage(path):
    magic = pickle.dumps(weight_files._LEGACY_MAGIC, 2)
    body = magic + pickle.dumps(1001, 2) + pickle.dumps({}, 2)
    body += _pickle(elements=1 << 40) + pickle.dumps(["1"], 2)
    path.write_bytes(body + struct.pack("<q", 1 << 40))


def huge_legacy_memo(path):
    path.write_bytes(b"\x80\x02}r" + struct.pack("<I", 2**32 - 1) + b".")


def _safetensors(path, header, data=bytes(16)):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def deep_header(path):
    _safetensors(path, b'{"w":' + b"[" * 200_000 + b"]" * 200_000 + b"}")


def long_header(path):
    path.write_bytes(struct.pack("<Q", 1 << 62) + b"{}")


def beyond_the_end(path):
    entry = {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}
    _safetensors(path, {"v": entry, "w": {**entry, "shape": [0], "data_offsets": [64, 64]}})


def before_the_start(path):
    _safetensors(path, {"w": {"dtype": "F32", "shape": [1], "data_offsets": [-4, 0]}})


def huge_safetensors_shape(path):
    _safetensors(path, {"w": {"dtype": "F32", "shape": [2**70, 0], "data_offsets": [0, 0]}})


def the_same_bytes_again_and_again(path):
    entry = {"dtype": "F32", "shape": [1 << 20], "data_offsets": [0, 1 << 22]}
    _safetensors(path, {f"w{number}": entry for number in range(1000)}, bytes(1 << 22))


PTH = [
    *(encrypted, unknown_compression, deflate_bomb, bzip2_bomb, lzma_garbage, huge_shape),
    *(huge_empty_shape, stride_of_zero, huge_stride, huge_memo, huge_bytearray, huge_bytes),
    *(huge_legacy_storage, huge_legacy_memo),
]
SAFETENSORS = [
    *(deep_header, long_header, beyond_the_end, before_the_start, huge_safetensors_shape),
    the_same_bytes_again_and_again,
]


def _read_all(folder):
    """For a child process: what reading each file says, and how the memory grew meanwhile."""
    resource.setrlimit(resource.RLIMIT_AS, (8 * LIMIT, 8 * LIMIT))
    answers = {}
    for path in sorted(pathlib.Path(folder).iterdir()):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        try:
            answer = f"accepted: {sorted(weight_files.read_state_dict(path, NETWORK))}"
        except ValueError as error:
            answer = str(error)
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        answers[path.name] = answer, (after - before) << 10
    print(json.dumps(answers))


@pytest.mark.slow
def test_pytorch_files_that_mean_harm_are_refused_in_little_memory(tmp_path):
    """A limit that ends in MemoryError would not do: what a file asks for is never begun."""
    for make in PTH:
        make(tmp_path / f"{make.__name__}.pth")
    for make in SAFETENSORS:
        make(tmp_path / f"{make.__name__}.safetensors")
    code = f"import test_hostile_weights as t; t._read_all({str(tmp_path)!r})"
    here = pathlib.Path(__file__).parent
    out = subprocess.run(
        [sys.executable, "-c", code], cwd=here, capture_output=True, text=True, timeout=120
    )
    assert out.returncode == 0, out.stderr
    answers = json.loads(out.stdout)
    assert len(answers) == len(PTH) + len(SAFETENSORS)
    for name, (answer, grown) in answers.items():
        if name == "stride_of_zero.pth":  # a view; by its shape it is refused later
            assert answer == "accepted: ['w']"
        else:
            assert f"{name} cannot be read as" in answer, answer
        assert "\n" not in answer
        assert "MemoryError" not in answer
        assert "allocate" not in answer
        assert grown < LIMIT, f"{name}: {grown >> 20} MiB"


def test_what_a_network_may_have_is_read(tmp_path):
    """A file that is larger than the network, because of an optimizer's state or more classes."""
    _pth(tmp_path / "good.pth", bytes(16 * NETWORK), elements=4 * NETWORK, shape=(4 * NETWORK,))
    tensors = weight_files.read_state_dict(tmp_path / "good.pth", NETWORK)
    assert tensors["w"].shape == (4 * NETWORK,)
    _pth(tmp_path / "good.pth", shape=(3, 4), strides=(0, 1))
    tensors = weight_files.read_state_dict(tmp_path / "good.pth", NETWORK)
    np.testing.assert_array_equal(tensors["w"], np.zeros((3, 4)))


def _with_huge_array(file, name):
    """An array of 4 TiB that takes no place in the file."""
    file.create_dataset(name, (1 << 40,), "f4", chunks=(1 << 20,))


@pytest.mark.parametrize("suffix", [".weights.h5", ".tf2.h5", ".tf2.h5.zip", ".h5", ".keras"])
def test_arrays_that_only_claim_to_be_there_are_refused(suffix, tmp_path):
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        file.attrs["layer_names"] = [b"features"]
        file.create_group("features").attrs["weight_names"] = [b"kernel:0"]
        _with_huge_array(file["features"], "kernel:0")
    path = tmp_path / f"huge{suffix}"
    if suffix in (".tf2.h5.zip", ".keras"):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("model.weights.h5", content.getvalue())
    else:
        path.write_bytes(content.getvalue())
    with pytest.raises(ValueError, match=r"huge.*cannot be .*much more than its network"):
        keras_lightnets.MobileNetV1((32, 32, 3), alpha=0.25, classes=2, weights=path)


@pytest.mark.parametrize("suffix", [".tf2.h5.zip", ".keras"])
def test_encrypted_archives_are_refused(suffix, tmp_path):
    path = tmp_path / f"secret{suffix}"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model.weights.h5", b"secret")
    _patched(path, lambda data, at: data.__setitem__(at, data[at] | 1))
    with pytest.raises(ValueError, match=r"secret.*cannot be .*encrypted"):
        keras_lightnets.MobileNetV1((32, 32, 3), alpha=0.25, classes=2, weights=path)
