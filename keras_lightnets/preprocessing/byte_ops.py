"""Reading numbers out of the bytes of a file with TensorFlow operations."""

from __future__ import annotations

import tensorflow as tf


def starts_with(contents: tf.Tensor, magic: bytes) -> tf.Tensor:
    """Whether a string starts so."""
    # Comparing strings, not a regular expression: those are for valid UTF-8.
    length = tf.minimum(tf.strings.length(contents), len(magic))
    return tf.equal(tf.strings.substr(contents, 0, length), magic)


def bytes_at(contents: tf.Tensor, position: tf.Tensor | int, count: tf.Tensor | int) -> tf.Tensor:
    """Returns `count` bytes of a string as int32 `(count,)`, zeros after its end."""
    length = tf.strings.length(contents)
    count = tf.maximum(count, 0)
    position = tf.minimum(tf.maximum(position, 0), length)
    piece = tf.strings.substr(contents, position, tf.minimum(count, length - position))
    values = tf.cast(tf.io.decode_raw(piece, tf.uint8), tf.int32)
    return tf.pad(values, [[0, count - tf.size(values)]])


def little16(data: tf.Tensor, at: int) -> tf.Tensor:
    """Returns the int64 of two bytes of an integer vector, the low one first."""
    data = tf.cast(data[at : at + 2], tf.int64)
    return data[0] + data[1] * 256


def little32(data: tf.Tensor, at: int) -> tf.Tensor:
    """Returns the int64 of four bytes, the lowest one first."""
    return little16(data, at) + little16(data, at + 2) * 65536


def little32s(data: tf.Tensor, at: int) -> tf.Tensor:
    """Returns the same as a signed number; a BMP of negative height has its rows from the top."""
    value = little32(data, at)
    return tf.where(value >= 2**31, value - 2**32, value)


def big32(data: tf.Tensor, at: int) -> tf.Tensor:
    """Returns the int64 of four bytes, the highest one first."""
    data = tf.cast(data[at : at + 4], tf.int64)
    return ((data[0] * 256 + data[1]) * 256 + data[2]) * 256 + data[3]
