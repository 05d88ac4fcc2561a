"""Runs the requests recorded in a version's warm-up file before it answers anyone."""

from __future__ import annotations

import math
import pathlib
from collections.abc import Iterator

import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

from keras_lightnets.serving.server import errors
from keras_lightnets.serving.server.servable import Servable

WARMUP_FILE = pathlib.PurePath("assets.extra", "tf_serving_warmup_requests")

# TF Serving refuses a longer file.
MAX_RECORDS = 1000

# 1,700 RGB images of 224 x 224 pixels.
MAX_ELEMENTS = 1 << 28


def read(version_path: pathlib.Path) -> Iterator[predict_pb2.PredictRequest]:
    """The Predict requests in a version's warm-up file; none when there is no file.

    Raises:
        ServingError: A record that is no `PredictionLog` of a Predict request, or too many.
    """
    path = version_path / WARMUP_FILE
    if not path.is_file():
        return
    for index, record in enumerate(tf.data.TFRecordDataset(str(path)).as_numpy_iterator()):
        if index == MAX_RECORDS:
            raise errors.invalid(f"{path} holds more than {MAX_RECORDS} records")
        log = prediction_log_pb2.PredictionLog()
        try:
            log.ParseFromString(record)
        except Exception as error:
            raise errors.invalid(f"Record {index} of {path} is no PredictionLog") from error
        if not log.HasField("predict_log"):
            raise errors.invalid(f"Record {index} of {path} is no Predict request")
        yield log.predict_log.request


def run(servable: Servable, max_rows: int | None = None) -> int:
    """Runs every recorded request and returns how many there were.

    Args:
        servable: Just loaded.
        max_rows: The largest batch. TensorFlow Serving sends warm-up requests through its
            batching as well, and does not load a version with a larger one.

    Raises:
        ServingError: A request is larger, or fails.
    """
    count = 0
    for request in read(servable.path):
        signature = servable.signature(request.model_spec.signature_name)
        inputs = signature.check(tensors(request.inputs))
        rows = max(len(value) if value.ndim else 1 for value in inputs.values())
        if signature.batched and max_rows is not None and rows > max_rows:
            raise errors.invalid(
                f"A warm-up request has {rows} rows, but max_batch_size is {max_rows}: raise it, "
                "or export the model again beside this batching_parameters.txt"
            )
        servable.run(signature, inputs)
        count += 1
    return count


def tensors(protos: dict[str, tf.compat.v1.TensorProto]) -> dict[str, np.ndarray]:
    """Tensor protos as arrays.

    Raises:
        ServingError: A proto whose content does not fit its shape or type.
    """
    try:
        return {name: _tensor(proto) for name, proto in protos.items()}
    except (TypeError, ValueError) as error:
        raise errors.invalid(f"Not a valid tensor: {error}") from error


def _tensor(proto: tf.compat.v1.TensorProto) -> np.ndarray:
    # One value may stand for an array full of it: a few bytes could ask for all memory.
    elements = math.prod(dim.size for dim in proto.tensor_shape.dim)
    if elements > MAX_ELEMENTS or any(dim.size < 0 for dim in proto.tensor_shape.dim):
        raise ValueError(f"its shape asks for {elements} elements")
    return tf.make_ndarray(proto)
