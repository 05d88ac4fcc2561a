"""From the bytes of an image file to the uint8 pixels that a network sees.

The only copy: training's evaluation, `lightnets predict` and the exported SavedModel call
the functions below, which are TensorFlow operations throughout, so their pixels are equal
bit for bit. Normalization is not here but inside the models, so that uint8 travels.
"""

from __future__ import annotations

import tensorflow as tf

from keras_lightnets.preprocessing.decode import ToPng, decode_image, to_uint8
from keras_lightnets.preprocessing.eval_transform import EvalTransform


def evaluation_image(
    contents: tf.Tensor, transform: EvalTransform, to_png: ToPng | None = None
) -> tf.Tensor:
    """Decodes and transforms one image file.

    Args:
        contents: Scalar string, the bytes of an image file.
        transform: What to do with the pixels.
        to_png: For other formats; None: they are an error.

    Returns:
        uint8 `(height, width, 3)`, RGB.
    """
    image = decode_image(contents, transform.background, transform.scale_16_bit, to_png)
    return transform_image(image, transform)


def transform_image(image: tf.Tensor, transform: EvalTransform) -> tf.Tensor:
    """Resizes and crops or pads one decoded image, uint8 `(height, width, 3)` of any size.

    The sides and the crop are computed as torchvision's `Resize` and `CenterCrop` do:
    the longer side is rounded down, half a pixel of margin to the nearest even number.
    """
    target_height, target_width = transform.image_size
    height, width = tf.shape(image)[0], tf.shape(image)[1]
    resized = tf.stack(transform.resized(height, width, tf.minimum, tf.maximum))
    # Where the image is padded, the margin and its corner are negative.
    margin = tf.cast(resized - [target_height, target_width], tf.float32) / 2
    corner = tf.cast(tf.round(margin), tf.int32)
    if transform.interpolation == "bilinear" and not transform.antialias and not transform.pad:
        # Three times as fast as ScaleAndTranslate, even though it resizes what the crop drops.
        whole = tf.image.resize(image, resized)
        pixels = whole[corner[0] : corner[0] + target_height, corner[1] : corner[1] + target_width]
    else:
        # Resize and crop in one operation: only the pixels of the crop are computed.
        pixels = tf.raw_ops.ScaleAndTranslate(
            images=image[tf.newaxis],
            size=[target_height, target_width],
            scale=tf.cast(resized, tf.float32) / tf.cast([height, width], tf.float32),
            translation=-tf.cast(corner, tf.float32),
            kernel_type={"bilinear": "triangle", "bicubic": "keyscubic"}[transform.interpolation],
            antialias=transform.antialias,
        )[0]
    pixels = to_uint8(pixels)
    if transform.pad:
        rows, columns = (
            (tf.range(side) >= -corner[axis]) & (tf.range(side) < resized[axis] - corner[axis])
            for axis, side in enumerate(transform.image_size)
        )
        inside = rows[:, tf.newaxis, tf.newaxis] & columns[:, tf.newaxis]
        pixels = tf.where(inside, pixels, tf.constant(transform.background, tf.uint8))
    return tf.ensure_shape(pixels, (target_height, target_width, 3))
