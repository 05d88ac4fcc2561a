"""The warm-up file: requests that TF Serving runs before a version answers anyone."""

from __future__ import annotations

import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

from keras_lightnets.export.signatures import FEATURES, IMAGE_BYTES, IMAGES, Interface

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

    Args:
        name: Of the model.
        signature: Its name.
        inputs: Tensor protos by input name.
    """
    log = prediction_log_pb2.PredictionLog()
    request = log.predict_log.request
    request.model_spec.name, request.model_spec.signature_name = name, signature
    for key, tensor in inputs.items():
        request.inputs[key].CopyFrom(tensor)
    return log.SerializeToString(deterministic=True)


def read_warmup(directory: pathlib.Path) -> Iterator[predict_pb2.PredictRequest]:
    """Yields the requests in a version's warm-up file; none when there is no file.

    Raises:
        ValueError: A record that is no `PredictionLog` of a Predict request, or too many.
    """
    path = directory / WARMUP_FILE
    if not path.is_file():
        return
    for index, record in enumerate(tf.data.TFRecordDataset(str(path)).as_numpy_iterator()):
        if index == _MAX_RECORDS:
            raise ValueError(f"{path} holds more than {_MAX_RECORDS} records")
        try:
            log = prediction_log_pb2.PredictionLog.FromString(record)
        except DecodeError:
            raise ValueError(f"Record {index} of {path} is no PredictionLog") from None
        if not log.HasField("predict_log"):
            raise ValueError(f"Record {index} of {path} is no Predict request")
        yield log.predict_log.request
