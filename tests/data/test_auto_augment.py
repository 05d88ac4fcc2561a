"""RandAugment and TrivialAugment: each operation is Pillow's, and the draw depends on the key."""

from __future__ import annotations

import dataclasses
import hashlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageEnhance, ImageOps
from sklearn.datasets import load_sample_image

from lightnets.config import keys as configuration
from lightnets.data import arrays, auto_augment
from lightnets.data.sources import order


def photograph() -> Image.Image:
    # Low contrast, so that autocontrast has something to do; sides differ to tell x from y.
    image = Image.fromarray(load_sample_image("flower.jpg")).resize((61, 40))
    return ImageEnhance.Contrast(image).enhance(0.7)


def affine(*matrix):
    return lambda image: image.transform(image.size, Image.AFFINE, matrix, Image.BILINEAR)


# Range, level and sign of an operation, and what Pillow makes of the value they stand for.
OPERATIONS = {
    "shear_x": ({"shear": 0.3}, 1, 1, affine(1, 0.3, 0, 0, 1, 0)),
    "shear_y": ({"shear": 0.6}, 0.5, -1, affine(1, 0, 0, -0.3, 1, 0)),
    "translate_x": ({"translate": 7.0}, 1, 1, affine(1, 0, 7, 0, 1, 0)),
    "translate_y": ({"translate": 0.5}, 0.36, -1, affine(1, 0, 0, 0, 1, -7)),
    "rotate": ({"rotate": 54}, 0.5, 1, lambda image: image.rotate(27, Image.BILINEAR)),
    "brightness": ({"enhance": 0.7}, 1, 1, lambda i: ImageEnhance.Brightness(i).enhance(1.7)),
    "color": ({"enhance": 0.8}, 1, -1, lambda image: ImageEnhance.Color(image).enhance(0.2)),
    "contrast": ({"enhance": 0.8}, 1, 1, lambda image: ImageEnhance.Contrast(image).enhance(1.8)),
    "sharpness": ({"enhance": 0.9}, 1, 1, lambda i: ImageEnhance.Sharpness(i).enhance(1.9)),
    "posterize": ({"posterize": 5}, 1, 1, lambda image: ImageOps.posterize(image, 3)),
    "solarize": ({}, 156 / 256, 1, lambda image: ImageOps.solarize(image, 100)),
    "autocontrast": ({}, 1, 1, ImageOps.autocontrast),
    "equalize": ({}, 1, 1, ImageOps.equalize),
}
GEOMETRIC = ("shear_x", "shear_y", "translate_x", "translate_y", "rotate")


def operation(name, image):
    """Returns what the operation makes of an image, and what Pillow does."""
    ranges, level, sign, pillow = OPERATIONS[name]
    space = dataclasses.replace(auto_augment.SPACES["randaugment"], **ranges)
    pixels = tf.constant(np.asarray(image))
    numbers = tf.constant(level, tf.float32), tf.constant(sign, tf.float32)
    return auto_augment.operations(pixels, *numbers, space)[name]().numpy(), pillow


@pytest.mark.parametrize("name", OPERATIONS)
def test_each_operation_is_pillows(name):
    """Caught: shear, rotation or translation the other way, another centre, wrong luma."""
    image = photograph()
    ours, pillow = operation(name, image)
    sound = np.ones((40, 61), bool)
    if name in GEOMETRIC:
        # Where there is no source pixel, or one at the border, the two fill in otherwise.
        inside = np.pad(np.full((38, 59), 255, np.uint8), 1)
        sound = np.asarray(pillow(Image.fromarray(inside))) == 255
    assert sound.mean() > 0.5
    difference = np.abs(ours.astype(int) - np.asarray(pillow(image)).astype(int))
    assert (np.asarray(image) != ours).any()
    assert difference[sound].max() <= (2 if name == "sharpness" else 1)


@pytest.mark.parametrize("name", ["autocontrast", "equalize"])
def test_one_colour_stays(name):
    image = np.full((5, 4, 3), [0, 100, 255], np.uint8)
    np.testing.assert_array_equal(operation(name, image)[0], image)


@pytest.mark.parametrize("kind", auto_augment.SPACES)
def test_every_operation_is_drawn_and_some_images_differ(kind):
    """Caught: the same sub-key for all; a branch that never runs; a float where uint8 belongs."""
    image = tf.constant(np.asarray(photograph()))
    function = tf.function(lambda key: auto_augment.auto_augment(image, key, kind))
    results = [
        function(key).numpy() for key in order.example_keys(1, 0, tf.range(60, dtype="int64"))
    ]
    assert {result.dtype for result in results} == {np.dtype(np.uint8)}
    assert {result.shape for result in results} == {(40, 61, 3)}
    assert len({result.tobytes() for result in results}) > 30


@pytest.mark.slow
@pytest.mark.parametrize("kind", auto_augment.SPACES)
def test_batches_depend_on_seed_and_step_alone(kind):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (12, 16, 16, 3), np.uint8)

    def digests(threads=1, shards=1, seed=0, start=0, steps=2, policy=kind):
        data = {"auto_augment": policy, "crop": "center", "flip": False, "num_threads": threads}
        config = configuration.from_dict(
            {"model": {"image_size": 16}, "data": data, "train": {"seed": seed}}
        )
        splits = arrays.from_arrays(config, (images, np.arange(12)), (images, np.arange(12)))
        parts = [
            splits.train(start, global_batch=12, shard=shard, shards=shards).take(steps)
            for shard in range(shards)
        ]
        whole = zip(*(part.as_numpy_iterator() for part in parts), strict=True)
        return [hashlib.sha256(b"".join(p[0].tobytes() for p in step)).digest() for step in whole]

    once = digests()
    assert once == digests(threads=4) == digests(threads=2, shards=2)
    assert once[1:] == digests(start=1, steps=1)
    assert once[0] != once[1]  # another epoch
    assert once != digests(seed=1)
    assert once != digests(policy="none")
