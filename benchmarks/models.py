"""The networks and the training steps that several benchmarks time."""

from __future__ import annotations

import time
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

import keras_lightnets


def keras_application(name: str, size: int, classes: int = 1000) -> keras.Model:
    """`MobileNet` or `MobileNetV2` of `keras.applications`, with random weights."""
    builder = {"mobilenet_v1": "MobileNet", "mobilenet_v2": "MobileNetV2"}[name]
    return getattr(keras.applications, builder)(
        input_shape=(size, size, 3), weights=None, classes=classes
    )


def randomize(model: keras.Model) -> keras.Model:
    """Gives a fresh model statistics and biases like those of a trained one, and returns it.

    With the zeros of a fresh model TensorFlow removes the addition of the bias, and then does not
    fuse the activation behind it: neither side would run as a trained network does.
    """
    rng = np.random.default_rng(0)
    for variable in model.variables:
        if variable.name in ("beta", "bias", "moving_mean"):
            variable.assign(rng.normal(0, 0.2, variable.shape))
        elif variable.name in ("gamma", "moving_variance"):
            variable.assign(rng.uniform(0.5, 1.5, variable.shape))
    return model


def peer(name: str, ours: keras.Model) -> tuple[str, keras.Model]:
    """Returns what to call it and Keras' own version of a network at 224 pixels, randomized."""
    if name.startswith("mobilenet"):
        return "keras.applications", randomize(keras_application(name, 224))
    return "Keras layers", randomize(keras_lightnets.plain_keras(ours))


class _StepTimer(keras.callbacks.Callback):
    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float] = []

    def on_train_batch_begin(self, batch: int, logs: dict | None = None) -> None:
        self.start = time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        np.asarray(logs["loss"])  # waits for the step
        self.seconds.append(time.perf_counter() - self.start)


def fit_steps(
    model: keras.Model, *, size: int, batch: int, classes: int = 1000, steps: int = 3
) -> Callable[[], float]:
    """A function that trains `steps` steps by `fit` and returns the mean seconds of a step.

    Momentum SGD, cross-entropy and accuracy, on one batch of noise that stays in memory; the
    first step of each call, which also starts the iterator, does not count.
    """
    model.compile(
        keras.optimizers.SGD(0.01, momentum=0.9),
        "categorical_crossentropy",
        metrics=["accuracy"],
        jit_compile=False,
    )
    rng = np.random.default_rng(0)
    images = rng.uniform(size=(batch, size, size, 3)).astype("float32")
    labels = keras.utils.to_categorical(rng.integers(classes, size=batch), classes)
    data = tf.data.Dataset.from_tensors((images, labels)).cache().repeat()

    def train() -> float:
        timer = _StepTimer()
        # Keras would warn that it cannot shuffle a data set, which it otherwise wants to do.
        model.fit(data, steps_per_epoch=steps + 1, shuffle=False, verbose=0, callbacks=[timer])
        return float(np.mean(timer.seconds[1:]))

    return train
