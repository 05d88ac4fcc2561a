"""A file that is damaged in the middle of a run is named, and the last checkpoint stays."""

from __future__ import annotations

import collections
import dataclasses
import os
import pathlib

import numpy as np
import pytest
import tensorflow as tf

import lightnets.data
from lightnets.config import keys as configuration
from lightnets.data import failures
from lightnets.data.sources import order
from lightnets.run import build, train, training
from lightnets.support.errors import UserError
from tests import processes, toy


@pytest.fixture
def pictures(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    for split, count in (("train", 40), ("val", 8)):
        toy.noise_files(tmp_path / "pictures" / split, count, "abcd", ".jpg", rng)
    return tmp_path / "pictures"


def damage_while_training(dataset, victim, out, replicas):
    """Trains the toy network on pictures; after the first epoch a file becomes damaged."""
    os.environ["XDG_CACHE_HOME"] = str(out.parent / "cache")
    build.build_model = toy.build_model
    toy.SIDE = 16
    take_steps = training.Training.take_steps

    def watched(self, *arguments):
        if int(self.state.step.numpy()) >= 12:
            victim.write_bytes(victim.read_bytes()[:100])
        return take_steps(self, *arguments)

    training.Training.take_steps = watched
    values = {"batch_size": 4, "epochs": 4, "devices": f"cpu:{replicas}", "steps_per_execution": 3}
    config = configuration.from_dict(
        {
            "model": {"image_size": 16},
            "data": {"dataset": str(dataset)},
            "train": values,
        }
    )
    out.mkdir()
    return train.train(config, pathlib.Path(out))


@pytest.mark.slow
def test_of_all_damaged_images_those_of_the_step_are_named(pictures):
    """Caught: looking at the images of another step, or only at those of training."""
    data = {"dataset": str(pictures)}
    splits = lightnets.data.load(
        configuration.from_dict({"model": {"image_size": 16}, "data": data})
    )
    batches = iter(splits.train(12, global_batch=4))
    for path in pictures.glob("train/*/*.jpg"):
        path.write_bytes(b"no picture")

    def explained():
        return failures.explain(splits, global_batch=4, steps=lambda: range(17, 19))

    with pytest.raises(UserError, match=r"4 images of .* cannot be read") as error, explained():
        collections.deque(batches, maxlen=0)
    positions = order.step_positions(
        tf.constant(17, tf.int64), examples=40, global_batch=4, seed=0, shard=0, shards=1
    )
    named = str(error.value).partition("(")[2].partition(")")[0].split("; ")
    assert named == [
        f"{splits.train_source.name(at)}: it is no image of a known format"
        for at in sorted(positions.numpy())
    ]
    victim = next(pictures.glob("val/*/*.jpg"))
    victim.unlink()
    with pytest.raises(UserError, match=rf"\({victim}: there is no such file\)"):  # noqa: SIM117
        with failures.explain(splits, global_batch=4, steps=lambda: range(0)):
            collections.deque(splits.evaluation(4), maxlen=0)
    # Where nothing is wrong with the images, the error is another's.
    with pytest.raises(tf.errors.InvalidArgumentError), explained_nothing(splits):
        tf.debugging.assert_equal(1, 2)


def explained_nothing(splits):
    return failures.explain(
        dataclasses.replace(splits, eval_source=splits.eval_source.subset(np.arange(1, 2))),
        global_batch=4,
        steps=lambda: range(0),
    )


@pytest.mark.parametrize(
    "replicas",
    [pytest.param(1, marks=pytest.mark.nightly), pytest.param(2, marks=pytest.mark.slow)],
)
def test_a_file_damaged_in_the_middle_of_training_is_named(pictures, tmp_path, replicas):
    """Caught: a traceback of TensorFlow, or no checkpoint left."""
    victim = pictures / "train" / "b" / "5.jpg"
    with pytest.raises(UserError, match=r"1 image of .* cannot be read") as error:
        processes.call(damage_while_training, pictures, victim, tmp_path / "run", replicas)
    assert f"{victim}: it is damaged or cut off" in str(error.value)
    assert str(error.value).count(".jpg") == 1
    assert "\n" not in str(error.value)
    assert tf.train.latest_checkpoint(str(tmp_path / "run" / "checkpoints"))


@pytest.mark.nightly
def test_a_file_damaged_before_an_evaluation_is_named(pictures, tmp_path):
    """Caught: only the training images being looked at."""
    victim = pictures / "val" / "b" / "5.jpg"
    with pytest.raises(UserError, match=rf"{victim}: it is damaged or cut off"):
        processes.call(damage_while_training, pictures, victim, tmp_path / "run", 1)
