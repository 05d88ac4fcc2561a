"""`batching_parameters.txt`, a `tensorflow.serving.BatchingParameters` as text: read and written.

The message is not in the package `tensorflow-serving-api`, so its fields are declared here, for
protobuf's own text parser to check names and types.
"""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Sequence
from typing import Any

from google.protobuf import (
    descriptor_pb2,
    descriptor_pool,
    message_factory,
    text_format,
    wrappers_pb2,
)

BATCHING_FILE = "batching_parameters.txt"

_DEFAULT_MAXIMUM = 1000  # TF Serving's

# Field, number, type in TF Serving's session_bundle_config.proto.
_FIELDS = (
    ("max_batch_size", 1, "Int64Value"),
    ("batch_timeout_micros", 2, "Int64Value"),
    ("max_enqueued_batches", 3, "Int64Value"),
    ("num_batch_threads", 4, "Int64Value"),
    ("thread_pool_name", 5, "StringValue"),
    ("allowed_batch_sizes", 6, "repeated int64"),
    ("pad_variable_length_inputs", 7, "bool"),
    ("enable_large_batch_splitting", 8, "BoolValue"),
)


def text(batch_sizes: Sequence[int]) -> str:
    """Returns a file to begin with: nobody has measured it.

    Args:
        batch_sizes: That batches are padded to.
    """
    sizes = sorted(set(batch_sizes))
    fields = {
        "max_batch_size": sizes[-1],
        "batch_timeout_micros": 2000,
        "max_enqueued_batches": 100,
        "num_batch_threads": 2,
    }
    lines = [f"{name} {{ value: {value} }}" for name, value in fields.items()]
    return "\n".join(lines + [f"allowed_batch_sizes: {size}" for size in sizes]) + "\n"


def batch_sizes(path: pathlib.Path) -> tuple[int, list[int]]:
    """Returns the largest batch that a file allows, and those that batches are padded to, if any.

    Raises:
        ValueError: Unknown field, wrong type, or values that TF Serving refuses.
    """
    try:
        message = text_format.Parse(path.read_text(encoding="utf-8"), _message_class()())
    except (text_format.ParseError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: {error}") from error
    given = message.HasField("max_batch_size")
    largest = message.max_batch_size.value if given else _DEFAULT_MAXIMUM
    sizes = list(message.allowed_batch_sizes)
    if largest < 1:
        raise ValueError(f"{path}: `max_batch_size` must be at least 1. Received: {largest}")
    if sizes and (sizes != sorted(set(sizes)) or sizes[-1] != largest):
        raise ValueError(
            f"{path}: `allowed_batch_sizes` must increase and end with `max_batch_size` "
            f"({largest}). Received: {sizes}"
        )
    return largest, sizes


@functools.cache
def _message_class() -> Any:
    field_types = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(
        name="keras_lightnets/batching_parameters.proto",
        package="keras_lightnets",
        syntax="proto3",
        dependency=["google/protobuf/wrappers.proto"],
    )
    message = file.message_type.add(name="BatchingParameters")
    for name, number, kind in _FIELDS:
        field = message.field.add(name=name, number=number, label=field_types.LABEL_OPTIONAL)
        if kind == "bool":
            field.type = field_types.TYPE_BOOL
        elif kind == "repeated int64":
            field.type, field.label = field_types.TYPE_INT64, field_types.LABEL_REPEATED
        else:
            field.type = field_types.TYPE_MESSAGE
            field.type_name = f".google.protobuf.{kind}"
    pool = descriptor_pool.DescriptorPool()
    wrappers = descriptor_pb2.FileDescriptorProto()
    wrappers_pb2.DESCRIPTOR.CopyToProto(wrappers)
    pool.Add(wrappers)
    pool.Add(file)
    return message_factory.GetMessageClass(
        pool.FindMessageTypeByName("keras_lightnets.BatchingParameters")
    )
