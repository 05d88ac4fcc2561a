"""Reads `batching_parameters.txt`, the text proto `tensorflow.serving.BatchingParameters`.

The message is not in the package `tensorflow-serving-api`, so its fields are declared here, for
protobuf's own text parser to check names and types.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import pathlib
from typing import Any

from google.protobuf import (
    descriptor_pb2,
    descriptor_pool,
    message_factory,
    text_format,
    wrappers_pb2,
)

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


@dataclasses.dataclass(frozen=True)
class BatchingParameters:
    """How requests are merged. Defaults are TF Serving's.

    Attributes:
        max_batch_size: Rows in a batch at most.
        batch_timeout_us: Microseconds a request waits for others.
        max_enqueued_batches: Full batches that may wait; beyond them requests get 503.
        threads: Batches run at once.
        allowed_batch_sizes: Sizes a batch is padded up to; empty means no padding.
        split_large: Whether a request above `max_batch_size` is split instead of refused.
    """

    max_batch_size: int = 1000
    batch_timeout_us: int = 0
    max_enqueued_batches: int = 10
    threads: int = dataclasses.field(default_factory=lambda: os.cpu_count() or 1)
    allowed_batch_sizes: tuple[int, ...] = ()
    split_large: bool = False

    def __post_init__(self) -> None:
        for name in ("max_batch_size", "max_enqueued_batches", "threads"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 1. Received: {getattr(self, name)}")
        if self.batch_timeout_us < 0:
            raise ValueError(f"`batch_timeout_micros` is negative: {self.batch_timeout_us}")
        sizes = list(self.allowed_batch_sizes)
        if sizes and (sizes != sorted(set(sizes)) or sizes[-1] != self.max_batch_size):
            raise ValueError(
                "`allowed_batch_sizes` must increase and end with `max_batch_size` "
                f"({self.max_batch_size}). Received: {sizes}"
            )

    def padded(self, rows: int) -> int:
        """The size that a batch of `rows` is padded to."""
        return next((size for size in self.allowed_batch_sizes if size >= rows), rows)


# Field of the file -> attribute of `BatchingParameters`.
_WRAPPED = {
    "max_batch_size": "max_batch_size",
    "batch_timeout_micros": "batch_timeout_us",
    "max_enqueued_batches": "max_enqueued_batches",
    "num_batch_threads": "threads",
    "enable_large_batch_splitting": "split_large",
}


def read(path: pathlib.Path) -> BatchingParameters:
    """Parses a batching file.

    Raises:
        ValueError: Unknown field, wrong type, or values that TF Serving refuses.
    """
    try:
        message = text_format.Parse(path.read_text(), _message_class()())
        values: dict[str, Any] = {
            attribute: getattr(message, field).value
            for field, attribute in _WRAPPED.items()
            if message.HasField(field)
        }
        return BatchingParameters(**values, allowed_batch_sizes=tuple(message.allowed_batch_sizes))
    except (text_format.ParseError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error


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
