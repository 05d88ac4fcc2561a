"""What ends a run before its last epoch, what goes on after it, and what is written besides."""

import importlib.util
import json
import os
import signal

import numpy as np
import pytest

from tests import processes, toy
from training import train
from training.errors import UserError
from training.interrupts import Interrupted


def be_told_to_stop():
    os.kill(os.getpid(), signal.SIGTERM)


def interrupted(config, out, step):
    """Runs until it is told to stop at a step."""
    with pytest.raises(Interrupted):
        processes.call(toy.run, config, out, at_step=(step, be_told_to_stop))


def test_a_run_goes_on_with_another_number_of_replicas(tmp_path):
    keys = {"sync_bn": True, "model__dropout_rate": 0.0, "ema": 0.9}
    processes.call(toy.run, toy.config(**keys), tmp_path / "whole")
    interrupted(toy.config(**keys), tmp_path / "moved", step=8)
    processes.call(toy.run, toy.config(**keys, devices="cpu:2"), tmp_path / "moved")
    whole, moved = (
        processes.call(toy.weights_of, tmp_path / name / "weights" / "last.keras")
        for name in ("whole", "moved")
    )
    for mine, theirs in zip(moved, whole, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-5)


def test_early_stopping_counts_on_over_a_resume(tmp_path):
    # Without learning no epoch after the first is better.
    keys = {"epochs": 8, "early_stopping_epochs": 2, "optimizer__learning_rate": 0.0}
    config = toy.config(**keys)
    results = processes.call(toy.run, config, tmp_path / "whole")
    assert results["stopped"] == "no better val_accuracy for 2 epochs"
    assert results["epochs"] == results["best_epoch"] + 2 < 8
    interrupted(config, tmp_path / "stopped", step=results["steps"] - 4)
    assert processes.call(toy.run, config, tmp_path / "stopped") == results
    # A history whose rows were repeated by the resume would differ.
    whole, stopped = (processes.call(toy.outcome, tmp_path / n) for n in ("whole", "stopped"))
    assert stopped == whole


def test_a_time_limit_saves_and_the_run_can_be_continued(tmp_path):
    limited = toy.config(time_limit_minutes=1e-6)
    results = processes.call(toy.run, limited, tmp_path / "limited")
    assert results["stopped"] == "time limit of 1e-06 minutes"
    assert results["steps"] == 1
    assert (tmp_path / "limited" / "weights" / "best.keras").exists()
    processes.call(toy.run, toy.config(), tmp_path / "limited")
    processes.call(toy.run, toy.config(), tmp_path / "whole")
    limited, whole = (processes.call(toy.outcome, tmp_path / n) for n in ("limited", "whole"))
    assert limited == whole


def dry(folder):
    os.chdir(folder)
    toy.install()
    return train.train(toy.config(tensorboard=True), None, dry_run=True)


def test_a_dry_run_writes_nothing(tmp_path):
    assert processes.call(dry, tmp_path)["step_seconds"] > 0
    assert not list(tmp_path.iterdir())


def without_tensorboard(out):
    find = importlib.util.find_spec
    importlib.util.find_spec = lambda name, *args: (
        None if name == "tensorboard" else find(name, *args)
    )
    toy.run(toy.config(tensorboard=True), out)


def test_tensorboard_that_is_not_installed_is_named_before_anything_is_written(tmp_path):
    with pytest.raises(UserError, match=r"needs the package tensorboard.*pip install tensorboard"):
        processes.call(without_tensorboard, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_tensorboard_gets_every_epoch(tmp_path):
    processes.call(toy.run, toy.config(tensorboard=True), tmp_path)
    (file,) = (tmp_path / "tensorboard").iterdir()
    rows = json.loads((tmp_path / "history.json").read_text())
    assert file.read_bytes().count(b"val_accuracy") >= len(rows) == 3


def take_all_memory():
    import tensorflow as tf

    tf.zeros((10**7, 10**7))


@pytest.mark.slow
def test_too_little_memory_is_explained(tmp_path):
    config = toy.config(accumulate=4)
    with pytest.raises(UserError, match=r"Out of memory .*Try train.accumulate=8 .* or train.rec"):
        processes.call(toy.run, config, tmp_path, at_step=(2, take_all_memory))


@pytest.mark.slow
def test_xla_changes_the_result_by_rounding_only(tmp_path):
    for jit in ("off", "on"):
        # Without dropout, whose masks XLA draws by another generator.
        config = toy.config(jit=jit, model__dropout_rate=0.0)
        processes.call(toy.run, config, tmp_path / jit)
    off, on = (
        processes.call(toy.weights_of, tmp_path / jit / "weights" / "last.keras")
        for jit in ("off", "on")
    )
    for mine, theirs in zip(on, off, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-4)
