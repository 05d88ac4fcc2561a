"""Damaged image files through check, predict and training: all named, none fatal."""

from __future__ import annotations

import json
import pathlib
import re
import resource
import subprocess
import sys
import types

import numpy as np
import pytest

import lightnets.data
from keras_lightnets.export.answers import Answer
from keras_lightnets.preprocessing import EvalTransform
from lightnets.commands import predict
from lightnets.config import keys as configuration
from lightnets.data import check
from lightnets.data.load import open_dataset
from tests.image_files import FILES, declare

KINDS = tuple(FILES)
FILES_OF_COMMANDS = 400
DECLARING = ("jpeg", "png", "gif", "bmp", "webp", "webp lossless")


def mutate(rng: np.random.Generator, number: int) -> bytes:
    """Returns a damaged file; the damage goes by turns through what disks and networks do."""
    contents = bytearray(FILES[KINDS[rng.integers(len(KINDS))]])
    damage = number % 5
    if damage == 0:
        for at in rng.integers(0, len(contents), rng.integers(1, 20)):
            contents[at] ^= 1 << rng.integers(8)
    elif damage == 1:
        del contents[rng.integers(0, len(contents)) :]
    elif damage == 2:
        other = FILES[KINDS[rng.integers(len(KINDS))]]
        size = rng.integers(2, 64)
        contents[:size] = other[:size]
    elif damage == 3:
        # Of every order of magnitude: a decoder fills what a header declares.
        height, width = (int(2**power) for power in rng.uniform(0, 14, 2))
        contents = declare(DECLARING[rng.integers(len(DECLARING))], width, height)
    else:
        at = rng.integers(0, len(contents))
        size = min(int(rng.integers(1, 4096)), len(contents) - at)
        contents[at : at + size] = bytes(size)
    return bytes(contents)


def write_damaged(folder: pathlib.Path, count: int) -> list[pathlib.Path]:
    """Writes damaged files of two classes."""
    rng = np.random.default_rng(7)
    paths = []
    for number in range(count):
        path = folder / "ab"[number // 5 % 2] / f"{number:04}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(mutate(rng, number))
        paths.append(path)
    return paths


@pytest.mark.parametrize("count", [60, pytest.param(1000, marks=pytest.mark.nightly)])
def test_no_damage_is_fatal_and_all_of_it_is_named(count, tmp_path, monkeypatch):
    """Caught: a decoder that crashes or allocates what a header says; check and predict differ."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    paths = write_damaged(tmp_path / "pictures", count)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    data = {"dataset": str(tmp_path / "pictures"), "skip_corrupt": True}
    config = configuration.from_dict({"model": {"image_size": 32}, "data": data})
    source = open_dataset(config).train
    named = {source.name(at): reason for at, reason in check.find_damaged(source).items()}
    assert count / 3 < len(named) < count

    artifact = types.SimpleNamespace(
        transform=EvalTransform((32, 32), 36),
        answer=lambda images: Answer(np.zeros((len(images), 2))),
    )
    answers = dict(predict.predictions(artifact, paths, 32))
    refused = {str(path): answer for path, answer in answers.items() if isinstance(answer, str)}
    assert refused == named

    splits = lightnets.data.load(config, checked=True)
    assert splits.excluded == named
    assert splits.train_examples + splits.eval_examples == count - len(named)
    batch = 8
    for images, _, _ in splits.train(global_batch=batch).take(-(-splits.train_examples // batch)):
        assert images.shape == (batch, 32, 32, 3)
    # One image of the largest size allowed is 400 MB as bytes and as much again while it is read.
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**20
    assert grown < 6, f"memory grew by {grown:.1f} GiB"


@pytest.mark.nightly
def test_the_commands_survive_damaged_files(tmp_path, monkeypatch):
    """Caught: a command that crashes, hangs, leaves one unnamed, or takes memory without end."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder, run = tmp_path / "pictures", tmp_path / "run"
    write_damaged(folder, FILES_OF_COMMANDS)

    def lightnets(*arguments):
        command = [sys.executable, "-m", "lightnets.cli", *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=1200)
        assert "Traceback" not in done.stderr
        return done

    checked = lightnets("data", "check", folder, "--json")
    assert checked.returncode == 1
    damaged = json.loads(checked.stdout)["splits"]["train"]["damaged"]
    assert FILES_OF_COMMANDS / 3 < len(damaged) < FILES_OF_COMMANDS

    flags = ["--dataset", folder, "--out", run, "--image-size", "32", "--epochs", "1"]
    flags += ["--model", "mobilenet_v2_trunc_x0_25", "--recipe", "scratch-small"]
    refused = lightnets("train", *flags)
    assert refused.returncode == 1
    assert f"{len(damaged)} images of {folder} cannot be read" in refused.stderr
    trained = lightnets("train", *flags, "--batch-size", "32", "--skip-corrupt")
    assert trained.returncode == 0, trained.stderr
    assert f"Training without {len(damaged)} images" in trained.stdout
    excluded = json.loads((run / "split.json").read_text())["excluded"]
    assert {str(folder / name): reason for name, reason in excluded.items()} == damaged

    predicted = lightnets("predict", run, folder, "--format", "csv")
    assert predicted.returncode == 1
    found = re.findall(r"^lightnets: (\S+\.jpg): (.*)$", predicted.stderr, re.MULTILINE)
    assert dict(found) == damaged
    # Of the largest of these processes: two images of the largest size allowed, and TensorFlow.
    grown = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    assert grown < 6, f"a command took {grown:.1f} GiB"
