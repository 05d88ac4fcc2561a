"""Reads `batching_parameters.txt`, a `tensorflow.serving.BatchingParameters` as text."""

from __future__ import annotations

import functools
import pathlib
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format
from google.protobuf import wrappers_pb2 as wrappers

BATCHING_FILE = "batching_parameters.txt"

_DEFAULT_MAXIMUM = 1000  # TF Serving's

# Of TF Serving's session_bundle_config.proto, which is not in the package `tensorflow-serving-api`:
# protobuf's own text parser then checks names and types.
_SCHEMA = f"""
name: "batching_parameters.proto" syntax: "proto3" dependency: "{wrappers.DESCRIPTOR.name}"
message_type {{
  name: "BatchingParameters"
  field {{ name: "max_batch_size" number: 1 type_name: ".google.protobuf.Int64Value" }}
  field {{ name: "batch_timeout_micros" number: 2 type_name: ".google.protobuf.Int64Value" }}
  field {{ name: "max_enqueued_batches" number: 3 type_name: ".google.protobuf.Int64Value" }}
  field {{ name: "num_batch_threads" number: 4 type_name: ".google.protobuf.Int64Value" }}
  field {{ name: "thread_pool_name" number: 5 type_name: ".google.protobuf.StringValue" }}
  field {{ name: "allowed_batch_sizes" number: 6 type: TYPE_INT64 label: LABEL_REPEATED }}
  field {{ name: "pad_variable_length_inputs" number: 7 type: TYPE_BOOL }}
  field {{ name: "enable_large_batch_splitting" number: 8 type_name: ".google.protobuf.BoolValue" }}
}}
"""


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
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(wrappers.DESCRIPTOR.serialized_pb)
    schema = text_format.Parse(_SCHEMA, descriptor_pb2.FileDescriptorProto())
    pool.AddSerializedFile(schema.SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("BatchingParameters"))
