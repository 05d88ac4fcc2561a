"""Images of none of the classes: the rule as NumPy fits it, and as Keras computes it."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score

from keras_lightnets.errors import ExportError
from keras_lightnets.inference import parts, rejection
from keras_lightnets.inference.function import features_model, served_function
from tests.exports import SIZE, small_net


def softmax(logits):
    shares = np.exp(logits - logits.max(-1, keepdims=True))
    return shares / shares.sum(-1, keepdims=True)


def blobs(rng, centers, each):
    """Features around each center, brighter and darker: all of an image's grow together."""
    noise = rng.normal(size=(len(centers), each, centers.shape[1]))
    strength = rng.uniform(0.7, 1.5, (len(centers), each, 1))
    return (50 + strength * (centers[:, None] + noise)).reshape(-1, centers.shape[1])


def fitted(rng, classes=5, channels=30, coverage=0.95):
    centers = rng.normal(0, 4, (classes, channels))
    labels = np.repeat(np.arange(classes), 60)
    shares = softmax(rng.normal(size=(len(labels), classes)) + 3 * np.eye(classes)[labels])
    train, held_out = (blobs(rng, centers, 60) for _ in range(2))
    return centers, rejection.fit(train, labels, held_out, labels, shares, coverage)


def test_near_is_known_and_far_is_not():
    # Mutations: angles from zero instead of the center; lengths that count.
    rng = np.random.default_rng(0)
    centers, rule = fitted(rng)
    known = rule.distances(blobs(rng, centers, 400)) < rule.threshold
    assert 0.92 < known.mean() < 0.98
    others = rule.distances(blobs(rng, rng.normal(0, 4, (5, 30)), 100)) < rule.threshold
    assert others.mean() < 0.05


@pytest.mark.parametrize(("coverage", "images"), [(0.5, 1), (0.9, 9), (0.95, 19), (0.99, 99)])
def test_a_threshold_keeps_its_coverage_for_images_to_come(coverage, images):
    # Mutation: the quantile of the images themselves, which for few of them lies too low.
    assert rejection.least_images(coverage) == images
    rng = np.random.default_rng(1)
    *few, many = (
        np.mean(
            [
                np.mean(rng.chisquare(9, 400) <= rejection.threshold(rng.chisquare(9, n), coverage))
                for _ in range(400)
            ]
        )
        for n in (images, images + 1, 20 * images + 1)
    )
    assert min(few) > coverage - 0.01
    assert abs(many - coverage) < 0.04
    # None of the images that set it is a matter of rounding.
    distances = rng.chisquare(9, 40 * images)
    assert np.abs(distances - rejection.threshold(distances, coverage)).min() > 1e-5


def test_the_temperature_undoes_what_makes_a_network_too_certain():
    rng = np.random.default_rng(2)
    logits = rng.normal(0, 2, (4000, 6))
    labels = np.array([rng.choice(6, p=row) for row in softmax(logits)])
    assert rejection.temperature(labels, softmax(3 * logits)) == pytest.approx(3, rel=0.1)
    assert rejection.temperature(labels, softmax(0.5 * logits)) == pytest.approx(0.5, rel=0.1)
    # Images of which all are right say little about how certain one may be.
    right = np.arange(20) % 6
    certain = softmax(8 * np.eye(6)[right])
    answer = rejection.Rejection(rejection.temperature(right, certain), *[np.zeros(1)] * 2, 1.0)
    assert 0.9 < answer.calibrated(certain).max() < 0.999


@pytest.mark.parametrize("activation", ["softmax", None])
def test_keras_computes_what_numpy_does(activation, monkeypatch):
    # Mutations: features that are not centered; a threshold of the cosine for one of the distance.
    model = small_net(activation=activation)
    images = np.random.default_rng(3).integers(0, 256, (64, *SIZE, 3)).astype("float32")
    features = features_model(model).predict_on_batch(images)
    probabilities = model.predict_on_batch(images)
    if activation is None:
        probabilities = softmax(probabilities)
        model = keras.Model(model.inputs, keras.layers.Softmax()(model.outputs[0]))
    labels = np.arange(64) % 6
    rule = rejection.fit(features, labels, features, labels, probabilities, 0.5)
    answer = rejection.rejecting(model, rule).predict_on_batch(images)
    np.testing.assert_allclose(answer["probabilities"], rule.calibrated(probabilities), atol=1e-5)
    known = rule.distances(features) < rule.threshold
    assert answer["known"].tolist() == [[float(each)] for each in known]
    assert 25 < known.sum() < 40
    assert rejection.rejecting(model, None) is model
    # A server runs large batches in parts.
    monkeypatch.setattr(parts, "images_per_part", lambda graph: 8)
    spec = tf.TensorSpec((None, *SIZE, 3), tf.float32)
    served = served_function(rejection.rejecting(model, rule), spec)(images)
    for name, values in answer.items():
        np.testing.assert_allclose(served[name], values, atol=1e-5)


def test_a_network_without_a_classifier_cannot_reject():
    image = keras.Input((8, 8, 3))
    model = keras.Model(image, keras.layers.GlobalAveragePooling2D()(image), name="mean")
    _, rule = fitted(np.random.default_rng(0))
    with pytest.raises(ExportError, match="No classifier was found in 'mean'"):
        rejection.rejecting(model, rule)


@pytest.mark.slow
def test_digits_that_were_left_out_are_rejected():
    """The small version of `benchmarks/rejection.py`, whose floors are higher."""
    images, labels = load_digits(return_X_y=True)
    images = np.repeat(images.reshape(-1, 8, 8, 1), 3, axis=-1)
    order = np.random.default_rng(0).permutation(len(labels))
    left_out = labels >= 8
    train = order[300:][~left_out[order[300:]]]
    held_out = order[:300][~left_out[order[:300]]]
    x = image = keras.Input((8, 8, 3))
    x = keras.layers.Rescaling(1 / 8, offset=-1)(x)
    for filters in (32, 64, 128):
        x = keras.layers.Conv2D(filters, 3, padding="same", use_bias=False)(x)
        x = keras.layers.ReLU()(keras.layers.BatchNormalization(momentum=0.9)(x))
    x = keras.layers.GlobalAveragePooling2D()(x)
    model = keras.Model(image, keras.layers.Dense(8, activation="softmax", name="logits")(x))
    model.compile(keras.optimizers.Adam(0.003), "sparse_categorical_crossentropy")
    model.fit(images[train], labels[train], batch_size=64, epochs=12, verbose=0)
    look = features_model(model).predict
    features, near, far = (
        look(images[places], verbose=0) for places in (train, held_out, np.flatnonzero(left_out))
    )
    shares = model.predict(images[held_out], verbose=0)
    assert np.mean(shares.argmax(-1) == labels[held_out]) > 0.9
    rule = rejection.fit(features, labels[train], near, labels[held_out], shares, 0.95)
    near, far = map(rule.distances, (near, far))
    assert np.mean(near < rule.threshold) >= 0.95
    assert np.mean(far >= rule.threshold) > 0.7
    assert roc_auc_score(np.arange(len(near) + len(far)) >= len(near), [*near, *far]) > 0.93
