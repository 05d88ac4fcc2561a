"""A tiny network and data set for tests of the training engine: milliseconds a step."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import os
import pathlib
import signal
import types

import keras
import numpy as np
import tensorflow as tf
from PIL import Image

from keras_lightnets.layers import FusedBatchNormalization
from keras_lightnets.preprocessing import EvalTransform
from lightnets import data, tasks
from lightnets.config import keys as configs
from lightnets.run import build, loop, train, training

SIDE, CLASSES = 8, 4


@dataclasses.dataclass
class ToySplits:
    """The contract of `lightnets.data.Splits`, computed: the class is the brightest quarter."""

    seed: int
    train_examples: int = 48
    eval_examples: int = 22
    heavy_step: int = -1
    config: configs.Config | None = None

    order = "computed"
    dataset = None
    labels = tuple(f"quarter{number}" for number in range(CLASSES))
    transform = EvalTransform((SIDE, SIDE))
    train_source = eval_source = types.SimpleNamespace(
        read_labels=lambda: np.eye(CLASSES, dtype="float32")
    )

    @property
    def epoch_examples(self):
        return self.train_examples

    def train(self, start_step, *, global_batch, shard=0, shards=1):
        size = global_batch // shards

        def batch(step):
            seeds = tf.random.experimental.stateless_fold_in([self.seed, 1], step)
            images, labels = _examples(seeds, global_batch)
            mine = slice(shard * size, (shard + 1) * size)
            # In one step the second half of the batch weighs so much that its gradient
            # leaves the range of float16, but not that of float32.
            heavy = tf.equal(step, self.heavy_step) & (tf.range(global_batch) >= global_batch // 2)
            weights = tf.where(heavy, 1e4, 1.0)
            return images[mine], labels[mine], weights[mine]

        return tf.data.Dataset.range(start_step, 2**40).map(batch)

    def save(self, path):
        pass

    def describe(self):
        return "brightest quarters"

    def evaluation(self, global_batch, shard=0, shards=1):
        images, labels = _examples(tf.constant([7, 7]), self.eval_examples)
        batches = -(-self.eval_examples // global_batch)
        padding = batches * global_batch - self.eval_examples
        images = tf.pad(images, [[0, padding], [0, 0], [0, 0], [0, 0]])
        labels = tf.pad(labels, [[0, padding], [0, 0]])
        weights = tf.pad(tf.ones((self.eval_examples,)), [[0, padding]])
        size = global_batch // shards
        batches = tf.data.Dataset.from_tensor_slices((images, labels, weights)).batch(size)
        return batches.shard(shards, shard)


def noise_files(folder, count, classes, suffix=".png", rng=None):
    """Writes images of noise, 24 pixels wide and 20 high, into a folder per class."""
    rng = rng or np.random.default_rng(0)
    for number in range(count):
        path = folder / classes[number % len(classes)] / f"{number}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (20, 24, 3), np.uint8)).save(path)
    return folder


def _examples(seed, count):
    """Returns uint8 images `(count, SIDE, SIDE, 3)` and one-hot labels `(count, CLASSES)`."""
    classes = tf.random.stateless_uniform((count,), seed, 0, CLASSES, tf.int32)
    noise = tf.random.stateless_uniform((count, SIDE, SIDE, 3), seed + 1, 0, 150, tf.int32)
    half = SIDE // 2
    quarter = tf.reshape(tf.one_hot(classes, CLASSES), (count, 2, 2, 1))
    bright = tf.repeat(tf.repeat(quarter, half, axis=1), half, axis=2) * 100
    images = tf.cast(noise + tf.cast(bright, tf.int32), tf.uint8)
    return images, tf.one_hot(classes, CLASSES)


def build_model(config, splits):
    """Convolution, batch norm, dropout: all that keeps state."""
    x = inputs = keras.Input((SIDE, SIDE, 3), name="image")
    x = keras.layers.Rescaling(1 / 127.5, -1)(x)
    x = keras.layers.Conv2D(8, 3, use_bias=False, name="conv")(x)
    x = FusedBatchNormalization(momentum=config.model.bn_momentum, name="bn")(x)
    x = keras.layers.ReLU()(x)
    x = keras.layers.Flatten()(x)
    x = keras.layers.Dropout(config.model.dropout_rate or 0.0)(x)
    x = keras.layers.Dense(len(splits.labels), dtype="float32", name="logits")(x)
    outputs = keras.layers.Activation("softmax", dtype="float32", name="predictions")(x)
    return tasks.of_run(config, splits).finish(keras.Model(inputs, outputs))


def pooled_network(classes):
    """Returns a network of 32x32 images that ends as real ones do, not trained."""
    image = keras.Input((32, 32, 3))
    x = keras.layers.Conv2D(8, 5, strides=4, activation="relu")(image)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(image, keras.layers.Dense(classes, activation="softmax", name="logits")(x))


def config(**train_keys):
    """Returns a configuration: 3 epochs of 6 steps with 8 images; keys of other sections by dot."""
    values: dict = {
        "model": {"image_size": SIDE, "dropout_rate": 0.3, "bn_momentum": 0.7},
        "optimizer": {"learning_rate": 0.05},
        "train": {"epochs": 3, "batch_size": 8, "devices": "cpu:1", "seed": 3},
    }
    for key, value in train_keys.items():
        section, name = key.split("__") if "__" in key else ("train", key)
        values.setdefault(section, {})[name] = value
    return configs.from_dict(values)


def install(real=None, **splits) -> None:
    """Puts the toy in the place of the real networks and data, in this process.

    Args:
        real: Module and name of what stays in its place.
        **splits: Arguments of `ToySplits`.
    """
    original = real and getattr(*real)

    def load(config, saved=None, checked=False):
        return ToySplits(config.train.seed, config=config, **splits)

    data.load = load
    build.build_model = build_model
    # Nothing is read that could be damaged.
    train.failures = types.SimpleNamespace(explain=lambda *_, **__: contextlib.nullcontext())
    # Pictures take longer than the toy; tests/run/test_train.py draws them.
    loop.report = types.SimpleNamespace(PREDICTIONS="predictions.csv", write_curves=lambda *_: None)
    for task in (tasks.Classification, tasks.MultiLabel, tasks.Regression):
        for name in ("write_predictions", "write_rows", "draw", "write_page"):
            setattr(task, name, lambda *_: None)
    tasks.Classification.rows = lambda *_: []
    if real:
        setattr(*real, original)


def death_at(number):
    """Arguments of `call_at` that kill this process; None without a number."""
    return number and (number, lambda: os.kill(os.getpid(), signal.SIGKILL))


def call_at(number, function):
    """Calls a function before a step of training, counted in this process from 0."""
    steps, take_steps = itertools.count(), training.Training.take_steps

    def watched(*args):
        if next(steps) == number:
            function()
        return take_steps(*args)

    training.Training.take_steps = watched


def run(config, out, *, resume=True, at_step=None, **splits):
    """Trains `config` on the toy data in this process; returns the results.

    Args:
        at_step: Arguments of `call_at`.
        **splits: Arguments of `install`.
    """
    install(**splits)
    if at_step:
        call_at(*at_step)
    return train.train(config, pathlib.Path(out), resume=resume)


def weights_of(path: pathlib.Path) -> list[np.ndarray]:
    """Returns the weights of a `.keras` file."""
    return keras.models.load_model(path, compile=False).get_weights()


def outcome(out: pathlib.Path) -> dict:
    """Returns all that a run must end with, whatever happened to it."""
    files = ("history.csv", "history.json", "results.json")
    newest = tf.train.latest_checkpoint(str(out / "checkpoints"))
    reader = tf.train.load_checkpoint(newest)
    # The table of objects is no value, and an interruption writes one checkpoint more.
    ignored = ("_CHECKPOINTABLE_OBJECT_GRAPH", "save_counter")
    names = [n for n in reader.get_variable_to_shape_map() if not n.startswith(ignored)]
    return {
        **{name: (out / name).read_bytes() for name in files},
        **{name: _bytes(reader.get_tensor(name)) for name in sorted(names)},
        **{
            name: b"".join(map(_bytes, weights_of(out / "weights" / name)))
            for name in ("best.keras", "last.keras")
        },
    }


def _bytes(value) -> bytes:
    return np.asarray(value).tobytes() if not isinstance(value, bytes) else value
