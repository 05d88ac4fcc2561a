"""The bundled digits: a real TFDS data set that is prepared without a network."""

import numpy as np
import pytest
import tensorflow as tf
from sklearn.datasets import load_digits

import lightnets.data
from lightnets.config import keys as configuration


@pytest.fixture(scope="module")
def splits(tmp_path_factory):
    config = configuration.from_dict(
        {
            "model": {"image_size": 32},
            "data": {
                "dataset": "digits",
                "data_dir": str(tmp_path_factory.mktemp("tfds")),
                "resize_shorter": 32,
                "crop": "shift",
                "flip": False,
            },
        }
    )
    return lightnets.data.load(config)


@pytest.mark.slow
def test_every_digit_is_there_once_with_its_label(splits):
    images, labels = load_digits(return_X_y=True)
    expected = sorted(
        (bytes(np.round(i * 255 / 16).astype("uint8")), int(y))
        for i, y in zip(images, labels, strict=True)
    )
    found = []
    for source in (splits.train_source, splits.eval_source):
        for position, label in enumerate(source.read_labels()):
            pixels = tf.io.decode_png(source.contents(position))
            found.append((bytes(pixels.numpy()), int(label)))
    assert (splits.train_examples, splits.eval_examples) == (1437, 360)
    assert sorted(found) == expected


def test_both_splits_are_stratified(splits):
    counts = np.bincount(splits.eval_source.read_labels())
    assert counts.min() >= 34
    assert counts.max() <= 38


def test_shapes_and_types_of_batches(splits):
    images, labels, weights = next(iter(splits.train(0, global_batch=16)))
    assert (images.shape, images.dtype) == ((16, 32, 32, 3), tf.uint8)
    assert (labels.shape, labels.dtype) == ((16, 10), tf.float32)
    np.testing.assert_array_equal(weights, np.ones(16, "float32"))


def test_evaluation_is_padded_with_weight_zero(splits):
    batches = list(splits.evaluation(50))
    assert [float(tf.reduce_sum(weights)) for _, _, weights in batches] == [50.0] * 7 + [10.0]
    assert all(images.shape[0] == 50 for images, _, _ in batches)
    labels = np.concatenate([np.argmax(y, 1)[np.asarray(w) > 0] for _, y, w in batches])
    np.testing.assert_array_equal(labels, splits.eval_source.read_labels())
