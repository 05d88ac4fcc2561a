"""A run directory belongs to one live job, on this machine or any other."""

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys

import pytest

from lightnets import cli
from lightnets.config import keys as configs
from lightnets.run import run_lock
from lightnets.support.errors import UserError
from tests import processes, toy
from tests.checkout import ROOT


def hold(folder, ready):
    """Holds a folder until it is killed."""
    with run_lock.held(folder):
        ready.touch()
        signal.pause()


@pytest.fixture
def holder(tmp_path):
    """A process that holds `run`."""
    child = processes.Child(hold, tmp_path / "run", tmp_path / "ready")
    while not (tmp_path / "ready").exists():
        child.process.join(0.01)
        assert child.process.is_alive()
    yield child
    if child.process.is_alive():
        child.kill()


def taken(folder):
    with run_lock.held(folder):
        return json.loads((folder / run_lock.NAME).read_text())["pid"]


def test_a_live_job_is_named_and_a_dead_one_replaced(tmp_path, holder):
    run = tmp_path / "run"
    message = rf"run is in use by process {holder.process.pid} on {os.uname().nodename}\."
    for _ in range(2):
        with pytest.raises(UserError, match=message):
            taken(run)
    holder.kill()
    assert taken(run) == os.getpid()
    # Nothing was written, so nothing is left.
    assert not run.exists()


def test_resume_and_overwrite_beside_a_live_run_change_nothing(tmp_path, holder, capsys):
    run = tmp_path / "run"
    configs.save(configs.from_dict({"data": {"dataset": "digits"}}), run / "config.yaml")
    before = sorted(path.read_bytes() for path in run.iterdir())
    new = ["--dataset", "digits", "--out", str(run)]
    for arguments in (["--resume", str(run)], [*new, "--overwrite"], [*new, "--resume"], new):
        assert cli.main(["train", *arguments]) == 1
        err = capsys.readouterr().err
        assert f"lightnets: {run} is in use by process {holder.process.pid}" in err
        assert err.count("\n") == 1
    assert sorted(path.read_bytes() for path in run.iterdir()) == before


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": "x"}', "\udcff"])
def test_a_file_that_nobody_locks_is_one_of_a_dead_job(text, tmp_path):
    lock = tmp_path / run_lock.NAME
    lock.write_text(text, errors="surrogateescape")
    with lock.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="in use by another process"):
            taken(tmp_path)
    assert taken(tmp_path) == os.getpid()


def test_a_file_that_its_owner_removes_is_no_lock(tmp_path, monkeypatch):
    """Caught: two jobs, each with the lock of another file of this name."""
    lock, times = tmp_path / run_lock.NAME, []

    def first_removed(file, kind):
        if not times:
            lock.unlink()
        times.append(flock(file, kind))

    flock = fcntl.flock
    monkeypatch.setattr(run_lock.fcntl, "flock", first_removed)
    with run_lock.held(tmp_path):
        assert len(times) == 2
        assert json.loads(lock.read_text())["pid"] == os.getpid()


def test_storage_without_locks_is_named(tmp_path, monkeypatch, capsys):
    def flock(file, kind):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(run_lock.fcntl, "flock", flock)
    assert taken(tmp_path) == os.getpid()
    assert "cannot be locked (No locks available)" in capsys.readouterr().out


def look(folder):
    def alive():
        owner = json.loads((folder / run_lock.NAME).read_text())
        assert owner["pid"] == os.getpid()

    toy.run(toy.config(), folder, at_step=(2, alive))


def test_a_run_holds_its_folder_until_its_end(tmp_path):
    processes.call(look, tmp_path / "run")
    assert not (tmp_path / "run" / run_lock.NAME).exists()
    assert (tmp_path / "run" / "results.json").exists()


def test_a_lock_does_not_need_tensorflow():
    code = "import sys; from lightnets.run import run_lock; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
