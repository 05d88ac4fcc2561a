"""Damaged image files through check, predict and training: all named, none fatal."""

from __future__ import annotations

import resource
import types

import numpy as np
import pytest
from test_preprocessing import FILES, declare

import training.data
from keras_lightnets.preprocessing import EvalTransform
from training import config as configuration
from training.commands import predict
from training.data import check
from training.data.load import open_dataset

KINDS = tuple(FILES)
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
        height, width = (int(side) for side in rng.integers(1, 2**14, 2))
        contents = declare(DECLARING[rng.integers(len(DECLARING))], width, height)
    else:
        at = rng.integers(0, len(contents))
        size = min(int(rng.integers(1, 4096)), len(contents) - at)
        contents[at : at + size] = bytes(size)
    return bytes(contents)


@pytest.mark.parametrize("count", [150, pytest.param(2000, marks=pytest.mark.slow)])
def test_no_damage_is_fatal_and_all_of_it_is_named(count, tmp_path, monkeypatch):
    """Caught: a decoder that crashes or allocates what a header says; check and predict differ."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    rng = np.random.default_rng(7)
    paths = []
    for number in range(count):
        path = tmp_path / "pictures" / "ab"[number // 5 % 2] / f"{number:04}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(mutate(rng, number))
        paths.append(path)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    data = {"dataset": str(tmp_path / "pictures"), "skip_corrupt": True}
    config = configuration.from_dict({"model": {"image_size": 32}, "data": data})
    source = open_dataset(config).train
    named = {source.name(at): reason for at, reason in check.find_damaged(source).items()}
    assert count / 3 < len(named) < count

    artifact = types.SimpleNamespace(
        transform=EvalTransform((32, 32), 36), predict=lambda images: np.zeros((len(images), 2))
    )
    answers = dict(predict.predictions(artifact, paths, 32))
    refused = {str(path): answer for path, answer in answers.items() if isinstance(answer, str)}
    assert refused == named

    splits = training.data.load(config, checked=True)
    assert splits.excluded == named
    assert splits.train_examples + splits.eval_examples == count - len(named)
    batch = 8
    for images, _, _ in splits.train(global_batch=batch).take(-(-splits.train_examples // batch)):
        assert images.shape == (batch, 32, 32, 3)
    # One image of the largest size allowed is 400 MB as bytes and as much again while it is read.
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**20
    assert grown < 6, f"memory grew by {grown:.1f} GiB"
