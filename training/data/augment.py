"""Random changes of training images, stateless.

All that is random about an image follows from its key, (seed, epoch, example), so batches
do not depend on the number of threads, shards, or where a run was resumed. What needs the
file (crops) is done by the example, what does not by the batch.
"""

from __future__ import annotations

import tensorflow as tf

from keras_lightnets import preprocessing
from keras_lightnets.preprocessing import EvalTransform
from training.config import DataConfig
from training.data import order
from training.errors import UsageError

# Uniform numbers per example for what is done by the batch, and who takes which.
RANDOM_NUMBERS = 16
_FLIP, _SHIFT_Y, _SHIFT_X = range(3)

# Purposes of sub-keys.
_CROP = 1


def train_image(
    contents: tf.Tensor, key: tf.Tensor, data: DataConfig, transform: EvalTransform, decoded: bool
) -> tf.Tensor:
    """Decodes one image and cuts it to the network's size.

    Args:
        contents: Scalar string, the bytes of a file, or if `decoded` uint8 pixels
            `(height, width, 3)`.
        key: int64 `(2,)` of the example.
        data: Which crop.
        transform: Gives the size; and all, where the crop is no random one.
        decoded: See `contents`.

    Returns:
        uint8 `(height, width, 3)`.
    """
    if data.crop == "random_resized":
        image = contents if decoded else preprocessing.decode_image(contents)
        begin, size = _random_box(tf.shape(image), key, data)
        crop = image[begin[0] : begin[0] + size[0], begin[1] : begin[1] + size[1]]
        return _resize(crop, transform)
    if decoded:
        return preprocessing.transform_image(contents, transform)
    return preprocessing.evaluation_image(contents, transform)


def _random_box(shape: tf.Tensor, key: tf.Tensor, data: DataConfig) -> tuple[tf.Tensor, tf.Tensor]:
    """Top left corner and size, int32 `(2,)` each, of a crop by area and aspect ratio."""
    begin, size, _ = tf.image.stateless_sample_distorted_bounding_box(
        shape,
        tf.zeros((1, 0, 4)),
        seed=order.sub_key(key, _CROP),
        min_object_covered=0.0,
        aspect_ratio_range=data.crop_aspect,
        area_range=data.crop_area,
        max_attempts=10,
        use_image_if_no_bounding_boxes=True,
    )
    return begin[:2], size[:2]


def _resize(image: tf.Tensor, transform: EvalTransform) -> tf.Tensor:
    pixels = tf.image.resize(image, transform.image_size, method=transform.interpolation)
    return tf.ensure_shape(preprocessing.to_uint8(pixels), (*transform.image_size, 3))


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
    if data.flip:
        chosen = randoms[:, _FLIP, None, None, None] < 0.5
        images = tf.where(chosen, images[:, :, ::-1], images)
    return images, labels


def _shift(images: tf.Tensor, randoms: tf.Tensor, share: float) -> tf.Tensor:
    """Moves each image by up to `share` of its sides; the border pixels are repeated."""
    for axis, slot in ((1, _SHIFT_Y), (2, _SHIFT_X)):
        side = images.shape[axis]
        reach = round(share * side)
        # Whole numbers from -reach to reach, each as likely.
        offset = tf.cast(randoms[:, slot] * (2 * reach + 1), tf.int32) - reach
        source = tf.clip_by_value(tf.range(side) + offset[:, None], 0, side - 1)
        images = tf.gather(images, source, axis=axis, batch_dims=1)
    return images
