"""Formats that TensorFlow does not decode: Pillow makes a PNG file of each.

TIFF, AVIF, BMP of all kinds, animated WebP; HEIC with the package pillow-heif. The PNG file then
goes the way of all others, so that transparency and 16 bits mean the same in every format.
"""

from __future__ import annotations

import functools
import io

import numpy as np
import tensorflow as tf

from keras_lightnets import preprocessing
from lightnets.data.sources.listing import kind_of


def png(contents: tf.Tensor) -> tf.Tensor:
    """The operation of `to_png`, for `preprocessing.decode_image`."""
    return tf.ensure_shape(tf.numpy_function(to_png, [contents], tf.string, stateful=False), ())


def to_png(contents: bytes) -> bytes:
    """Returns a PNG file of the first picture in an image file, upright.

    Raises:
        ValueError: The bytes are no image that Pillow reads; `check.reason` knows the messages.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    kind = kind_of(contents[:12])
    if kind == "HEIC":
        _register_heif()
    try:
        with Image.open(io.BytesIO(contents)) as opened:
            if opened.width * opened.height > preprocessing.MAX_PIXELS:
                raise ValueError("The image declares no pixels or more than allowed.")
            picture = _plain(ImageOps.exif_transpose(opened))
            file = io.BytesIO()
            picture.save(file, "PNG", compress_level=1)
            return file.getvalue()
    except UnidentifiedImageError:
        message = "The image is cut off." if kind else "Unknown image file format"
        raise ValueError(message) from None
    except ValueError:
        raise
    except Exception as error:  # Pillow's plugins raise anything for a damaged file
        raise ValueError(f"Pillow: {error}") from None


def size(contents: bytes) -> tuple[int, int] | None:
    """Returns width and height in pixels as an image file declares them, None if it does not."""
    from PIL import Image

    try:
        if kind_of(contents[:12]) == "HEIC":
            _register_heif()
        with Image.open(io.BytesIO(contents)) as opened:
            return opened.size
    except Exception:  # Pillow's plugins raise anything for a damaged file
        return None


def _plain(picture):
    """Returns a PIL image of a mode that PNG keeps."""
    if picture.mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"):
        return picture
    if picture.mode == "F" or picture.mode.startswith("I"):
        from PIL import Image

        values = np.asarray(picture)
        whole = np.issubdtype(values.dtype, np.integer)
        if not (whole and values.min() >= 0 and values.max() < 2**16):
            raise ValueError("The image has pixels of 32 bits.")
        return Image.fromarray(values.astype(np.uint16))
    return picture.convert("RGBA" if picture.has_transparency_data else "RGB")


@functools.cache
def _register_heif() -> None:
    try:
        import pillow_heif
    except ImportError:
        raise ValueError("HEIC needs pillow-heif.") from None
    pillow_heif.register_heif_opener()


def portable(contents: bytes) -> bytes:
    """Returns a file of the same pixels that an exported graph decodes: itself, if it can."""
    if kind_of(contents[:12]) in ("JPEG", "PNG", "GIF"):
        return contents
    try:
        _decode(tf.constant(contents))
    except tf.errors.InvalidArgumentError:
        return to_png(contents)
    return contents


@tf.function(input_signature=[tf.TensorSpec((), tf.string)])
def _decode(contents: tf.Tensor) -> tf.Tensor:
    return preprocessing.decode_image(contents)
