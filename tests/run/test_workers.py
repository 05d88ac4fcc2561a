"""Several worker processes: how they are named, what happens when one dies or is told to stop."""

import argparse
import json
import os
import signal
import time

import numpy as np
import pytest

from lightnets.config import resolve
from lightnets.run import training
from lightnets.support.errors import UserError
from lightnets.support.interrupts import Interrupted
from tests import processes, toy

KEYS = {"checkpoint_steps": 4, "ema": 0.9}


def start(out, at_step=(None, None), **keys):
    """Starts workers; `at_step[i]` is worker i's `at_step` of `toy.run`."""
    addresses = ",".join(f"127.0.0.1:{port}" for port in processes.free_ports(len(at_step)))
    return [
        processes.Child(
            toy.run,
            toy.config(**KEYS, workers=addresses, worker_index=index, **keys),
            out,
            at_step=told,
        )
        for index, told in enumerate(at_step)
    ]


def start_to_be_told_in_evaluation(out):
    """Starts two workers; the second one is told to stop in its second evaluation."""
    addresses = ",".join(f"127.0.0.1:{port}" for port in processes.free_ports(2))
    return [
        processes.Child(
            (toy.run, told_in_evaluation)[index],
            toy.config(**KEYS, workers=addresses, worker_index=index),
            out,
        )
        for index in range(2)
    ]


def told_in_evaluation(config, out):
    evaluations = iter(range(100))
    evaluate = training.Training.evaluate

    def watched(*args):
        if next(evaluations) == 1:
            be_told_to_stop()
        return evaluate(*args)

    training.Training.evaluate = watched
    toy.run(config, out)


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def freeze():
    os.kill(os.getpid(), signal.SIGSTOP)


def be_told_to_stop():
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """What two workers end with when nothing happens."""
    out = tmp_path_factory.mktemp("workers") / "whole"
    for child in start(out):
        child.result()
    return processes.call(toy.outcome, out)


@pytest.mark.parametrize(
    "victim",
    [pytest.param(0, marks=pytest.mark.slow), pytest.param(1, marks=pytest.mark.nightly)],
)
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


@pytest.mark.slow
def test_a_worker_told_to_stop_stops_all_after_saving(tmp_path, whole):
    out = tmp_path / "run"
    for child in start(out, at_step=(None, (9, be_told_to_stop))):
        with pytest.raises(Interrupted, match=r"saved after step 11.*--resume.*--workers 127"):
            child.result()
    for child in start(out):
        child.result()
    assert processes.call(toy.outcome, out) == whole


@pytest.mark.slow
def test_a_worker_told_to_stop_in_evaluation_stops_all_there(tmp_path, whole):
    # Catches workers that go on to the next step, or to the end, before they stop.
    out = tmp_path / "run"
    for child in start_to_be_told_in_evaluation(out):
        with pytest.raises(Interrupted, match=r"saved after step 12\."):
            child.result()
    assert len(json.loads((out / "history.json").read_text())) == 1
    for child in start(out):
        child.result()
    assert processes.call(toy.outcome, out) == whole


@pytest.mark.parametrize(
    "victim",
    [pytest.param(0, marks=pytest.mark.slow), pytest.param(1, marks=pytest.mark.nightly)],
)
def test_a_frozen_worker_ends_the_other(tmp_path, whole, victim):
    out = tmp_path / "run"
    at_step = [None, None]
    at_step[victim] = (9, freeze)
    children = start(out, at_step)
    try:
        with pytest.raises(UserError, match=r"lost contact.*--resume"):
            # Including the ten seconds to step 9.
            children[1 - victim].result(timeout=70)
    finally:
        children[victim].kill()
    for child in start(out):
        child.result()
    assert processes.call(toy.outcome, out) == whole


EXACT = {"sync_bn": True, "model__dropout_rate": 0.0}


def stopped_alone(out):
    """Resumes a run without naming workers, and is told to stop."""
    parser = argparse.ArgumentParser()
    resolve.add_arguments(parser)
    resolve.validate = lambda config: None  # the toy is smaller than any network
    config = resolve.resolve_resumed(parser.parse_args([]), out)
    toy.run(config, out, at_step=(5, be_told_to_stop))


@pytest.mark.slow
def test_a_run_goes_on_with_fewer_and_with_more_workers(tmp_path):
    processes.call(toy.run, toy.config(**KEYS, **EXACT), tmp_path / "whole")
    out = tmp_path / "run"
    for child in start(out, at_step=(None, (3, be_told_to_stop)), **EXACT):
        with pytest.raises(Interrupted):
            child.result()
    with pytest.raises(
        Interrupted, match=r"after step 11\. Continue with: \S+ train --resume \S+$"
    ):
        processes.call(stopped_alone, out)
    for child in start(out, at_step=[None] * 4, **EXACT):
        child.result()
    whole, moved = (
        processes.call(toy.weights_of, folder / "weights" / "last.keras")
        for folder in (tmp_path / "whole", out)
    )
    for mine, theirs in zip(moved, whole, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-5)
