"""Killed by SIGKILL at any moment and resumed, a run ends with the bits of one never killed."""

import concurrent.futures
import os
import random
import signal
import threading
import time

import pytest

from lightnets.run import checkpoint, history, loop, training
from tests import processes, toy

# All that keeps state: dropout, batch norm, momentum, average, accumulation, partial epochs.
EVERYTHING = {"accumulate": 2, "ema": 0.9, "checkpoint_steps": 4, "optimizer__global_clipnorm": 1.0}

STEPS, EPOCH_ENDS, CHECKPOINTS = range(18), (6, 12, 18), (4, 6, 8, 12, 16, 18)
# What happens in a run -> where it is done, the steps after which, how many of ten kills fall
# on it. Events of the same step happen in this order.
EVENTS = {
    "evaluation": (training.Training, "evaluate", EPOCH_ENDS, 2),
    "weights": (loop.Loop, "_save_weights", EPOCH_ENDS[:1], 1),
    "history": (history.History, "write", EPOCH_ENDS, 1),
    "checkpoint": (checkpoint.Checkpoints, "save", CHECKPOINTS, 2),
    "step": (training.Training, "take_steps", STEPS, 3),
    "results": (loop.Loop, "_finish", EPOCH_ENDS[-1:], 1),
}


def moments(seed):
    """Returns ten random moments, in the order of a run: (step, event, seconds after it began)."""
    chance = random.Random(seed)
    chosen = [
        (step, list(EVENTS).index(event), chance.uniform(0, 0.02))
        for event, (*_, steps, kills) in EVENTS.items()
        for step in chance.sample(steps, kills)
    ]
    return [(step, list(EVENTS)[number], delay) for step, number, delay in sorted(chosen)]


def dying(config, out, moment):
    """Trains, and sends itself SIGKILL at that moment."""
    killed_after, killed_in, delay = moment
    step = 0

    def kill():
        time.sleep(delay)
        os.kill(os.getpid(), signal.SIGKILL)

    def watch(event, owner, name):
        original = getattr(owner, name)

        def watched(self, *args):
            nonlocal step
            if owner is training.Training:
                step = int(self.state.step.numpy())
            # The end of the run comes in any case, also when this event was before the kill.
            if event == "results" or (event == killed_in and step >= killed_after):
                threading.Thread(target=kill, daemon=True).start()
            result = original(self, *args)
            if event == "step":
                step = int(self.state.step.numpy())
            return result

        setattr(owner, name, watched)

    for event, (owner, name, *_) in EVENTS.items():
        watch(event, owner, name)
    toy.run(config, out)


def survive(config, out, seed, every=1):
    """Runs to the end with ten kills on the way, or every second, third, ... of them."""
    for moment in moments(seed)[::every]:
        child = processes.Child(dying, config, out, moment)
        with pytest.raises(ChildProcessError):
            child.result()
        assert child.process.exitcode == -signal.SIGKILL
    processes.call(toy.run, config, out)
    return processes.call(toy.outcome, out)


def undisturbed(config, out):
    """Runs to the end and returns what it ended with."""
    processes.call(toy.run, config, out)
    return processes.call(toy.outcome, out)


# Ten kills on one device and ten on two, side by side; a hundred more at night.
@pytest.mark.parametrize(
    "seed",
    [
        pytest.param(0, marks=pytest.mark.slow),
        *(pytest.param(seed, marks=pytest.mark.nightly) for seed in range(1, 6)),
    ],
)
def test_killed_and_resumed_is_bit_identical(tmp_path, seed):
    one, two = (toy.config(devices=f"cpu:{devices}", **EVERYTHING) for devices in (1, 2))
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        killed_one = pool.submit(survive, one, tmp_path / "killed1", seed)
        killed_two = pool.submit(survive, two, tmp_path / "killed2", seed + 100)
        whole_one = pool.submit(undisturbed, one, tmp_path / "whole1").result()
        whole_two = pool.submit(undisturbed, two, tmp_path / "whole2").result()
    assert killed_one.result() == whole_one
    assert killed_two.result() == whole_two
    # The comparison can fail: dropout masks are those of the replica.
    assert whole_one["last.keras"] != whole_two["last.keras"]


# Two kills on one device; at night fifty, also on two.
@pytest.mark.parametrize(
    ("seed", "every"),
    [
        pytest.param(0, 5, marks=pytest.mark.slow),
        *(pytest.param(seed, 1, marks=pytest.mark.nightly) for seed in range(1, 6)),
    ],
)
def test_a_run_for_int8_resumes_too(tmp_path, seed, every):
    # Mutation: the ranges left out of what a checkpoint holds.
    config = toy.config(model__quantize="int8", devices=f"cpu:{1 + seed % 2}", **EVERYTHING)
    whole = undisturbed(config, tmp_path / "whole")
    assert survive(config, tmp_path / "killed", seed, every) == whole
