"""RandAugment and TrivialAugment as stateless TensorFlow operations on one uint8 image.

Both draw from the same fourteen operations, which compute what Pillow's `ImageOps`,
`ImageEnhance` and affine transforms do, as the papers' code used them:

* RandAugment (Cubuk et al., arXiv 1909.13719): two operations, each at magnitude 9 of 10, the
  paper's choice for ResNet-50 on ImageNet; the ranges are AutoAugment's (arXiv 1805.09501, its
  table of operations), the direction is random.
* TrivialAugment (Müller and Hutter, arXiv 2103.10158): one operation at a uniform magnitude
  of 31 within the paper's "wide" ranges.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import tensorflow as tf

from keras_lightnets.preprocessing import decode
from lightnets.data.sources import order

# What a geometric operation leaves empty: grey, as in AutoAugment's published code.
_FILL = 128.0
# Purpose of the sub-key; 1 is the crop's.
_PURPOSE = 2


@dataclass(frozen=True)
class Space:
    """How operations are drawn, and the ranges of what they take at magnitude 1.

    Attributes:
        operations: How many are applied, one after another.
        magnitude: In [0, 1]; None: one of 31 evenly spaced ones, each as likely.
        shear: Pixels to the side per row.
        translate: Share of the side, or if above 1 pixels.
        rotate: Degrees.
        enhance: Brightness, colour, contrast and sharpness are scaled by 1 - this to 1 + this.
        posterize: Bits that are dropped.
    """

    operations: int
    magnitude: float | None
    shear: float
    translate: float
    rotate: float
    enhance: float
    posterize: int


SPACES = {
    "randaugment": Space(2, 0.9, 0.3, 150 / 331, 30.0, 0.9, 4),
    "trivialaugment": Space(1, None, 0.99, 32.0, 135.0, 0.99, 6),
}


def auto_augment(image: tf.Tensor, key: tf.Tensor, kind: str) -> tf.Tensor:
    """Applies randomly drawn operations to one image.

    Args:
        image: uint8 `(height, width, 3)`.
        key: int64 `(2,)` of the example: all that is random follows from it.
        kind: A key of `SPACES`.

    Returns:
        uint8 of the same shape.
    """
    space = SPACES[kind]
    shape = image.shape
    numbers = tf.random.stateless_uniform((space.operations, 3), order.sub_key(key, _PURPOSE))
    for number in range(space.operations):
        which, magnitude, sign = tf.unstack(numbers[number], 3)
        level = tf.floor(magnitude * 31) / 30 if space.magnitude is None else space.magnitude
        sign = tf.where(sign < 0.5, -1.0, 1.0)
        branches = list(operations(image, tf.convert_to_tensor(level), sign, space).values())
        image = tf.switch_case(tf.cast(which * len(branches), tf.int32), branches)
        image = tf.ensure_shape(image, shape)
    return image


def operations(
    image: tf.Tensor, level: tf.Tensor, sign: tf.Tensor, space: Space
) -> dict[str, Callable[[], tf.Tensor]]:
    """Returns the operations to draw from, by name.

    Args:
        image: uint8 `(height, width, 3)`.
        level: float32 magnitude in [0, 1].
        sign: float32 direction, 1 or -1.
        space: The ranges.
    """
    shape = tf.cast(tf.shape(image), tf.float32)
    reach = [space.translate * (shape[axis] if space.translate < 1 else 1.0) for axis in (0, 1)]
    signed = sign * level
    factor = 1 + signed * space.enhance
    return {
        "identity": lambda: image,
        "shear_x": lambda: _affine(image, [1.0, signed * space.shear, 0.0, 0.0, 1.0, 0.0]),
        "shear_y": lambda: _affine(image, [1.0, 0.0, 0.0, signed * space.shear, 1.0, 0.0]),
        "translate_x": lambda: _affine(
            image, [1.0, 0.0, tf.round(signed * reach[1]), 0.0, 1.0, 0.0]
        ),
        "translate_y": lambda: _affine(
            image, [1.0, 0.0, 0.0, 0.0, 1.0, tf.round(signed * reach[0])]
        ),
        "rotate": lambda: _rotate(image, signed * space.rotate),
        "brightness": lambda: _blend(0.0, image, factor),
        "color": lambda: _blend(_grey(image), image, factor),
        "contrast": lambda: _blend(tf.floor(tf.reduce_mean(_grey(image)) + 0.5), image, factor),
        "sharpness": lambda: _sharpness(image, factor),
        "posterize": lambda: _posterize(image, tf.round(level * space.posterize)),
        "solarize": lambda: _solarize(image, tf.round(256 * (1 - level))),
        "autocontrast": lambda: _autocontrast(image),
        "equalize": lambda: _equalize(image),
    }


def _affine(image: tf.Tensor, matrix: list[tf.Tensor | float]) -> tf.Tensor:
    """Samples, bilinearly, at `(x, y)` -> `(a x + b y + c, d x + e y + f)`, as Pillow's AFFINE.

    `matrix` is a to f for coordinates in which the first pixel's centre is (0.5, 0.5).
    """
    a, b, c, d, e, f = (tf.cast(value, tf.float32) for value in matrix)
    # TensorFlow's first pixel has its centre at (0, 0).
    c, f = c + (a + b - 1) / 2, f + (d + e - 1) / 2
    moved = tf.raw_ops.ImageProjectiveTransformV3(
        images=tf.cast(image, tf.float32)[tf.newaxis],
        transforms=tf.stack([a, b, c, d, e, f, 0.0, 0.0])[tf.newaxis],
        output_shape=tf.shape(image)[:2],
        fill_value=_FILL,
        interpolation="BILINEAR",
        fill_mode="CONSTANT",
    )
    return decode.to_uint8(moved[0])


def _rotate(image: tf.Tensor, degrees: tf.Tensor) -> tf.Tensor:
    """Turns the image about its centre, counter-clockwise."""
    angle = degrees * (math.pi / 180)
    cos, sin = tf.cos(angle), tf.sin(angle)
    y, x = (tf.cast(side, tf.float32) / 2 for side in tf.unstack(tf.shape(image)[:2]))
    return _affine(image, [cos, -sin, x - cos * x + sin * y, sin, cos, y - sin * x - cos * y])


def _blend(other: tf.Tensor | float, image: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """Goes from `other` (factor 0) to the image (factor 1) and beyond."""
    return decode.to_uint8(other + factor * (tf.cast(image, tf.float32) - other))


def _grey(image: tf.Tensor) -> tf.Tensor:
    """Luma of BT.601, rounded as Pillow does; float32 `(height, width, 1)`."""
    luma = tf.reduce_sum(tf.cast(image, tf.int32) * [19595, 38470, 7471], -1, keepdims=True)
    return tf.cast((luma + 2**15) // 2**16, tf.float32)


def _sharpness(image: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """Scales the distance from a smoothed image; the pixels at the border stay."""
    kernel = tf.constant([[1, 1, 1], [1, 5, 1], [1, 1, 1]], tf.float32) / 13
    kernel = tf.tile(tf.reshape(kernel, (3, 3, 1, 1)), (1, 1, 3, 1))
    pixels = tf.cast(image, tf.float32)
    padded = tf.pad(pixels, ((1, 1), (1, 1), (0, 0)))
    smooth = tf.nn.depthwise_conv2d(padded[tf.newaxis], kernel, (1, 1, 1, 1), "VALID")[0]
    rows, columns = (
        (tf.range(side) > 0) & (tf.range(side) < side - 1)
        for side in tf.unstack(tf.shape(image)[:2])
    )
    inside = (rows[:, tf.newaxis] & columns)[..., tf.newaxis]
    return _blend(tf.where(inside, tf.round(smooth), pixels), image, factor)


def _posterize(image: tf.Tensor, bits: tf.Tensor) -> tf.Tensor:
    """Drops the lower `bits` of each value."""
    step = tf.bitwise.left_shift(1, tf.cast(bits, tf.int32))
    values = tf.cast(image, tf.int32)
    return tf.cast(values - values % step, tf.uint8)


def _solarize(image: tf.Tensor, threshold: tf.Tensor) -> tf.Tensor:
    """Inverts the values from `threshold` (0 to 256) on."""
    return tf.where(tf.cast(image, tf.int32) < tf.cast(threshold, tf.int32), image, 255 - image)


def _autocontrast(image: tf.Tensor) -> tf.Tensor:
    """Stretches each channel to 0 to 255; one of a single value stays."""
    pixels = tf.cast(image, tf.float32)
    low, high = tf.reduce_min(pixels, (0, 1)), tf.reduce_max(pixels, (0, 1))
    stretched = (pixels - low) * (255 / tf.maximum(high - low, 1))
    return decode.to_uint8(tf.where(high > low, stretched, pixels))


def _equalize(image: tf.Tensor) -> tf.Tensor:
    """Makes the histogram of each channel as even as can be; one of a single value stays."""
    offsets = tf.cast(image, tf.int32) + tf.constant([0, 256, 512])
    counts = tf.reshape(tf.math.bincount(offsets, minlength=768, maxlength=768), (3, 256))
    used = tf.reduce_max(tf.where(counts > 0, tf.range(256), 0), 1)
    total = tf.reduce_sum(counts, 1)
    step = (total - tf.gather(counts, used, batch_dims=1)) // 255
    before = tf.cumsum(counts, axis=1, exclusive=True)
    table = (before + step[:, tf.newaxis] // 2) // tf.maximum(step, 1)[:, tf.newaxis]
    table = tf.where(step[:, tf.newaxis] > 0, tf.minimum(table, 255), tf.range(256))
    return tf.cast(tf.gather(tf.reshape(table, (-1,)), offsets), tf.uint8)
