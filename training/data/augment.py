"""Random changes of training images, stateless.

All that is random about an image follows from its key, (seed, epoch, example), so batches
do not depend on the number of threads or shards, or on where a run was resumed. Crops, which
need the file, are done by the example, the rest by the batch.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf
from scipy.stats import beta

from keras_lightnets import preprocessing
from keras_lightnets.preprocessing import EvalTransform, decode
from lightnets.config.keys import DataConfig
from lightnets.data import auto_augment, pillow
from lightnets.data.sources import order
from lightnets.support.errors import UsageError

# Uniform numbers per example for what is done by the batch, and who takes which.
RANDOM_NUMBERS = 16
_FLIP, _SHIFT_Y, _SHIFT_X, _BRIGHT, _CONTRAST, _COLOR = range(6)
_ERASE, _ERASE_Y, _ERASE_X, _MIX, _MIX_Y, _MIX_X, _MIX_KIND = range(6, 13)

# Purposes of sub-keys.
_CROP = 1


def train_image(
    contents: tf.Tensor,
    key: tf.Tensor,
    randoms: tf.Tensor,
    data: DataConfig,
    transform: EvalTransform,
) -> tf.Tensor:
    """Decodes one image, cuts it to the network's size, changes it by `data.auto_augment`, flips.

    Args:
        contents: Scalar string, the bytes of a file.
        key: int64 `(2,)` of the example.
        randoms: float32 `(RANDOM_NUMBERS,)` in [0, 1) of the example.
        data: Which crop, which policy and whether to flip.
        transform: Gives the size; and all, where the crop is no random one.

    Returns:
        uint8 `(height, width, 3)`.
    """
    image = _crop_image(contents, key, data, transform)
    if data.auto_augment != "none":
        image = auto_augment.auto_augment(image, key, data.auto_augment)
    if data.flip:
        # By the image, because half of them are left alone: by the batch, where all are mirrored
        # and then chosen from, it took 11 % of the time of the whole pipeline; this takes 1 %.
        image = tf.cond(randoms[_FLIP] < 0.5, lambda: tf.reverse(image, [1]), lambda: image)
    return image


def _crop_image(
    contents: tf.Tensor, key: tf.Tensor, data: DataConfig, transform: EvalTransform
) -> tf.Tensor:
    # The workers of a data service cannot call Python.
    to_png = None if data.data_service else pillow.png
    if not _is_random(data):
        return preprocessing.evaluation_image(contents, transform, to_png)

    def from_jpeg():
        crop = _cut_jpeg(contents, key, data, transform)
        if transform.interpolation == "bilinear":
            # TensorFlow's kernel takes vector instructions for float32 alone: with the
            # conversion 1.9 times as fast as from uint8, for the same pixels.
            crop = tf.cast(crop, tf.float32)
        return _resize(crop, transform)

    @decode.seldom
    def from_other():
        image = preprocessing.decode_image(
            contents, transform.background, transform.scale_16_bit, to_png
        )
        begin, size = _random_box(tf.shape(image), key, data, transform)
        cut = image[begin[0] : begin[0] + size[0], begin[1] : begin[1] + size[1]]
        return _resize(cut, transform)

    return tf.cond(decode.is_plain_jpeg(contents), from_jpeg, from_other)


def _is_random(data: DataConfig) -> bool:
    """Whether a random part is cut out; where whole pictures are seen, in training too."""
    return data.crop == "random_resized" and data.resize == "crop"


def _cut_jpeg(
    contents: tf.Tensor, key: tf.Tensor, data: DataConfig, transform: EvalTransform
) -> tf.Tensor:
    """Decodes the box alone, at a scale; chroma at its edges may differ from the whole image's.

    The decoder makes a half or a quarter of the size for less than the whole, where that is still
    as large as the result: 0.84 of the time for half of a photograph of 2000x1500, 0.78 for
    large quarters of it.
    """
    shape = tf.image.extract_jpeg_shape(contents)
    with tf.control_dependencies([decode.check_size(shape[0], shape[1])]):
        begin, size = _random_box(shape, key, data, transform)

    def at_scale(scale):
        box = tf.concat([begin, size], 0) // scale
        return tf.io.decode_and_crop_jpeg(
            contents, box, channels=3, ratio=scale, dct_method="INTEGER_ACCURATE"
        )

    @decode.seldom
    def smaller():
        fits = tf.reduce_all(size >= [4 * side for side in transform.image_size])
        return tf.cond(fits, lambda: at_scale(4), lambda: at_scale(2))

    fits = tf.reduce_all(size >= [2 * side for side in transform.image_size])
    return tf.cond(fits, smaller, lambda: at_scale(1))


def _random_box(
    shape: tf.Tensor, key: tf.Tensor, data: DataConfig, transform: EvalTransform
) -> tuple[tf.Tensor, tf.Tensor]:
    """Top left corner and size, int32 `(2,)` each, of a crop by area and aspect ratio."""
    height, width = transform.image_size
    begin, size, _ = tf.image.stateless_sample_distorted_bounding_box(
        shape,
        tf.zeros((1, 0, 4)),
        seed=order.sub_key(key, _CROP),
        min_object_covered=0.0,
        aspect_ratio_range=[aspect * (width / height) for aspect in data.crop_aspect],
        area_range=data.crop_area,
        max_attempts=10,
        use_image_if_no_bounding_boxes=True,
    )
    return begin[:2], size[:2]


def _resize(image: tf.Tensor, transform: EvalTransform) -> tf.Tensor:
    image = tf.ensure_shape(image, (None, None, 3))
    pixels = tf.image.resize(image, transform.image_size, method=transform.interpolation)
    if transform.interpolation == "bilinear":
        # Never leaves the range of the pixels, so it needs no clipping (3 % of the pipeline).
        pixels = tf.cast(pixels + 0.5, tf.uint8)
    else:
        pixels = decode.to_uint8(pixels)
    return tf.ensure_shape(pixels, (*transform.image_size, 3))


def changes(data: DataConfig) -> bool:
    """Whether an image looks different from epoch to epoch."""
    random = (data.flip, data.color_jitter, data.random_erasing, data.mixup, data.cutmix)
    moves = data.crop == "shift" or _is_random(data)
    return moves or data.auto_augment != "none" or any(random)


def check_batch(data: DataConfig, local_batch: int) -> None:
    """Raises UsageError if images cannot be mixed in pairs."""
    if (data.mixup or data.cutmix) and local_batch % 2:
        raise UsageError(
            "mixup and cutmix mix pairs of images, so the batch of a worker must be even. "
            f"Received: {local_batch}."
        )


def augment_batch(
    images: tf.Tensor, labels: tf.Tensor, randoms: tf.Tensor, data: DataConfig
) -> tuple[tf.Tensor, tf.Tensor]:
    """Changes a batch of images.

    Args:
        images: uint8 `(batch, height, width, 3)`.
        labels: float32 `(batch, classes)`.
        randoms: float32 `(batch, RANDOM_NUMBERS)` in [0, 1).
        data: Which changes.

    Returns:
        Images and labels of the same shapes.
    """
    if data.crop == "shift":
        images = _shift(images, randoms, data.shift)
    if data.color_jitter:
        images = _jitter(images, randoms, data.color_jitter)
    if data.random_erasing:
        images = _erase(images, randoms, data.random_erasing)
    if data.mixup or data.cutmix:
        images, labels = _mix(images, labels, randoms, data)
    return images, labels


def _jitter(images: tf.Tensor, randoms: tf.Tensor, strength: float) -> tf.Tensor:
    """Scales brightness, contrast and saturation by 1 - strength to 1 + strength each."""

    def factor(slot):
        return 1 + strength * (2 * randoms[:, slot, None, None, None] - 1)

    pixels = tf.cast(images, tf.float32) * factor(_BRIGHT)
    grey = tf.reduce_sum(pixels * [0.299, 0.587, 0.114], -1, keepdims=True)
    mean = tf.reduce_mean(grey, (1, 2), keepdims=True)
    pixels = mean + (pixels - mean) * factor(_CONTRAST)
    grey = tf.reduce_sum(pixels * [0.299, 0.587, 0.114], -1, keepdims=True)
    return decode.to_uint8(grey + (pixels - grey) * factor(_COLOR))


def _box_mask(images: tf.Tensor, share: tf.Tensor, y: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
    """Returns bool `(batch, height, width, 1)`: a box of `share` of the area centred at (y, x)."""
    half = tf.sqrt(share)[:, None] / 2
    rows, columns = (
        tf.abs((tf.range(images.shape[axis], dtype=tf.float32) + 0.5) / images.shape[axis] - at)
        < half
        for axis, at in ((1, y[:, None]), (2, x[:, None]))
    )
    return (rows[:, :, None] & columns[:, None, :])[..., None]


def _erase(images: tf.Tensor, randoms: tf.Tensor, probability: float) -> tf.Tensor:
    """Greys out a box of 2 to 33 % of the area (Zhong et al., 2020) in some of the images."""
    chosen = randoms[:, _ERASE] < probability
    # The number that chose is uniform below `probability`, so it gives the size as well.
    share = 0.02 + 0.31 * tf.minimum(randoms[:, _ERASE] / probability, 1.0)
    mask = _box_mask(images, share, randoms[:, _ERASE_Y], randoms[:, _ERASE_X])
    return tf.where(mask & chosen[:, None, None, None], tf.constant(128, tf.uint8), images)


def _mix(
    images: tf.Tensor, labels: tf.Tensor, randoms: tf.Tensor, data: DataConfig
) -> tuple[tf.Tensor, tf.Tensor]:
    """Mixes each image with its neighbour: mixup or cutmix, half each where both are on.

    Neighbours are 0 and 1, 2 and 3, ..., so that a shard of the batch gives the same images.
    """
    partner = tf.bitwise.bitwise_xor(tf.range(tf.shape(images)[0]), 1)
    cut = randoms[:, _MIX_KIND] < 0.5 if data.mixup and data.cutmix else bool(data.cutmix)
    cut = tf.broadcast_to(cut, tf.shape(randoms)[:1])
    mixup, cutmix = (_beta(randoms[:, _MIX], value or 1.0) for value in (data.mixup, data.cutmix))
    kept = tf.where(cut, cutmix, mixup)
    mask = _box_mask(images, 1 - kept, randoms[:, _MIX_Y], randoms[:, _MIX_X])
    area = tf.reduce_mean(tf.cast(mask, tf.float32), (1, 2, 3))
    kept = tf.where(cut, 1 - area, kept)
    other = tf.gather(images, partner)
    share = kept[:, None, None, None]
    blend = share * tf.cast(images, tf.float32) + (1 - share) * tf.cast(other, tf.float32)
    pasted = tf.where(mask, other, images)
    mixed = tf.where(cut[:, None, None, None], pasted, decode.to_uint8(blend))
    return mixed, kept[:, None] * labels + (1 - kept[:, None]) * tf.gather(labels, partner)


def _shift(images: tf.Tensor, randoms: tf.Tensor, share: float) -> tf.Tensor:
    """Moves each image by up to `share` of its sides; the border pixels are repeated."""
    images = tf.convert_to_tensor(images)
    for axis, slot in ((1, _SHIFT_Y), (2, _SHIFT_X)):
        side = images.shape.with_rank(4)[axis]
        reach = round(share * side)
        # Whole numbers from -reach to reach, each as likely.
        offset = tf.cast(randoms[:, slot] * (2 * reach + 1), tf.int32) - reach
        source = tf.clip_by_value(tf.range(side) + offset[:, None], 0, side - 1)
        images = tf.gather(images, source, axis=axis, batch_dims=1)
    return images


def _beta(uniform: tf.Tensor, parameter: float) -> tf.Tensor:
    """Returns beta(parameter, parameter) variables of uniform ones, to a 1024th of the ranks."""
    ranks = (np.arange(1024) + 0.5) / 1024
    table = tf.constant(beta.ppf(ranks, parameter, parameter), tf.float32)
    return tf.gather(table, tf.cast(uniform * 1024, tf.int32))
