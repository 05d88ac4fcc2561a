"""What ends a run before its last epoch, what goes on after it, and what is written besides."""

import contextlib
import dataclasses
import importlib.util
import io
import json
import os
import signal
import types

import numpy as np
import pytest
import tensorflow as tf

from lightnets import tasks
from lightnets.config import keys as configs
from lightnets.distribution import strategy
from lightnets.evaluation import evaluator
from lightnets.run import directory, train
from lightnets.support import progress
from lightnets.support.errors import UsageError, UserError
from lightnets.support.interrupts import Interrupted
from tests import processes, toy


def be_told_to_stop():
    os.kill(os.getpid(), signal.SIGTERM)


def interrupted(config, out, step):
    """Runs until it is told to stop at a step."""
    with pytest.raises(Interrupted):
        processes.call(toy.run, config, out, at_step=(step, be_told_to_stop))


@pytest.mark.slow
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
    lines, results = processes.call(said, limited, tmp_path / "limited")
    again = f"Continue with: lightnets train --resume {tmp_path}/limited"
    assert f"Stopped: time limit of 1e-06 minutes. {again}" in lines
    assert results["stopped"] == "time limit of 1e-06 minutes"
    assert results["steps"] == 1
    assert (tmp_path / "limited" / "weights" / "best.keras").exists()
    about = tmp_path / "limited" / directory.ENVIRONMENT
    assert "seconds" not in json.loads(about.read_text()), "no epoch has ended"
    directory.note_seconds(about.parent, 1000)
    processes.call(toy.run, toy.config(), tmp_path / "limited")
    processes.call(toy.run, toy.config(), tmp_path / "whole")
    # Mutation: the time of this process alone.
    assert 1000 < directory.seconds(tmp_path / "limited") < 1900
    assert 0 < directory.seconds(tmp_path / "whole") < 900
    limited, whole = (processes.call(toy.outcome, tmp_path / n) for n in ("limited", "whole"))
    assert limited == whole


def said(config, out, **options):
    """Runs; returns what the user was told, and the results."""
    lines = []
    progress.Progress.say = lambda self, text: lines.append(text)
    results = toy.run(config, out, **options)
    return lines, results


def predicted(config, out):
    """Runs; returns how often the held-out images were predicted, and the results."""
    calls, predict = [], evaluator.Evaluator.predict
    evaluator.Evaluator.predict = lambda *args: calls.append(0) or predict(*args)
    results = toy.run(config, out)
    return len(calls), results


def test_the_end_of_a_run_predicts_only_what_was_not_predicted_before(tmp_path):
    # Mutation: not asking whether the best epoch is the last one.
    learning = toy.config(monitor="val_loss")
    standing = toy.config(optimizer__learning_rate=0.0)
    calls, results = processes.call(predicted, learning, tmp_path / "learning")
    assert (results["best_epoch"], calls) == (3, 3)
    # Of a run that is finished nothing is known but its files.
    assert processes.call(predicted, learning, tmp_path / "learning") == (1, results)
    calls, results = processes.call(predicted, standing, tmp_path / "standing")
    assert results["best_epoch"] < 3
    assert calls == 4
    assert processes.call(predicted, standing, tmp_path / "standing") == (2, results)


@pytest.mark.slow
def test_training_for_int8_never_loses_what_calibration_had(tmp_path):
    # Mutations: epoch 0 is no candidate, or a resume forgets it.
    harm = {"learning_rate": 20.0, "global_clipnorm": 1.0}
    config = toy.config(
        model__quantize="int8",
        monitor="val_loss",
        **{f"optimizer__{key}": value for key, value in harm.items()},
    )
    lines, results = processes.call(said, config, tmp_path / "whole")
    (line,) = [line for line in lines if line.startswith("Held out, before training:")]
    assert f"loss {results['loss']:.4f}" in line
    assert results["best_epoch"] == 0
    assert results["last"]["loss"] > 2 * results["loss"]
    rows = json.loads((tmp_path / "whole" / "history.json").read_text())
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    interrupted(config, tmp_path / "stopped", step=4)
    processes.call(toy.run, config, tmp_path / "stopped")
    whole, stopped = (processes.call(toy.outcome, tmp_path / n) for n in ("whole", "stopped"))
    assert stopped == whole


def test_a_batch_larger_than_the_training_set_is_halved_until_it_fits(tmp_path):
    asked, fits = toy.config(batch_size=64), toy.config(batch_size=8)
    images = {"train_examples": 12}
    lines, _ = processes.call(said, asked, tmp_path / "asked", **images)
    assert any("batch 8 (not 64: there are fewer images) on" in line for line in lines)
    lines, _ = processes.call(said, fits, tmp_path / "fits", **images)
    assert any("batch 8 on" in line for line in lines)
    found, expected = (processes.call(toy.outcome, tmp_path / name) for name in ("asked", "fits"))
    assert found == expected
    # What was asked for is what a resume compares with.
    assert configs.load(tmp_path / "asked" / "config.yaml")["train"]["batch_size"] == 64
    lines, _ = processes.call(said, asked, tmp_path / "asked", **images)
    (finished,) = (line for line in lines if line.startswith("The run is finished."))
    assert f"lightnets train --resume {tmp_path}/asked --extend 3" in finished
    with pytest.raises(UsageError, match=r"batch_size \(=10\) must be .* There are 12 training im"):
        processes.call(toy.run, toy.config(batch_size=20, accumulate=4), tmp_path / "odd", **images)


def test_a_loss_that_does_not_move_is_said_once_with_what_to_try(tmp_path):
    def warnings(**keys):
        lines, _ = processes.call(said, toy.config(**keys), tmp_path / str(len(keys)))
        return [line for line in lines if "has not moved" in line]

    assert not warnings()
    (line,) = warnings(optimizer__learning_rate=1e-9, label_smoothing=0.1, epochs=5)
    assert "try --set optimizer.learning_rate=1e-10 (now 1e-09)" in line
    assert "lightnets data show" in line
    # Eighteen steps: no network learns much in them.
    assert not warnings(optimizer__learning_rate=1e-9)


def test_a_random_backbone_that_does_not_learn_is_said(tmp_path):
    def warned(**keys):
        lines, _ = processes.call(said, toy.config(**keys), tmp_path / str(len(keys)))
        return [line for line in lines if line.startswith("Warning:")]

    (line,) = warned(epochs=1)
    assert line.startswith("Warning: Batch norm's moving statistics need more than these")
    # Mutation: the statistics of layers that never learn were said to need more steps, too.
    (line,) = warned(epochs=1, model__freeze="backbone")
    assert line.startswith("Warning: the backbone has random weights and does not learn")


def stopped_at_its_report(folder):
    # As at a terminal: what a script starts in the background ignores it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    lines = []
    progress.Progress.say = lambda self, text: lines.append(text)
    toy.install()
    tasks.Classification.write_page = lambda *_: os.kill(os.getpid(), signal.SIGINT)
    with pytest.raises((Interrupted, KeyboardInterrupt)) as told:
        train.train(toy.config(), folder)
    return lines[-1], str(told.value), told.value.exit_code


def test_numbers_come_before_the_report_which_can_be_left_out(tmp_path):
    # Mutation: the report within the context that lets a step end first. Ctrl-C then did nothing.
    run = tmp_path / "run"
    line, told, code = processes.call(stopped_at_its_report, run)
    results = json.loads((run / "results.json").read_text())
    assert line == f"Held out: accuracy {results['accuracy']:.4f}, loss {results['loss']:.4f}"
    assert told.endswith(
        f"finished but for its report. To write it: lightnets train --resume {run}"
    )
    assert code == 130
    assert not (run / "MODEL_CARD.md").exists()
    processes.call(toy.run, toy.config(), run)
    assert (run / "MODEL_CARD.md").exists()


def dry(folder):
    os.chdir(folder)
    toy.install()
    return train.train(toy.config(tensorboard=True), None)


def test_a_dry_run_writes_nothing(tmp_path):
    assert processes.call(dry, tmp_path)["step_seconds"] > 0
    assert not list(tmp_path.iterdir())


def dry_on_digits(folder):
    os.environ["XDG_CACHE_HOME"] = str(folder)
    values = {
        "model": {"name": "squeezenet_v1_1", "image_size": 32},
        "data": {"dataset": "digits"},
        "train": {"batch_size": 2, "devices": "cpu:1"},
    }
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        train.train(configs.from_dict(values), None)
    return output.getvalue().splitlines()


@pytest.mark.slow
def test_a_dry_run_says_what_it_prepared(tmp_path):
    lines = processes.call(dry_on_digits, tmp_path)
    (folder,) = (path.parent for path in tmp_path.glob("**/dataset_info.json"))
    assert lines[-2:] == [f"Prepared {folder}, which a run will use.", "No run was written."]


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


@pytest.mark.parametrize(
    ("words", "explained"),
    [
        ("Failed to create cuDNN handle: CUDNN_STATUS_ALLOC_FAILED", True),
        ("cuBLAS: CUBLAS_STATUS_ALLOC_FAILED: the resource allocation failed", True),
        ("failed to allocate 32.00M: CUDA_ERROR_OUT_OF_MEMORY: out of memory", True),
        ("Failed to load the CUDA driver", False),
    ],
)
def test_libraries_of_gpus_that_get_no_memory_are_explained(monkeypatch, words, explained):
    def fail(*_, **__):
        raise tf.errors.InternalError(None, None, words)

    monkeypatch.setattr(train, "Training", fail)
    kind, message = (UserError, "Out of memory") if explained else (tf.errors.InternalError, words)
    with pytest.raises(kind, match=message):
        train.train(toy.config(), None)


@pytest.mark.parametrize(
    ("batch", "replicas", "accumulate", "advised"),
    [(24, 1, 1, 2), (24, 1, 4, 6), (24, 4, 1, 2), (24, 4, 2, 3), (24, 4, 3, 6), (24, 4, 6, None)],
)
def test_the_advised_parts_divide_the_share_of_a_replica(batch, replicas, accumulate, advised):
    config = toy.config(batch_size=batch, accumulate=accumulate)
    training = types.SimpleNamespace(config=config, replicas=replicas)
    message = train._how_to_save_memory(config, training)
    if advised is None:
        assert "Try train.recompute=true" in message
        return
    assert f"Try train.accumulate={advised} (same result)" in message
    strategy.check_batch(dataclasses.replace(config.train, accumulate=advised), replicas)


def take_all_memory():
    tf.zeros((10**7, 10**7))


@pytest.mark.slow
def test_too_little_memory_is_explained(tmp_path):
    config = toy.config(accumulate=4)
    with pytest.raises(UserError, match=r"Out of memory .*Try train.accumulate=8 .* or train.rec"):
        processes.call(toy.run, config, tmp_path, at_step=(2, take_all_memory))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("devices", "keys"), [("cpu:1", {"optimizer__name": "muon", "ema": 0.9}), ("cpu:2", {})]
)
def test_xla_changes_the_result_by_rounding_only(tmp_path, devices, keys):
    for jit in ("off", "on"):
        # Without dropout, whose masks XLA draws by another generator.
        config = toy.config(jit=jit, devices=devices, model__dropout_rate=0.0, **keys)
        processes.call(toy.run, config, tmp_path / jit)
    off, on = (
        processes.call(toy.weights_of, tmp_path / jit / "weights" / "last.keras")
        for jit in ("off", "on")
    )
    for mine, theirs in zip(on, off, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-4)
