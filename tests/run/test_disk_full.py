"""A disk that fills up during training: said in one line, nothing lost, exact after making room."""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

from lightnets.support.errors import UserError
from tests import processes, toy

KEYS = {"checkpoint_steps": 4, "ema": 0.9}
CHECKPOINT = 30_000  # bytes of one, about


def fill(disk, left):
    """Leaves so many bytes."""
    free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
    (disk / "filler").write_bytes(bytes(max(free - left, 0)))


def filling(out, step, left):
    """Trains until the disk is full, from `step` on."""
    toy.run(toy.config(**KEYS), out, at_step=(step, lambda: fill(out.parent, left)))


def interrupted(disk):
    """Trains on a disk that is filled three times; returns what was said and the outcome."""
    out, said = disk / "run", []
    # The steps count from the start of each process. First nothing is left for the checkpoint
    # of step 4 or 8, then half of what it needs, then too little for the best weights.
    for step, left in ((1, 0), (5, CHECKPOINT // 2), (2, CHECKPOINT)):
        try:
            processes.call(filling, out, step, left)
        except UserError as error:
            steps = sorted({int(path.stem[5:]) for path in out.glob("checkpoints/ckpt-*.index")})
            said.append([str(error), steps])
        (disk / "filler").unlink()
    processes.call(toy.run, toy.config(**KEYS), out)
    return said, processes.call(toy.outcome, out)


def main(disk, elsewhere):
    """Prints what was said, and whether the outcome is that of a run that had enough room."""
    said, outcome = interrupted(disk)
    processes.call(toy.run, toy.config(**KEYS), elsewhere)
    same = outcome == processes.call(toy.outcome, elsewhere)
    print(json.dumps({"said": said, "same": same}))


def in_name_space(*command):
    """Runs a shell script as root of a user and mount name space of its own."""
    return subprocess.run(
        ["unshare", "-rm", "sh", "-c", *command], capture_output=True, text=True, check=False
    )


@pytest.fixture
def mountable():
    """Skips where no file system may be mounted; the limit in test_checkpoint.py runs always."""
    if shutil.which("unshare") is None or in_name_space("mount -t tmpfs tmpfs /mnt").returncode:
        pytest.skip("no file system can be mounted here")


@pytest.mark.nightly
@pytest.mark.usefixtures("mountable")
def test_a_full_file_system_is_named_and_the_run_continues_exactly(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    done = in_name_space(
        'mount -t tmpfs -o size=2m tmpfs "$1" && exec "$3" -m tests.run.test_disk_full "$1" "$2"',
        *("sh", disk, tmp_path / "elsewhere", sys.executable),
    )
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads(done.stdout.splitlines()[-1])
    first, weights, second = result["said"]
    assert re.search(r"checkpoint of step 4 to .*the disk is full\)\. Make room", first[0])
    assert re.search(r"best\.keras: No space left on device.*resume", weights[0])
    assert re.search(r"step 12 to .*the disk is full.* step 8 is intact\. Make room", second[0])
    # Nothing half written is left behind.
    assert [steps for _, steps in result["said"]] == [[], [4], [4, 6, 8]]
    assert result["same"]


if __name__ == "__main__":
    main(*map(pathlib.Path, sys.argv[1:]))
