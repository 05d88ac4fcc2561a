"""Several worker processes: how they are named, what happens when one dies or is told to stop."""

import os
import signal
import time

import pytest

from tests import processes, toy
from training.errors import UserError
from training.interrupts import Interrupted

KEYS = {"checkpoint_steps": 4, "ema": 0.9}


def start(out, at_step=(None, None), **splits):
    """Starts two workers; `at_step[i]` is worker i's `at_step` of `toy.run`."""
    addresses = ",".join(f"127.0.0.1:{port}" for port in processes.free_ports(2))
    return [
        processes.Child(
            toy.run,
            toy.config(**KEYS, workers=addresses, worker_index=index, **splits),
            out,
            at_step=at_step[index],
        )
        for index in range(2)
    ]


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def be_told_to_stop():
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """What two workers end with when nothing happens."""
    out = tmp_path_factory.mktemp("workers") / "whole"
    for child in start(out):
        child.result()
    return processes.call(toy.outcome, out)


@pytest.mark.parametrize("victim", [pytest.param(0, marks=pytest.mark.slow), 1])
def test_a_killed_worker_ends_the_other_and_all_can_be_restarted(tmp_path, whole, victim):
    out = tmp_path / "run"
    at_step = [None, None]
    at_step[victim] = (9, die)
    children = start(out, at_step)
    children[victim].process.join()
    died = time.monotonic()
    with pytest.raises(UserError, match=r"lost contact.*--resume"):
        children[1 - victim].result(timeout=60)
    assert time.monotonic() - died < 60
    for child in start(out):
        child.result()
    assert processes.call(toy.outcome, out) == whole


def test_a_worker_told_to_stop_stops_all_after_saving(tmp_path, whole):
    out = tmp_path / "run"
    for child in start(out, at_step=(None, (9, be_told_to_stop))):
        with pytest.raises(Interrupted, match=r"saved after step 11.*--resume"):
            child.result()
    for child in start(out):
        child.result()
    assert processes.call(toy.outcome, out) == whole
