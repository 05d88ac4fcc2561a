"""A run directory belongs to one live job, on this machine or any other."""

import json
import os
import signal
import subprocess
import sys
import threading

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


def test_a_number_that_another_process_has_now_is_no_owner(tmp_path, holder):
    lock = tmp_path / "run" / run_lock.NAME
    owner = json.loads(lock.read_text())
    lock.write_text(json.dumps({**owner, "started": owner["started"] - 1000}))
    assert taken(tmp_path / "run") == os.getpid()


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


def elsewhere(folder, **values):
    """Writes the lock of a process of another machine."""
    folder.mkdir()
    lock = folder / run_lock.NAME
    lock.write_text(json.dumps({"host": "far", "machine": "far", "pid": os.getpid(), **values}))
    return lock


def test_a_job_on_another_machine_lives_as_long_as_it_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(run_lock, "BEAT", 0.2)
    monkeypatch.setattr(run_lock, "PATIENCE", 60)
    lock = elsewhere(tmp_path / "run")
    done = threading.Event()

    def beat():
        while not done.wait(0.05):
            os.utime(lock)

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        with pytest.raises(UserError, match=f"in use by process {os.getpid()} on far"):
            taken(lock.parent)
    finally:
        done.set()
        thread.join()
    monkeypatch.setattr(run_lock, "PATIENCE", 0.2)
    assert taken(lock.parent) == os.getpid()
    assert "waiting up to 0 s for a sign of life" in capsys.readouterr().out


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": "x"}', "\udcff"])
def test_a_damaged_lock_is_one_of_a_dead_job(text, tmp_path, monkeypatch):
    monkeypatch.setattr(run_lock, "PATIENCE", 0.01)
    (tmp_path / run_lock.NAME).write_text(text, errors="surrogateescape")
    assert taken(tmp_path) == os.getpid()


def overtaken(folder):
    run_lock.BEAT = 0.01
    with run_lock.held(folder):
        (folder / run_lock.NAME).write_text("{}")
        threading.Event().wait(60)


def test_a_job_whose_run_was_taken_over_ends(tmp_path):
    child = processes.Child(overtaken, tmp_path)
    with pytest.raises(ChildProcessError, match="exit code 1"):
        child.result()
    assert (tmp_path / run_lock.NAME).read_text() == "{}"


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
