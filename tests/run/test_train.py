"""`lightnets train` on the real data and a real network: stopped by SIGTERM and resumed."""

import json
import re
import signal
import subprocess
import sys

import pytest

from lightnets import cli
from tests.checkout import ROOT
from tests.processes import free_ports


def train(*arguments):
    """Starts a command of its own."""
    command = [sys.executable, "-u", "-m", "lightnets.cli", "train", *map(str, arguments)]
    return subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.slow
def test_sigterm_saves_prints_the_command_that_continues_and_it_does(tmp_path, capsys):
    keys = ["--dataset", "digits", "--image-size", "32", "--model", "mobilenet_v1_b_x0_25"]
    keys += ["--epochs", "2", "--set", "optimizer.warmup_epochs=1"]
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    first = train(*keys, "--out", whole)
    out, err = first.communicate(timeout=900)
    assert first.returncode == 0, err
    second = train(*keys, "--out", stopped)
    for line in second.stdout:
        if line.startswith("1/2 "):
            break
    second.send_signal(signal.SIGTERM)
    out, err = second.communicate(timeout=120)
    assert second.returncode == 143, err
    assert f"Continue with: lightnets train --resume {stopped}" in err
    assert "Traceback" not in err
    third = train("--resume", stopped)
    out, err = third.communicate(timeout=900)
    assert third.returncode == 0, err
    assert "Resuming after step" in out
    for name in ("history.csv", "history.json", "results.json", "per_class.csv", "predictions.csv"):
        assert (stopped / name).read_bytes() == (whole / name).read_bytes()
    assert cli.main(["compare", str(whole), str(stopped)]) == 0
    # The same answers, and the numbers of the network.
    assert re.search(r"whole .* best +0\.21 .*\n.*stopped .* 1 +0\.21 ", capsys.readouterr().out)
    assert len(json.loads((whole / "history.json").read_text())) == 2
    expected = {"curves.png", "confusion_matrix.png", "config.yaml", "environment.json"}
    expected.add("MODEL_CARD.md")
    assert expected <= {path.name for path in whole.iterdir()}
    assert {path.name for path in (whole / "weights").iterdir()} == {"best.keras", "last.keras"}


@pytest.mark.nightly
def test_two_workers_started_by_the_command_do_what_one_does(tmp_path):
    # Only the first worker writes the run and talks; both end without an error.
    keys = ["--dataset", "digits", "--image-size", "32", "--model", "mobilenet_v1_b_x0_25"]
    keys += ["--epochs", "1"]
    keys += ["--optimizer", "sgd", "--learning-rate", "0.01", "--set", "optimizer.warmup_epochs=0"]
    keys += ["--sync-bn", "--accumulate", "2", "--set", "optimizer.global_clipnorm=1"]
    addresses = ",".join(f"127.0.0.1:{port}" for port in free_ports(2))
    workers = [
        train(*keys, "--out", tmp_path / "run", "--workers", addresses, "--worker-index", index)
        for index in range(2)
    ]
    outputs = [worker.communicate(timeout=900) for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], outputs
    assert "\n1/1 " in outputs[0][0]
    assert outputs[1][0] == ""
    assert (tmp_path / "run" / "weights" / "best.keras").exists()
    alone = train(*keys, "--out", tmp_path / "alone")
    assert alone.communicate(timeout=900)[1] == ""
    (row,), (expected,) = (
        json.loads((tmp_path / name / "history.json").read_text()) for name in ("run", "alone")
    )
    # A network of 27 batch norms amplifies rounding: tests/run/test_replicas.py is exact.
    assert row["loss"] == pytest.approx(expected["loss"], rel=2e-3)
