"""The first frame of a GIF file as a file of its own, with TensorFlow operations.

TensorFlow's decoder unpacks every frame, whatever is asked of it: 400 frames of 3,000 x 3,000
pixels, which a file of 3 MB can hold, take 3.4 GB. It also shows transparent pixels as black.
"""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from keras_lightnets.preprocessing.byte_ops import bytes_at, little16

# Steps of the walk below, about 0.1 ms each. A step passes one block, or up to a thousand data
# blocks of the same size, so that a usual file takes ten, whatever its size.
_STEPS = 4096
_RUN = 1024

# Where the walk is.
_BETWEEN, _IN_EXTENSION, _IN_FRAME, _DONE, _BROKEN = range(5)

# First bytes of blocks; and of an extension that names the transparent color.
_EXTENSION, _FRAME, _CONTROL = 0x21, 0x2C, 0xF9


class FirstFrame(NamedTuple):
    """A GIF file that holds one frame.

    Attributes:
        file: Scalar string; the transparent pixels of the frame are opaque.
        whole: Whether the frame is there to its end; if not, the rest means nothing.
        height: int64, to the lower end of the frame.
        width: int64, to its right end.
    """

    file: tf.Tensor
    whole: tf.Tensor
    height: tf.Tensor
    width: tf.Tensor


def first_frame(contents: tf.Tensor, background: tuple[int, int, int]) -> FirstFrame:
    """Cuts a GIF file (scalar string) off behind its first frame.

    Args:
        contents: Of the file.
        background: RGB, 0 to 255, that shows through transparent pixels.
    """
    head = bytes_at(contents, 0, 13)
    frame, control, end, whole = _walk(contents, 13 + _table_size(head[10]))
    about = bytes_at(contents, frame, 10)
    # A table of its own stands behind the frame's head, the common one behind the file's.
    table = tf.where(_table_size(about[9]) > 0, frame + 10, 13)
    table_size = tf.maximum(_table_size(about[9]), _table_size(head[10]))
    extension = bytes_at(contents, control, 7)
    color = extension[6] * 3
    transparent = (control > 0) & tf.equal(extension[3] & 1, 1) & (color < table_size)
    file = tf.strings.join([tf.strings.substr(contents, 0, end), b";"])
    opaque = _replace(_replace(file, control + 3, b"\0"), table + color, bytes(background))
    return FirstFrame(
        file=tf.where(transparent, opaque, file),
        whole=whole,
        height=little16(about, 3) + little16(about, 7),
        width=little16(about, 1) + little16(about, 5),
    )


def _table_size(flags: tf.Tensor) -> tf.Tensor:
    """Bytes of the color table that a byte of flags announces."""
    return tf.where(flags >= 128, 3 * tf.bitwise.left_shift(2, flags & 7), 0)


def _replace(text: tf.Tensor, position: tf.Tensor, piece: bytes) -> tf.Tensor:
    """Returns a string with other bytes at a position; longer if they stand beyond its end."""
    length = tf.strings.length(text)
    before = tf.strings.substr(text, 0, tf.minimum(position, length))
    rest = tf.minimum(position + len(piece), length)
    return tf.strings.join([before, piece, tf.strings.substr(text, rest, length - rest)])


def _walk(
    contents: tf.Tensor, start: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
    """Returns the positions of the first frame, of its control extension or 0, and of its end.

    The last tensor returned tells whether that end was found.
    """
    # Zeros behind the end: the smallest block is a zero.
    data = tf.pad(tf.io.decode_raw(contents, tf.uint8), [[0, 16]])
    last = tf.size(data) - 1

    def byte(position):
        return tf.cast(data[tf.minimum(position, last)], tf.int32)

    def between(position, frame, control):
        kind, flags = byte(position), byte(position + 9)
        is_control = tf.equal(byte(position + 1), _CONTROL)
        is_frame, is_extension = tf.equal(kind, _FRAME), tf.equal(kind, _EXTENSION)
        state = tf.where(is_frame, _IN_FRAME, tf.where(is_extension, _IN_EXTENSION, _BROKEN))
        behind = position + tf.where(is_frame, 11 + _table_size(flags), 2)
        frame = tf.where(is_frame, position, frame)
        return behind, state, frame, tf.where(is_extension & is_control, position, control)

    def inside(position, state, frame, control):
        size = byte(position)
        stride = tf.maximum(size, 1) + 1
        sizes = tf.cast(data[position : position + _RUN * stride : stride], tf.int32)
        run = tf.reduce_sum(tf.math.cumprod(tf.cast(tf.equal(sizes, size), tf.int32)))
        ends = tf.equal(size, 0)
        after = tf.where(tf.equal(state, _IN_FRAME), _DONE, _BETWEEN)
        position += tf.where(ends, 1, run * stride)
        return position, tf.where(ends, after, state), frame, control

    def step(position, state, frame, control):
        return tf.cond(
            tf.equal(state, _BETWEEN),
            lambda: between(position, frame, control),
            lambda: inside(position, state, frame, control),
        )

    position, state, frame, control = tf.while_loop(
        lambda position, state, *_: (state < _DONE) & (position <= last),
        step,
        (start, tf.constant(_BETWEEN), tf.constant(0), tf.constant(0)),
        parallel_iterations=1,
        maximum_iterations=_STEPS,
    )
    whole = tf.equal(state, _DONE) & (position <= last - 15)
    return frame, control, tf.minimum(position, last - 15), whole
