"""From the bytes of an image file to uint8 RGB pixels, by TensorFlow operations throughout.

Formats are told by the bytes, never by a name: JPEG (greyscale, CMYK, EXIF orientation
applied), PNG (palette, 16 bit, first frame), GIF (first frame), BMP (8, 24 and 32 bit, not
compressed), WebP (not animated). What is transparent shows a background.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from keras_lightnets.preprocessing import byte_ops
from keras_lightnets.preprocessing.gif import first_frame

# For branches seldom taken. Inlined, as TensorFlow does by default, all their operations are
# visited even when not taken, which doubles the time of decoding a plain JPEG.
seldom = functools.partial(
    tf.function,
    autograph=False,
    experimental_attributes={"_noinline": True},
)

# A file may declare any size; the decoders would allocate it. 2^27 pixels are 400 MB as RGB.
MAX_PIXELS = 2**27

_PNG = b"\x89PNG"
# A JPEG file's start with an APP0 segment of 16 bytes, of which 14 follow; a quantization table.
_JFIF, _TABLE = b"\xff\xd8\xff\xe0\x00\x10", b"\xff\xdb"
# Where a PNG file names its transparent color, before the pixels, in bytes at the most.
_TRANSPARENCY_WITHIN = 2**17
# Where EXIF data is looked for, in bytes. It is a directory of little or big endian: its place, how
# many entries it has, and these, of 12 bytes, sorted by their first two. 0x0112 is a short number.
_EXIF_WITHIN = 2**14
_ORIENTATION = (
    r"(?s)\C*?Exif\x00\x00(?:"
    r"II\*\x00\x08\x00\x00\x00\C\C(?:(?:\C\x00|[\x00-\x11]\x01)\C{10}){0,15}?"
    r"\x12\x01\x03\x00\x01\x00\x00\x00([\x01-\x08])|"
    r"MM\x00\*\x00\x00\x00\x08\C\C(?:(?:\x00\C|\x01[\x00-\x11])\C{10}){0,15}?"
    r"\x01\x12\x00\x03\x00\x00\x00\x01\x00([\x01-\x08])"
    r")\C*"
)

# Makes a PNG file of a file of another format than those above, scalar strings.
ToPng = Callable[[tf.Tensor], tf.Tensor]


def to_uint8(pixels: tf.Tensor) -> tf.Tensor:
    """Rounds float pixels on the scale 0 to 255 to uint8, clipping what is outside."""
    return tf.saturate_cast(tf.round(pixels), tf.uint8)


def decode_image(
    contents: tf.Tensor,
    background: tuple[int, int, int] = (255, 255, 255),
    scale_16_bit: bool = False,
    to_png: ToPng | None = None,
) -> tf.Tensor:
    """Decodes one image file of any of the formats above, of several frames the first.

    Args:
        contents: Scalar string, the bytes of the file.
        background: As of `EvalTransform`.
        scale_16_bit: As of `EvalTransform`.
        to_png: For other formats; None: they are an error.

    Returns:
        uint8 `(height, width, 3)`, RGB, upright.

    Raises:
        tf.errors.InvalidArgumentError: When run: the bytes are no image, are cut off, or
            declare more than `MAX_PIXELS` pixels.
    """
    contents = tf.convert_to_tensor(contents, tf.string)
    decode_seldom = _seldom_formats(tuple(background), scale_16_bit, to_png)
    image = tf.cond(
        is_plain_jpeg(contents), lambda: _decode_jpeg(contents), lambda: decode_seldom(contents)
    )
    return tf.ensure_shape(image, (None, None, 3))


@functools.cache
def _seldom_formats(
    background: tuple[int, int, int], scale_16_bit: bool, to_png: ToPng | None
) -> Callable[[tf.Tensor], tf.Tensor]:
    """All but a plain JPEG file: traced once, however many pipelines read them."""

    @seldom(input_signature=[tf.TensorSpec((), tf.string)])
    def decode(contents):
        return tf.cond(
            is_jpeg(contents),
            _apart(_decode_turned, contents),
            lambda: _decode_other(contents, background, scale_16_bit, to_png),
        )

    return decode


def _apart(decode: Callable[[tf.Tensor], tf.Tensor], contents: tf.Tensor) -> Callable:
    """Returns a branch of which nothing is prepared before it is taken.

    TensorFlow prepares all of a function before its first call, in each pipeline anew: for all
    formats together two seconds.
    """
    function = seldom(decode, input_signature=[tf.TensorSpec((), tf.string)])
    return lambda: function(contents)


def _decode_turned(contents: tf.Tensor) -> tf.Tensor:
    return upright(_decode_jpeg(contents), exif_orientation(contents))


def is_plain_jpeg(contents: tf.Tensor) -> tf.Tensor:
    """Whether the bytes (scalar string) are a JPEG file that needs no turning."""
    return is_jpeg(contents) & tf.equal(exif_orientation(contents), 1)


def is_jpeg(contents: tf.Tensor) -> tf.Tensor:
    """Whether the bytes (scalar string) start as a JPEG file does."""
    return byte_ops.starts_with(contents, b"\xff\xd8\xff")


def _decode_jpeg(contents: tf.Tensor) -> tf.Tensor:
    shape = tf.image.extract_jpeg_shape(contents)
    with tf.control_dependencies([check_size(shape[0], shape[1])]):
        # The default method differs from libjpeg's (so Pillow's) by up to 4 levels.
        return tf.io.decode_jpeg(contents, channels=3, dct_method="INTEGER_ACCURATE")


def _decode_other(
    contents: tf.Tensor,
    background: tuple[int, int, int],
    scale_16_bit: bool,
    to_png: ToPng | None,
) -> tf.Tensor:
    def from_png(contents):
        return _decode_png(contents, background, scale_16_bit)

    def other(contents):
        return _refuse(contents) if to_png is None else from_png(to_png(contents))

    # The declared size stands at a fixed place, which depends on the format.
    head = byte_ops.bytes_at(contents, 0, 54)
    is_bmp = byte_ops.starts_with(contents, b"BM")
    # Not those of OS/2, whose head is shorter, and those that are compressed.
    plain_bmp = is_bmp & (byte_ops.little32(head, 14) >= 40) & tf.equal(head[30], 0)
    plain_bmp &= tf.reduce_any(tf.equal(head[28], [8, 24, 32])) & tf.equal(head[29], 0)
    is_webp = byte_ops.starts_with(contents, b"RIFF") & _letters(head, 8, b"WEBP")
    # TensorFlow writes such files' pixels, of four channels, to memory for three.
    animated_webp = is_webp & _letters(head, 15, b"X") & tf.equal(head[20] & 2, 2)
    branches = [
        (byte_ops.starts_with(contents, _PNG), lambda: from_png(contents)),
        (
            byte_ops.starts_with(contents, b"GIF8"),
            _apart(lambda contents: _decode_gif(contents, background), contents),
        ),
        (plain_bmp, _apart(lambda contents: _decode_bmp(contents, head), contents)),
        (
            is_webp & tf.logical_not(animated_webp),
            _apart(lambda contents: _decode_webp(contents, head, background), contents),
        ),
    ]
    return tf.case(branches, default=_apart(other, contents))


def _letters(data: tf.Tensor, at: int, letters: bytes) -> tf.Tensor:
    return tf.reduce_all(tf.equal(data[at : at + len(letters)], list(letters)))


def _refuse(contents: tf.Tensor) -> tf.Tensor:
    """Fails, with the reason."""
    message = tf.where(
        byte_ops.starts_with(contents, b"BM"),
        "BMP that is compressed, of OS/2 or of other than 8, 24 or 32 bits",
        tf.where(
            byte_ops.starts_with(contents, b"RIFF"), "WebP Animation", "Unknown image file format"
        ),
    )
    with tf.control_dependencies([tf.raw_ops.Assert(condition=False, data=[message])]):
        return tf.zeros((0, 0, 3), tf.uint8)


def _composite(image: tf.Tensor, background: Any) -> tf.Tensor:
    """Puts an image, uint8 `(height, width, 4)`, on a background of one color."""
    # 16 bits are enough, and a large picture is large as it is.
    alpha = tf.cast(image[:, :, 3:], tf.uint16)
    below = tf.cast(background, tf.uint16) * (255 - alpha)
    mixed = (tf.cast(image[:, :, :3], tf.uint16) * alpha + below + 127) // 255
    return tf.cast(mixed, tf.uint8)


def _decode_png(
    contents: tf.Tensor, background: tuple[int, int, int], scale_16_bit: bool
) -> tf.Tensor:
    head = byte_ops.bytes_at(contents, 0, 26)

    def pixels(channels):
        if not scale_16_bit:
            return tf.io.decode_png(contents, channels)
        return tf.cond(
            tf.equal(head[24], 16),
            lambda: _scaled(tf.io.decode_png(contents, channels, tf.uint16)),
            lambda: tf.io.decode_png(contents, channels),
        )

    # The second highest bit of the color's kind; of others, a part of the file names a color. Where
    # these letters mean something else, the picture is as it would be without a fourth channel.
    names_color = tf.strings.regex_full_match(
        tf.strings.substr(contents, 0, _TRANSPARENCY_WITHIN), r"(?s)\C*tRNS\C*"
    )
    has_alpha = (head[25] >= 4) | names_color
    with tf.control_dependencies([check_size(byte_ops.big32(head, 20), byte_ops.big32(head, 16))]):
        return tf.cond(has_alpha, lambda: _composite(pixels(4), background), lambda: pixels(3))


def _scaled(image: tf.Tensor) -> tf.Tensor:
    """Maps the range of the colors, uint16 `(height, width, 3 or 4)`, to 0 to 255."""
    colors = tf.cast(image[:, :, :3], tf.float32)
    low, high = tf.reduce_min(colors), tf.reduce_max(colors)
    levels = to_uint8((colors - low) * (255 / tf.maximum(high - low, 1)))
    return tf.concat([levels, tf.cast(image[:, :, 3:] // 256, tf.uint8)], -1)


def _decode_gif(contents: tf.Tensor, background: tuple[int, int, int]) -> tf.Tensor:
    frame = first_frame(contents, background)
    message = "The first frame of the GIF file is cut off."
    whole = tf.raw_ops.Assert(condition=frame.whole, data=[message])
    with tf.control_dependencies([whole, check_size(frame.height, frame.width)]):
        return _decode(frame.file, 3)


def _decode_bmp(contents: tf.Tensor, head: tf.Tensor) -> tf.Tensor:
    height, width = byte_ops.little32s(head, 22), byte_ops.little32s(head, 18)
    with tf.control_dependencies([check_size(height, width)]):
        return tf.cond(
            tf.equal(head[28], 8),
            lambda: _decode_palette_bmp(contents, head),
            lambda: _decode(contents, 3),
        )


def _decode_webp(
    contents: tf.Tensor, head: tf.Tensor, background: tuple[int, int, int]
) -> tf.Tensor:
    with tf.control_dependencies([check_size(*_webp_size(head))]):
        image = _decode(contents, 0)
    return tf.cond(
        tf.equal(tf.shape(image)[2], 4), lambda: _composite(image, background), lambda: image
    )


def _decode(contents: tf.Tensor, channels: int) -> tf.Tensor:
    return tf.raw_ops.DecodeImage(
        contents=contents, channels=channels, dtype=tf.uint8, expand_animations=False
    )


def _decode_palette_bmp(contents: tf.Tensor, head: tf.Tensor) -> tf.Tensor:
    """TensorFlow returns the indices of a palette as if they were greys."""
    indices = tf.cast(tf.io.decode_bmp(contents, channels=0)[..., 0], tf.int32)
    start = tf.cast(14 + byte_ops.little32s(head, 14), tf.int32)
    palette = tf.reshape(byte_ops.bytes_at(contents, start, 256 * 4), (256, 4))
    colors = tf.cast(palette[:, 2::-1], tf.uint8)  # stored as blue, green, red, nothing
    return tf.gather(colors, indices)


def _webp_size(head: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Height and width of the three kinds of WebP: lossy, lossless, extended."""
    lossy = (byte_ops.little16(head, 28) & 0x3FFF, byte_ops.little16(head, 26) & 0x3FFF)
    bits = byte_ops.little32(head, 21)
    lossless = ((bits // 2**14 & 0x3FFF) + 1, (bits & 0x3FFF) + 1)
    extended = (
        (byte_ops.little32(head, 27) & 0xFFFFFF) + 1,
        (byte_ops.little32(head, 24) & 0xFFFFFF) + 1,
    )
    kind = head[15]  # the last letter of "VP8 ", "VP8L", "VP8X"
    height, width = (
        tf.where(tf.equal(kind, ord("L")), second, tf.where(tf.equal(kind, ord("X")), third, first))
        for first, second, third in zip(lossy, lossless, extended, strict=True)
    )
    return height, width


def check_size(height: tf.Tensor, width: tf.Tensor) -> tf.Operation:
    """Returns an operation that fails if an image declares no or too many pixels."""
    height, width = (tf.abs(tf.cast(side, tf.int64)) for side in (height, width))
    # Dividing instead of multiplying: two sides of 2^32 would overflow.
    fits = (height > 0) & (width > 0) & (height <= MAX_PIXELS // tf.maximum(width, 1))
    message = f"The image declares no pixels or more than {MAX_PIXELS}: (height, width) ="
    # Not tf.debugging.Assert, which adds a branch.
    return tf.raw_ops.Assert(condition=fits, data=[message, height, width])


def exif_orientation(contents: tf.Tensor) -> tf.Tensor:
    """Orientation of a JPEG file (scalar string) by its EXIF data: int32, 1 to 8.

    1, upright, when nothing in the first 16 KiB says something about it. Searching 64 KiB would
    take 6 % of the time of a training image, 16 KiB take 3 %, and nothing is searched where the
    first table follows the plain header of JFIF: EXIF data behind a table does not count.
    """
    head = tf.strings.substr(contents, 0, len(_JFIF) + 14 + len(_TABLE))
    table = tf.minimum(tf.strings.length(head), len(_JFIF) + 14)
    without = byte_ops.starts_with(head, _JFIF) & tf.equal(
        tf.strings.substr(head, table, len(_TABLE)), _TABLE
    )
    searched = tf.strings.substr(contents, 0, tf.where(without, 0, _EXIF_WITHIN))
    found = tf.strings.regex_replace(searched, _ORIENTATION, r"\1\2", replace_global=False)
    number = byte_ops.bytes_at(found, 0, 1)[0]
    return tf.where(tf.equal(tf.strings.length(found), 1), number, 1)


def upright(image: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Turns an image `(height, width, 3)` as its EXIF orientation (int32, 1 to 8) asks."""
    turned = tf.cond(orientation >= 5, lambda: tf.transpose(image, (1, 0, 2)), lambda: image)
    # Which of the eight are mirrored after the transposition, by rows and by columns.
    rows = tf.gather([False, False, True, True, False, False, True, True], orientation - 1)
    columns = tf.gather([False, True, True, False, False, True, True, False], orientation - 1)
    mirrored = tf.cond(rows, lambda: turned[::-1], lambda: turned)
    return tf.cond(columns, lambda: mirrored[:, ::-1], lambda: mirrored)
