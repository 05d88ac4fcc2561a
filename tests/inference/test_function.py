"""A classifier made for inference gives probabilities, whatever it ends in."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_lightnets

IMAGES = np.random.default_rng(0).uniform(0, 9, (2, 32, 32, 3)).astype("float32")


def squeezenet():
    return keras_lightnets.SqueezeNet((32, 32, 3), classes=3, classifier_activation=None)


def mixed_precision_of_keras_guide():
    image = keras.Input((32, 32, 3))
    x = keras.layers.Dense(3)(keras.layers.GlobalAveragePooling2D()(image))
    return keras.Model(image, keras.layers.Activation("linear", dtype="float32")(x))


def convolution_at_the_end():
    image = keras.Input((32, 32, 3))
    x = keras.layers.GlobalAveragePooling2D(keepdims=True)(keras.layers.Conv2D(3, 1)(image))
    return keras.Model(image, keras.layers.Flatten()(x))


def network_in_a_network():
    return keras.Sequential([keras.Input((32, 32, 3)), convolution_at_the_end()])


@pytest.mark.parametrize(
    "build",
    [squeezenet, mixed_precision_of_keras_guide, convolution_at_the_end, network_in_a_network],
)
def test_logits_become_probabilities_and_these_stay(build):
    model = build()
    expected = tf.nn.softmax(model(IMAGES))
    cast = keras.layers.Activation("linear", dtype="float32")
    softmax = keras.Sequential([keras.Input((32, 32, 3)), model, keras.layers.Softmax(), cast])
    for classifier in (model, softmax):
        answer = keras_lightnets.inference_function(classifier)(IMAGES)
        np.testing.assert_allclose(answer, expected, atol=1e-5)


def test_one_logit_is_refused_and_its_sigmoid_is_not():
    image = keras.Input((32, 32, 3))
    x = keras.layers.Dense(1)(keras.layers.GlobalAveragePooling2D()(image))
    with pytest.raises(ValueError, match="ends in one number, whose softmax is always 1"):
        keras_lightnets.inference_function(keras.Model(image, x))
    model = keras.Model(image, keras.layers.Activation("sigmoid")(x))
    answer = keras_lightnets.inference_function(model)(IMAGES)
    np.testing.assert_allclose(answer, model(IMAGES), atol=1e-6)
