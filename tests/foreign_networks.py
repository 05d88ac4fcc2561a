"""Networks as others write them, for `--model tests.foreign_networks:NAME`."""

import keras
import numpy as np
from keras import layers


def plain(input_shape, classes, rate=0.2, filters=8):
    """What a tutorial shows; ends in a softmax of its own."""
    return keras.Sequential(
        [
            keras.Input(input_shape),
            layers.Rescaling(1 / 255),
            layers.Conv2D(filters, 3, strides=2, use_bias=False),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.Dropout(rate),
            layers.GlobalAveragePooling2D(),
            layers.Dense(classes, activation="softmax"),
        ]
    )


def nested(input_shape, classes):
    """Models in models that do not learn, operations without a name; ends in logits."""
    inner = keras.Input((*input_shape[:2], 8))
    x = layers.BatchNormalization(name="conv2d")(layers.Conv2D(8, 3, padding="same")(inner))
    base = keras.Model(inner, x + inner)
    base.trainable = False
    image = keras.Input(input_shape)
    x = layers.Conv2D(8, 3, padding="same")(layers.RandomFlip()(image) / 127.5 - 1)
    x = base(x, training=False)
    top = keras.Sequential([layers.GlobalAveragePooling2D(), layers.Dense(classes)])
    return keras.Model(image, top(x))


def convolutional(input_shape, classes):
    """Of images of any size, with groups and a layer that is used twice; ends in a convolution."""
    image = keras.Input((None, None, 3))
    mean, variance = np.full(3, 100.0), np.full(3, 2500.0)
    x = layers.Conv2D(8, 3, strides=2)(layers.Normalization(mean=mean, variance=variance)(image))
    shared = layers.Conv2D(8, 3, groups=4, padding="same")
    x = layers.BatchNormalization()(shared(shared(x)))
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(classes, 1, name="logits")(x))
    return keras.Model(image, layers.Softmax()(x))


def normalized(input_shape, classes):
    """With statistics of images that it has seen, as another model's weights."""
    adapted = layers.Normalization()
    adapted.adapt(np.random.default_rng(0).uniform(0, 255, (8, *input_shape)))
    image = keras.Input(input_shape)
    return keras.Model(image, layers.Dense(classes)(layers.Flatten()(adapted(image))))


def turned(input_shape, classes):
    """Turns images in training, which XLA cannot."""
    return _ends(input_shape, layers.RandomRotation(0.1), layers.Flatten(), layers.Dense(classes))


def _ends(input_shape, *ends):
    image = x = keras.Input(input_shape)
    for layer in ends:
        x = layer(x)
    return keras.Model(image, x)


class Unregistered(layers.Layer):
    def call(self, inputs):
        return inputs


class Subclassed(keras.Model):
    def __init__(self, classes):
        super().__init__()
        self.dense = layers.Dense(classes)

    def call(self, inputs):
        return self.dense(inputs)


def sigmoids(input_shape, classes):
    return _ends(input_shape, layers.Flatten(), layers.Dense(classes, "sigmoid", name="each"))


def one_more(input_shape, classes):
    return _ends(input_shape, layers.Flatten(), layers.Dense(classes + 1, name="wide"))


def no_head(input_shape, classes):
    pool = layers.GlobalAveragePooling2D()
    gate = layers.BatchNormalization(name="gate")
    return _ends(input_shape, layers.Conv2D(classes, 1), pool, gate, layers.Softmax())


def code(input_shape, classes):
    return _ends(
        input_shape, layers.Lambda(lambda x: 2 * x), layers.Flatten(), layers.Dense(classes)
    )


def unregistered(input_shape, classes):
    return _ends(input_shape, Unregistered(name="mine"), layers.Flatten(), layers.Dense(classes))


def stateful(input_shape, classes):
    spectral = layers.SpectralNormalization(layers.Conv2D(4, 3), name="spectral")
    return _ends(input_shape, spectral, layers.Flatten(), layers.Dense(classes))


def subclassed(input_shape, classes):
    return Subclassed(classes)


def subclassed_inside(input_shape, classes):
    return _ends(input_shape, layers.Flatten(), Subclassed(classes))


def two_outputs(input_shape, classes):
    image = keras.Input(input_shape)
    x = layers.Dense(classes)(layers.Flatten()(image))
    return keras.Model(image, [x, layers.Softmax()(x)])


def fixed_size(input_shape, classes):
    image = keras.Input((64, 48, 3), name="large")
    return keras.Model(image, layers.Dense(classes)(layers.Flatten()(image)))


def unbuilt(input_shape, classes):
    return keras.Sequential([layers.Flatten(), layers.Dense(classes)])


def broken(input_shape, classes):
    return layers.Dense(classes)(1 + input_shape)


def no_network(input_shape, classes):
    return "a network"
