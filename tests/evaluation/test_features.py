"""Features stored once, and what follows from them: neighbours, wrong labels, activation maps."""

import keras
import numpy as np
import pytest

import keras_lightnets
from lightnets import data
from lightnets.config import keys as configs
from lightnets.evaluation import activation, features, suspects
from lightnets.evaluation.scoring import calibration
from tests import toy


def clusters(each=30, classes=4, apart=10.0, seed=0):
    """Features of classes that lie apart, and their class numbers."""
    random = np.random.default_rng(seed)
    labels = np.repeat(np.arange(classes), each)
    centres = apart * np.eye(classes, 16)
    return (centres[labels] + random.normal(size=(len(labels), 16))).astype(np.float32), labels


def test_features_are_those_of_each_picture_in_order(tmp_path):
    """Caught: the images that fill the last batch up, and another order."""
    dataset = toy.noise_files(tmp_path, 45, ("a", "b"))
    splits = data.load(
        configs.from_dict({"model": {"image_size": 32}, "data": {"dataset": str(dataset)}})
    )
    source, model = splits.train_source, toy.pooled_network(2)
    assert source.count % features.BATCH
    found = features.extract(model, splits, source).features
    images = np.stack(list(splits.images(source, range(source.count)))).astype(np.float32)
    pooled = keras.Model(model.inputs[0], model.get_layer("logits").input)
    np.testing.assert_allclose(found, pooled(images), atol=1e-3)
    same = features.nearest(2 * found, found)
    assert same[:, 0].tolist() == list(range(source.count)), "the length does not matter"


def test_no_image_is_judged_by_a_classifier_that_has_seen_it():
    found, labels = clusters()
    told = features.cross_validated(found, labels, 6)
    assert np.mean(told.argmax(-1) == labels) == 1
    np.testing.assert_allclose(told.sum(-1), 1, rtol=1e-6)
    random = np.random.default_rng(1)
    noise, labels = random.normal(size=(120, 300)), random.integers(0, 4, 120)
    told = features.cross_validated(noise, labels, 4)
    assert np.mean(told.argmax(-1) == labels) < 0.7, "known by heart"


def test_a_class_of_one_image_is_no_obstacle():
    found, labels = clusters(each=2, classes=3)
    assert features.cross_validated(found[:-1], labels[:-1], 3).shape == (5, 3)
    assert features.cross_validated(found[1:4], labels[1:4], 3) is None


def test_a_network_that_sees_nothing_is_no_obstacle():
    _, labels = clusters()
    told = features.cross_validated(np.ones((len(labels), 5), np.float32), labels, 4)
    np.testing.assert_allclose(told, 0.25, atol=1e-3)


def test_wrong_labels_are_found_and_right_ones_left_alone():
    found, labels = clusters()
    given, wrong = labels.copy(), np.arange(0, len(labels), 20)
    given[wrong] = (labels[wrong] + 1) % 4
    rows = suspects.find(given, features.cross_validated(found, given, 4))
    assert sorted(row.place for row in rows) == wrong.tolist()
    assert [row.likely for row in rows] == [labels[row.place] for row in rows]
    assert [row.margin for row in rows] == sorted(row.margin for row in rows)
    assert suspects.find(labels, np.eye(4)[labels]) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", ["squeezenet", "shufflenet_v1_g1_x0_25"])
def test_the_mean_of_a_map_is_the_logit(name):
    model = keras_lightnets.create_model(
        name, input_shape=(64, 64, 3), classes=3, include_preprocessing=True
    )
    images = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), np.uint8)
    classes = np.array([2, 0])
    found = activation.maps(model)(images, classes)
    logits = np.asarray(keras_lightnets.logits_model(model)(images.astype(np.float32)))
    np.testing.assert_allclose(found.mean((1, 2)), logits[[0, 1], classes], rtol=1e-5)
    assert found.std() > 0


def test_a_network_without_global_pooling_has_no_maps():
    image = keras.Input((8, 8, 3))
    x = keras.layers.Flatten()(image)
    assert activation.maps(keras.Model(image, keras.layers.Dense(2)(x))) is None


def test_a_quantized_network_has_no_maps_of_another_layer():
    # Mutation: the layer that rounds the logits for the classifier; a map was then a channel's.
    image = keras.Input((8, 8, 3))
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(2, 3)(image))
    model = keras.Model(image, keras.layers.Dense(2, name="logits")(x))
    assert activation.maps(model) is not None
    images = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), np.uint8)
    assert activation.maps(keras_lightnets.quantize_aware(model, images)) is None


def test_the_calibration_error_is_that_of_its_definition():
    sure = np.array([0.55, 0.55, 0.95, 0.95])
    probabilities = np.stack([sure, 1 - sure], axis=-1)
    error, rows = calibration(np.array([0, 1, 0, 0]), probabilities)
    assert rows == [(pytest.approx(0.55), 0.5, 2), (pytest.approx(0.95), 1.0, 2)]
    assert error == pytest.approx(0.05)
