"""Killed by SIGKILL at any moment and resumed, a run ends with the bits of one never killed."""

import os
import random
import signal
import threading
import time

import pytest

from tests import processes, toy
from training import checkpoint, history, judge, loop, trainer

# All that keeps state: dropout, batch norm, momentum, average, accumulation, partial epochs.
EVERYTHING = {"accumulate": 2, "ema": 0.9, "checkpoint_steps": 4, "optimizer__global_clipnorm": 1.0}


def dying(config, out, event, delay):
    """Trains, and sends itself SIGKILL `delay` seconds after the event of that number."""
    events = iter(range(10**9))

    def count():
        if next(events) == event:
            threading.Thread(target=kill, daemon=True).start()

    def kill():
        time.sleep(delay)
        os.kill(os.getpid(), signal.SIGKILL)

    def counting(owner, name):
        original = getattr(owner, name)

        def counted(*args, **kwargs):
            count()
            return original(*args, **kwargs)

        setattr(owner, name, counted)

    counting(trainer.Trainer, "take_steps")
    counting(checkpoint.Checkpoints, "save")
    counting(history.History, "write")
    counting(judge.Judge, "save")
    counting(loop.scoring, "score")
    toy.run(config, out)
    return next(events)


def survive(config, out, kills, seed):
    """Runs to the end with so many kills on the way; returns how many there were."""
    chance = random.Random(seed)
    killed = 0
    while True:
        event = chance.randrange(4 if killed < kills - 2 else 20) if killed < kills else -1
        child = processes.Child(dying, config, out, event, chance.uniform(0, 0.02))
        try:
            child.result()
            return killed
        except ChildProcessError:
            assert child.process.exitcode == -signal.SIGKILL
            killed += 1


@pytest.mark.parametrize(
    ("devices", "kills"),
    [
        (1, 6),
        (2, 4),
        pytest.param(1, 60, marks=pytest.mark.slow),
        pytest.param(2, 40, marks=pytest.mark.slow),
    ],
)
def test_killed_and_resumed_is_bit_identical(tmp_path, devices, kills):
    config = toy.config(devices=f"cpu:{devices}", **EVERYTHING)
    processes.call(toy.run, config, tmp_path / "whole")
    assert survive(config, tmp_path / "killed", kills, seed=devices) == kills
    whole = processes.call(toy.outcome, tmp_path / "whole")
    killed = processes.call(toy.outcome, tmp_path / "killed")
    assert killed == whole
    # The comparison can fail: another seed gives other bits.
    other = toy.config(devices=f"cpu:{devices}", **EVERYTHING | {"seed": 4})
    processes.call(toy.run, other, tmp_path / "other")
    assert processes.call(toy.outcome, tmp_path / "other")["last.keras"] != whole["last.keras"]
