"""From the bytes of an image file to the pixels that a network sees."""

from keras_lightnets.preprocessing.decode import MAX_PIXELS, decode_image
from keras_lightnets.preprocessing.transform import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    EvalTransform,
    evaluation_image,
    transform_image,
)

__all__ = [
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "MAX_PIXELS",
    "EvalTransform",
    "decode_image",
    "evaluation_image",
    "transform_image",
]
