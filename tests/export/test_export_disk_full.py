"""A disk that fills up during an export costs one line and no version."""

import resource
import shutil
import signal
import subprocess
import sys

import pytest

import keras_lightnets
from keras_lightnets.errors import ExportError
from tests import processes
from tests.colour_run import make_run
from tests.exports import small_net


def export_limited(base):
    """Exports while writing more than 10 kB into a file fails, as on a full disk."""
    model = small_net()
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
    keras_lightnets.export_saved_model(model, base)


# A real file system of 3 MiB: a version, then exports while it has ever more room left.
FULL = """
import os, pathlib, sys
import numpy as np
from tests.exports import small_net
import keras_lightnets
from keras_lightnets.errors import ExportError

disk, model = pathlib.Path(sys.argv[1]), small_net()

def export():
    options = keras_lightnets.ExportOptions(formats=["litert", "onnx"], warmup_batch_sizes=[1])
    keras_lightnets.export_saved_model(model, disk, options=options)

def tree():
    return {p: p.read_bytes() for p in disk.rglob("*") if p.is_file()}

export()
first = tree()
size = sum(map(len, first.values()))
for left in (0.02, 0.3, 0.8, 0.95):
    filler = disk / "filler"
    free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
    filler.write_bytes(b"0" * (free - int(left * size)))
    try:
        export()
        print("exported with", left)
    except ExportError as error:
        print("refused:", error)
    filler.unlink()
    assert tree() == first, (left, tree().keys() ^ first.keys())
    assert sorted(p.name for p in disk.glob("small/.*")) == []
export()
print("versions", sorted(p.name for p in (disk / "small").iterdir()))
"""


def test_a_full_disk_publishes_nothing(tmp_path):
    with pytest.raises(ExportError, match="Cannot write the export to "):
        processes.call(export_limited, str(tmp_path / "models"))
    assert not list(tmp_path.iterdir())


def can_mount():
    """Whether a process may mount a file system in a name space of its own."""
    if shutil.which("unshare") is None:
        return False
    probe = "mount -t tmpfs tmpfs /mnt"
    return (
        subprocess.run(["unshare", "-rm", "sh", "-c", probe], capture_output=True).returncode == 0
    )


@pytest.mark.nightly
@pytest.mark.skipif(not can_mount(), reason="no file system can be mounted here")
def test_a_full_file_system_keeps_what_is_there(tmp_path):
    script = 'mount -t tmpfs -o size=6m tmpfs "$1" && exec "$2" -c "$3" "$1"'
    result = subprocess.run(
        ["unshare", "-rm", "sh", "-c", script, "sh", tmp_path, sys.executable, FULL],
        capture_output=True,
        text=True,
        check=False,
    )
    lines = result.stdout.splitlines()
    assert len(lines) == 5, result.stdout + result.stderr[-2000:]
    for line in lines[:4]:
        assert line.startswith("refused: Cannot write the export to"), line
        assert "No space left on device" in line
    assert lines[4] == "versions ['1', '2']"


# The command on a real file system of 3 MiB: a version, then an export with too little room.
COMMAND = """
import os, pathlib, subprocess, sys
disk, run = pathlib.Path(sys.argv[1]), sys.argv[2]

def tree():
    return {p: p.read_bytes() for p in disk.rglob("*") if p.is_file()}

def export():
    arguments = ["export", run, "--out", str(disk / "served"), "--name", "colour"]
    command = [sys.executable, "-m", "lightnets.cli", *arguments]
    done = subprocess.run(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    return done.returncode, done.stderr

assert export() == (0, "")
first = tree()
for left in (0, sum(map(len, first.values())) // 2):
    free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
    (disk / "filler").write_bytes(bytes(free - left))
    code, err = export()
    (disk / "filler").unlink()
    assert tree() == first, tree().keys() ^ first.keys()
    print(code, err, end="")
"""


@pytest.mark.nightly
@pytest.mark.skipif(not can_mount(), reason="no file system can be mounted here")
def test_the_command_on_a_full_file_system_is_one_line_and_no_file(tmp_path):
    run = make_run(tmp_path)
    disk = tmp_path / "disk"
    disk.mkdir()
    script = 'mount -t tmpfs -o size=3m tmpfs "$1" && exec "$3" -c "$4" "$1" "$2"'
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", script, "sh", disk, run, sys.executable, COMMAND],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    lines = done.stdout.splitlines()
    assert len(lines) == 2, done.stdout
    for line in lines:
        assert line == (
            f"1 lightnets: Cannot write the export to {disk}/served/colour: "
            "No space left on device."
        )


@pytest.mark.slow
def test_the_command_whose_file_cannot_grow_leaves_no_file(tmp_path):
    """The same where nothing can be mounted: no file may grow beyond 10 kB."""
    run, out = make_run(tmp_path), tmp_path / "served"
    old = out / "colour" / "1" / "saved_model.pb"
    old.parent.mkdir(parents=True)
    old.write_bytes(b"old")
    arguments = ["export", run, "--out", out, "--name", "colour"]
    done = subprocess.run(
        [sys.executable, "-m", "lightnets.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000)),
    )
    text = f"lightnets: Cannot write the export to {out}/colour: File too large.\n"
    assert (done.returncode, done.stderr) == (1, text)
    assert [path for path in out.rglob("*") if path.is_file()] == [old]
