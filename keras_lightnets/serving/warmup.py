"""The warm-up file: requests that TF Serving runs before a version answers anyone."""

from __future__ import annotations

import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from keras_lightnets.serving.signatures import FEATURES, IMAGE_BYTES, IMAGES, Interface

WARMUP_FILE = "assets.extra/tf_serving_warmup_requests"
BATCH_SIZES = (1, 2, 4, 8, 16, 32)

# TF Serving refuses a longer file.
_MAX_RECORDS = 1000


def write_warmup(
    directory: pathlib.Path, name: str, interface: Interface, batch_sizes: Iterable[int]
) -> int:
    """Writes a request for each signature and batch size; returns how many.

    Args:
        directory: The version's directory.
        name: Of the model.
        batch_sizes: Those that the server's batching allows.
    """
    records = list(_requests(name, interface, sorted(set(batch_sizes))))[:_MAX_RECORDS]
    path = directory / WARMUP_FILE
    path.parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in records:
            writer.write(record)
    return len(records)


def _requests(name: str, interface: Interface, batch_sizes: Sequence[int]) -> Iterator[bytes]:
    height, width = interface.transform.image_size
    black = np.zeros((height, width, 3), np.uint8)
    jpeg, png = tf.io.encode_jpeg(black).numpy(), tf.io.encode_png(black).numpy()

    def files(contents: list[bytes]) -> bytes:
        tensor = tf.make_tensor_proto(contents, dtype=tf.string)
        return predict_log(name, IMAGE_BYTES, {"image_bytes": tensor})

    tensors = [IMAGES, FEATURES] if interface.features else [IMAGES]
    for batch in batch_sizes:
        # One value with a shape stands for an array full of it: a few bytes, not megabytes.
        shape = (batch, height, width, 3)
        images = tf.make_tensor_proto(0, dtype=interface.input_dtype, shape=shape)
        for signature in tensors:
            yield predict_log(name, signature, {"images": images})
        yield files([jpeg] * batch)
    # TensorFlow prepares a branch of a graph when it is taken for the first time: decoding
    # anything but JPEG, and finding the file of a batch that is none. That takes some 0.3 s each.
    for smallest in batch_sizes[:1]:
        yield files([png] * smallest)
    for largest in batch_sizes[-1:]:
        if largest > 1:  # a request without any image would be an error, and the load would fail
            yield files([jpeg] * (largest - 1) + [b"no image"])


def predict_log(name: str, signature: str, inputs: dict[str, Any]) -> bytes:
    """Returns a serialized `tensorflow.serving.PredictionLog` of one Predict request.

    Written here field by field, because the package with these messages,
    `tensorflow-serving-api`, is an optional dependency. The numbers are those of
    `prediction_log.proto`, `predict.proto` and `model.proto` in tensorflow/serving.

    Args:
        inputs: Tensor protos by input name.
    """
    model_spec = _field(1, name.encode()) + _field(3, signature.encode())
    request = _field(1, model_spec)
    for key, tensor in inputs.items():
        # A map field is a repeated message of key and value.
        request += _field(2, _field(1, key.encode()) + _field(2, tensor.SerializeToString()))
    return _field(6, _field(1, request))  # PredictionLog.predict_log, PredictLog.request


def _field(number: int, payload: bytes) -> bytes:
    """Encodes a length-delimited field of a protocol buffer."""
    return _varint(number << 3 | 2) + _varint(len(payload)) + payload


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
