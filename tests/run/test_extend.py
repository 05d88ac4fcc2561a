"""A finished run goes on: from its last state, with a new schedule, to the same bits."""

import json
import shutil
import types

import pytest

from lightnets import cli
from lightnets.config import keys as configs
from lightnets.run import loop
from lightnets.support import progress
from tests import processes, toy


def command(out, *arguments, die_at=None):
    """Does what the command does with the toy; returns its exit code, what is left and said."""
    lines = []
    progress.Progress.say = lambda self, text: lines.append(text)
    toy.install()
    if die_at:
        toy.call_at(*toy.death_at(die_at))
    code = cli.main(["train", "--resume", str(out), *arguments])
    return code, toy.outcome(out), lines


def refused(out, capfd):
    assert cli.main(["train", "--resume", str(out), "--extend", "2"]) == 1
    return capfd.readouterr().err


@pytest.mark.slow
def test_an_extended_run_is_exact_and_says_so(tmp_path, capfd):
    # Mutations: results of before the extension count as its own; the rate is not kept.
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    keys = {"ema": 0.9, "checkpoint_steps": 4, "early_stopping_epochs": 50}
    config = toy.config(data__dataset="quarters", model__image_size=32, **keys)
    processes.call(toy.run, config, whole)
    before = json.loads((whole / "history.json").read_text())
    shutil.copytree(whole, killed)
    extend = ("--extend", "2", "--learning-rate", "0.02")
    code, expected, lines = processes.call(command, whole, *extend)
    assert code == 0
    said = "Going on for 2 epochs after 3: a new schedule from optimizer.learning_rate=0.02."
    assert said in lines
    with pytest.raises(ChildProcessError):
        processes.call(command, killed, *extend, die_at=3)
    # It is no longer finished, whatever the results of before say.
    assert f"Finish it first: lightnets train --resume {killed}\n" in refused(killed, capfd)
    assert processes.call(command, killed)[:2] == (0, expected)
    after = json.loads((whole / "history.json").read_text())
    assert (after[:3], len(after)) == (before, 5)
    assert after[3]["learning_rate"] == pytest.approx(0.01)  # half of a cosine over two epochs
    saved = configs.from_dict(configs.load(whole / "config.yaml"))
    assert (saved.train.epochs, saved.optimizer.extensions) == (5, {"3": 0.02})
    assert saved.optimizer.learning_rate == config.optimizer.learning_rate


def test_patience_counts_anew_after_an_extension():
    def is_over(epoch, extensions, since_best):
        options = configs.from_dict({"train": {"epochs": 20, "early_stopping_epochs": 5}}).train
        config = configs.from_dict({"optimizer": {"extensions": extensions}})
        run = types.SimpleNamespace(options=options, epoch=epoch)
        run.training = types.SimpleNamespace(config=config)
        run.history = types.SimpleNamespace(epochs_since_best=since_best)
        return loop.Loop._is_over.fget(run)

    assert [is_over(12, {}, waited) for waited in (4, 5)] == [False, True]
    assert [is_over(epoch, {"10": 0.1}, 9) for epoch in (10, 14, 15)] == [False, False, True]
    assert is_over(20, {}, 0)
