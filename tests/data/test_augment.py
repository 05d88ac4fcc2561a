"""Augmentation by the batch: what it changes, and that it depends on the key alone."""

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from sklearn.datasets import load_sample_image

import lightnets.data
from keras_lightnets.preprocessing import EvalTransform
from lightnets.config import keys as configuration
from lightnets.data import augment
from lightnets.support.errors import UsageError


def batch(**data):
    settings = {"crop": "center", "flip": False} | data
    config = configuration.from_dict({"data": settings}).data
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (8, 16, 16, 3), np.uint8)
    randoms = rng.random((8, augment.RANDOM_NUMBERS), np.float32)
    labels = np.eye(8, dtype=np.float32)
    mixed, soft = augment.augment_batch(images, labels, randoms, config)
    # Half of the batch gives half of the result: shards see the same images.
    half, half_soft = augment.augment_batch(images[4:], labels[4:], randoms[4:], config)
    np.testing.assert_array_equal(half, mixed[4:])
    np.testing.assert_array_equal(half_soft, soft[4:])
    return images, np.asarray(mixed), np.asarray(soft)


@pytest.mark.parametrize(
    "data",
    [{"crop": "shift"}, {"color_jitter": 0.4}, {"random_erasing": 1.0}],
    ids=str,
)
def test_pixels_change_and_labels_do_not(data):
    before, after, soft = batch(**data)
    assert (before != after).any()
    np.testing.assert_array_equal(soft, np.eye(8, dtype=np.float32))


@pytest.mark.parametrize("data", [{"mixup": 1.0}, {"cutmix": 1.0}, {"mixup": 1.0, "cutmix": 1.0}])
def test_mixed_labels_say_how_much_of_each_image_is_there(data):
    before, after, soft = batch(**data)
    np.testing.assert_allclose(soft.sum(1), 1, rtol=1e-6)
    if "mixup" not in data:
        kept = (before == after).all(-1).mean((1, 2))
        np.testing.assert_allclose(kept, np.diag(soft), atol=1e-2)


def test_jpeg_crops_are_decoded_alone(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for number in range(4):
            image = Image.fromarray(load_sample_image("flower.jpg")).resize((80 + number, 60))
            image.save(tmp_path / name / f"{number}.jpg")
    config = configuration.from_dict(
        {"model": {"image_size": 32}, "data": {"dataset": str(tmp_path)}}
    )
    splits = lightnets.data.load(config)
    one, other = (next(iter(splits.train(2, global_batch=4)))[0].numpy() for _ in range(2))
    np.testing.assert_array_equal(one, other)
    assert one.std() > 10


def test_pairs_need_an_even_batch():
    config = configuration.from_dict({"data": {"mixup": 0.2}}).data
    with pytest.raises(UsageError, match="must be even"):
        augment.check_batch(config, 7)


def test_about_half_of_the_images_are_mirrored_and_the_rest_left_alone():
    """Caught: mirrored upside down, all or none mirrored, a choice that ignores the numbers."""
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    contents = tf.io.encode_png(image)
    transform = EvalTransform((5, 7), antialias=False)
    data = configuration.from_dict({"data": {"crop": "center", "flip": True}}).data
    for number in (0.0, 0.49, 0.51, 0.99):
        randoms = np.full(augment.RANDOM_NUMBERS, number, np.float32)
        found = augment.train_image(contents, np.array([1, 2]), randoms, data, transform)
        np.testing.assert_array_equal(found, image[:, ::-1] if number < 0.5 else image)


def test_a_resized_crop_is_rounded_not_cut_off():
    """Caught: a cast that truncates, or wraps around at white."""
    image = np.random.default_rng(0).choice([0, 1, 254, 255], (9, 11, 3)).astype(np.uint8)
    transform = EvalTransform((16, 16))
    found = augment._resize(image, transform).numpy().astype(int)
    exact = tf.image.resize(image, (16, 16)).numpy()
    assert np.abs(found - exact).max() <= 0.5


@pytest.mark.parametrize(("side", "scale"), [(32, 4), (64, 2), (128, 1)])
def test_large_jpegs_are_decoded_at_a_scale_still_larger_than_the_result(side, scale):
    """Caught: a smaller scale than is sharp, or a box in the wrong coordinates."""
    photo = load_sample_image("china.jpg")[:300, :300]
    contents = tf.io.encode_jpeg(photo, quality=95)
    data = configuration.from_dict({"data": {"crop_area": (0.75, 0.75), "flip": False}}).data
    key, randoms = tf.constant([3, 5], tf.int64), tf.zeros((augment.RANDOM_NUMBERS,))
    transform = EvalTransform((side, side))
    image = augment.train_image(contents, key, randoms, data, transform)
    begin, size = augment._random_box(tf.constant([300, 300, 3]), key, data, transform)
    assert min(size) >= scale * side
    whole = tf.io.decode_jpeg(contents, ratio=scale, dct_method="INTEGER_ACCURATE")
    top, left = (begin // scale).numpy()
    rows, columns = (size // scale).numpy()
    box = tf.image.resize(whole[top : top + rows, left : left + columns], (side, side))
    # But for chroma at the edges of the box.
    assert np.abs(image.numpy()[2:-2, 2:-2] - box.numpy()[2:-2, 2:-2]).max() <= 1


def test_a_crop_of_a_jpeg_has_the_pixels_of_resizing_uint8():
    """Caught: a conversion that rounds or scales."""
    contents = tf.io.encode_jpeg(load_sample_image("china.jpg")[:300, :300], quality=95)
    whole_image = {"crop_area": (1.0, 1.0), "crop_aspect": (1.0, 1.0), "flip": False}
    data = configuration.from_dict({"data": whole_image}).data
    key, randoms = tf.constant([3, 5], tf.int64), tf.zeros((augment.RANDOM_NUMBERS,))
    transform = EvalTransform((224, 224))
    image = augment.train_image(contents, key, randoms, data, transform)
    pixels = tf.io.decode_jpeg(contents, dct_method="INTEGER_ACCURATE")
    exact = tf.image.resize(pixels, (224, 224)).numpy()
    np.testing.assert_array_equal(image, np.floor(exact + 0.5))
