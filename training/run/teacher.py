"""The network whose answers a run learns beside the labels: knowledge distillation.

It is frozen, computes as outside training, and sees the images that the run sees, augmented and
mixed, at its own size and with its own normalization. No checkpoint holds it: a run keeps a digest
of its weights, with which it is compared when the run is resumed.
"""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from keras_lightnets.catalogue import imagenet
from keras_lightnets.text import first_line
from lightnets.config.keys import APPLICATIONS
from lightnets.data import dataset
from lightnets.evaluation import features
from lightnets.run import foreign, networks
from lightnets.support.errors import UserError
from lightnets.support.writing import write_text

NAME = "teacher.sha256"
_SMALLEST = 1e-37  # a probability whose logarithm is finite


class Teacher(NamedTuple):
    """A trained network.

    Attributes:
        logits: From 0..255 images `(batch, height, width, 3)` of any size to float32
            `(batch, classes)`, in the order of the classes of the run.
        digest: Changes with any of its weights.
    """

    logits: Callable[[tf.Tensor], tf.Tensor]
    digest: str

    def save(self, run: pathlib.Path) -> None:
        """Notes in the folder of a run what it learns from."""
        write_text(run / NAME, self.digest)

    def check(self, run: pathlib.Path, target: str) -> None:
        """Raises UserError if the run in this folder has learned from another one."""
        noted = run / NAME
        # Where there is none the run was ended before its first step.
        if noted.is_file() and noted.read_bytes() != self.digest.encode():
            raise UserError(
                f"The weights of the teacher {target} have changed since the run {run} was "
                "started. Restore them, or start a new run."
            )


def load(target: str, labels: Sequence[str], size: tuple[int, int]) -> Teacher:
    """Opens a teacher; call it inside the scope of the strategy.

    Args:
        target: A run, a `.keras` file, `keras.applications:NAME`, or a registered network, which
            then has its published weights.
        labels: The classes of the run.
        size: Height and width of its images.

    Raises:
        UserError: There is no such network, or it does not answer for these classes.
    """
    of_keras = target.startswith(APPLICATIONS)
    network = _of_keras(target) if of_keras else networks.open(target)
    model = network.model
    height, width = (own or seen for own, seen in zip(model.input_shape[1:3], size, strict=True))
    shape = (height, width)
    gives_probabilities = _gives_probabilities(model, shape, target)
    classes = model.output_shape[-1]
    if network.labels is not None:
        places = dataset.places(labels, network.labels, "The data", f"the teacher {target}")
    elif classes == len(labels):
        places = np.arange(classes)
    else:
        raise UserError(f"The teacher {target} has {classes} classes, the data {len(labels)}.")

    def logits(images: tf.Tensor) -> tf.Tensor:
        images = tf.cast(images, tf.float32)
        seen = tuple(images.shape[1:3])
        if seen != shape:
            images = tf.image.resize(images, shape, antialias=shape < seen)
        answers = tf.cast(model(images, training=False), tf.float32)
        if gives_probabilities:
            answers = tf.math.log(tf.maximum(answers, _SMALLEST))  # but for a sum, the logits
        return tf.gather(answers, places, axis=-1)

    return Teacher(logits, features.fingerprint(model))


def _of_keras(name: str) -> networks.Network:
    """Returns a network of `keras.applications` with its own preprocessing in front."""
    builder, prepare = foreign.application(name)
    try:
        model = builder(weights="imagenet")
    except Exception as error:  # Keras raises nothing more special where a download fails
        raise UserError(f"Cannot load the teacher {name}: {first_line(error)}") from None
    images = keras.Input(model.input_shape[1:])
    model = keras.Model(images, model(prepare(images)))
    return networks.Network(model, list(imagenet.class_names()), None)


def _gives_probabilities(model: keras.Model, shape: tuple[int, int], target: str) -> bool:
    """Whether the answers are probabilities; if not they are logits.

    Raises:
        UserError: They are neither, or the network does not take images.
    """
    images = np.random.default_rng(0).integers(0, 256, (2, *shape, 3)).astype("float32")
    try:
        answers = np.asarray(model(images, training=False), "float32")
    except (ValueError, TypeError, tf.errors.OpError) as error:
        raise UserError(f"The teacher {target} takes no RGB images: {first_line(error)}") from None
    shares = np.all((answers >= 0) & (answers <= 1))
    # Sigmoids of few classes may happen to sum to 1.
    of_each = getattr(model.layers[-1], "activation", None) is keras.activations.sigmoid
    summing = not of_each and np.allclose(answers.sum(-1), 1, atol=0.01)
    if answers.ndim == 2 and (not shares or summing):
        return bool(shares)
    raise UserError(
        f"The teacher {target} gives neither probabilities that sum to 1 nor logits of classes."
    )
