"""The endpoints of an exported classifier: tensors or image files in, named classes out."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import keras
import tensorflow as tf

from keras_lightnets.export.tasks import CLASSIFICATION, Classification
from keras_lightnets.inference.function import features_model, served_function
from keras_lightnets.inference.rejection import Rejection, rejecting
from keras_lightnets.preprocessing import EvalTransform, evaluation_image

IMAGES, IMAGE_BYTES, FEATURES = "serving_default", "serve_bytes", "features"


@dataclasses.dataclass(frozen=True)
class Interface:
    """What clients of an exported model see.

    Attributes:
        transform: From image files to the input; its `image_size` is that of `images`.
        labels: Class names in the order of the output.
        input_dtype: Of `images`: "uint8", or "float32" on the same scale as the model's input.
        top_k: Number of `classes` and `scores` in the answer.
        features: Whether there is a signature for the features before the classifier.
        rejection: When an image is of none of the classes; None: never.
        task: What the numbers of the network mean.
    """

    transform: EvalTransform
    labels: tuple[str, ...]
    input_dtype: str = "uint8"
    top_k: int = 5
    features: bool = False
    rejection: Rejection | None = None
    task: Classification = CLASSIFICATION

    @property
    def input_spec(self) -> tf.TensorSpec:
        """Of the `images` input, `(batch, height, width, 3)`."""
        shape = (None, *self.transform.image_size, 3)
        return tf.TensorSpec(shape, self.input_dtype, name="images")


class Endpoints(tf.Module):
    """What a SavedModel is made of; TensorFlow saves what its attributes refer to."""

    network: Any
    features: Any
    endpoints: dict[str, Any]


def build(
    model: keras.Model, interface: Interface, *, whole_batches: bool = False
) -> tuple[tf.Module, dict[str, Any]]:
    """Returns what `tf.saved_model.save` takes: a module and its signatures.

    * `serving_default`: `images (batch, height, width, 3)`.
    * `serve_bytes`: `image_bytes`, string `(batch,)`, files of any size that
      `keras_lightnets.preprocessing` decodes. Its answer has one more output, `valid`, bool
      `(batch,)`: a file that cannot be decoded gets False, zero scores and empty class names,
      and does no harm to the others (a server may have merged requests of several clients).
      Only when no file of the batch can be decoded is the request an error.
    * `features`, if asked for: `images` -> `features (batch, channels)`.

    All give float32 `probabilities (batch, classes)`, string `classes (batch, top_k)` and
    float32 `scores (batch, top_k)`, best first; with `interface.rejection` also `known`, bool
    `(batch,)`. Of another task: string `names (batch, labels)` and float32 `scores` and bool
    `present`, or `values`, of the same shape.

    Args:
        model: Made by `inference_model`.
        whole_batches: Whether to run a batch at once, instead of in parts.
    """
    function = functools.partial(
        served_function, input_spec=interface.input_spec, whole_batches=whole_batches
    )
    module = Endpoints()
    module.network = function(rejecting(model, interface.rejection))

    @tf.function(input_signature=[interface.input_spec], autograph=False)
    def serve_images(images):
        return _answer(module.network(_checked(images, interface)), interface)

    bytes_spec = tf.TensorSpec((None,), tf.string, name="image_bytes")

    @tf.function(input_signature=[bytes_spec], autograph=False)
    def serve_bytes(image_bytes):
        images, valid = _decode(image_bytes, interface.transform)
        with tf.control_dependencies([_check_any(valid)]):
            # An operation of its own: a cast to the same type would be none, and wait for nothing.
            images = tf.identity(images)
        images = tf.cast(images, interface.input_dtype)
        outputs = tf.nest.map_structure(
            lambda output: tf.where(valid[:, tf.newaxis], output, 0.0), module.network(images)
        )
        answer = _answer(outputs, interface)
        for name in answer.keys() & {"classes", "names"}:
            answer[name] = tf.where(valid[:, tf.newaxis], answer[name], "")
        return answer | {"valid": valid}

    signatures = {IMAGES: serve_images, IMAGE_BYTES: serve_bytes}
    if interface.features:
        module.features = function(features_model(model))
        signatures[FEATURES] = tf.function(
            lambda images: {"features": module.features(_checked(images, interface))},
            input_signature=[interface.input_spec],
            autograph=False,
        )
    module.endpoints = signatures
    return module, {name: f.get_concrete_function() for name, f in signatures.items()}


def _checked(images: tf.Tensor, interface: Interface) -> tf.Tensor:
    """Returns `images` unless the request's have another shape, which a server does not check."""
    # Not `tf.shape`: optimizers would put the declared shape in its place.
    images = tf.ensure_shape(images, interface.input_spec.shape)
    # oneDNN fails on an empty batch too, but says something about channels.
    message = "images: the request holds no image"
    with tf.control_dependencies([tf.debugging.Assert(tf.shape(images)[0] > 0, [message])]):
        return tf.identity(images)


def _answer(outputs: Any, interface: Interface) -> dict[str, tf.Tensor]:
    probabilities, more = outputs, {}
    if interface.rejection is not None:
        probabilities = outputs["probabilities"]
        more = {"known": outputs["known"][:, 0] > 0.5}
    return {**interface.task.answer(probabilities, interface.labels, interface.top_k), **more}


def _decode(image_bytes: tf.Tensor, transform: EvalTransform) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns uint8 images `(batch, height, width, 3)` and which of them are valid.

    TensorFlow has no operation that decodes an image or says that it cannot; but a data set
    can leave out an element that fails. One attempt at the whole batch costs next to nothing;
    only if it fails is each image tried by itself.
    """
    batch = tf.shape(image_bytes)[0]
    spec = tf.TensorSpec((*transform.image_size, 3), tf.uint8)

    def one(contents):
        return evaluation_image(contents, transform)

    def all_of(contents):
        return tf.map_fn(one, contents, fn_output_signature=spec, parallel_iterations=16)

    def each(contents):
        return _or_else(contents, one, tf.zeros(spec.shape, tf.uint8))

    images, valid = _or_else(image_bytes, all_of, tf.zeros((0, *spec.shape), tf.uint8))
    return tf.cond(
        valid,
        lambda: (images, tf.ones((batch,), tf.bool)),
        lambda: tf.map_fn(
            each, image_bytes, fn_output_signature=(spec, tf.TensorSpec((), tf.bool))
        ),
    )


def _or_else(value: tf.Tensor, function: Any, default: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns `(function(value), True)`, or `(default, False)` where that fails."""
    succeeds = tf.data.Dataset.from_tensors(value).map(lambda x: (function(x), tf.constant(True)))
    fails = tf.data.Dataset.from_tensors((default, False))
    return succeeds.ignore_errors().concatenate(fails).take(1).get_single_element()


def _check_any(valid: tf.Tensor) -> tf.Operation:
    message = "image_bytes: the request holds no image that can be decoded (JPEG, PNG, BMP, GIF)"
    return tf.debugging.Assert(tf.reduce_any(valid), [message])
