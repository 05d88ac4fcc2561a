"""Merging of padding: same numbers, without the operations."""

import keras
import numpy as np
import pytest

import keras_lightnets
from keras_lightnets.inference.padding import HalfTurn, merge_padding
from keras_lightnets.layers import DepthwiseConv2D

WINDOWS = {
    "conv": lambda **options: keras.layers.Conv2D(4, **({"kernel_size": 3} | options)),
    "grouped": lambda **options: keras_lightnets.GroupedConv2D(4, 3, groups=2, **options),
    "depthwise": lambda **options: keras.layers.DepthwiseConv2D(3, **options),
    "own": lambda **options: DepthwiseConv2D(**({"kernel_size": 3} | options)),
    "average": lambda **options: keras.layers.AveragePooling2D(3, **options),
    "maximum": lambda **options: keras.layers.MaxPooling2D(3, **options),
}


def padded(size, pad, window="conv", **options):
    """A net of padding and one window layer, whose features are what a classifier sees.

    The image has a slope, so that neither of its halves looks like the other.
    """
    image = keras.Input((*size, 2))
    x = keras.layers.ReLU()(image)
    if window == "own":
        options["padding"] = ((pad, pad), (pad, pad)) if isinstance(pad, int) else pad
    else:
        x = keras.layers.ZeroPadding2D(pad)(x)
    x = WINDOWS[window](**({"strides": 2} | options))(x)
    return with_weights(keras.Model(image, features(x)))


def features(x):
    """Means, and maxima, which tell other pixels apart than means do."""
    pools = (keras.layers.GlobalAveragePooling2D, keras.layers.GlobalMaxPooling2D)
    return keras.layers.Concatenate()([pool()(x) for pool in pools])


def with_weights(model):
    rng = np.random.default_rng(1)
    for variable in model.variables:
        variable.assign(rng.normal(size=variable.shape))
    return model


def paddings(model):
    """Layers that run a padding operation."""
    return [
        layer
        for layer in model.layers
        if isinstance(layer, keras.layers.ZeroPadding2D) or getattr(layer, "pads", None)
    ]


def is_turned(model):
    return any(isinstance(layer, HalfTurn) for layer in model.layers)


def assert_same(model, merged):
    rng = np.random.default_rng(0)
    images = rng.normal(size=(2, *(size or 8 for size in model.input_shape[1:3]), 2))
    images = (images + np.linspace(0, 3, images.shape[1])[:, None, None]).astype("float32")
    # The order of the additions is another.
    np.testing.assert_allclose(merged(images), model(images), rtol=1e-4, atol=1e-5)


# Padding on the wrong side gives the same shapes and other numbers.
@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("size", [(8, 8), (9, 9), (8, 9), (2, 1)])
def test_a_pixel_on_every_side_before_stride_two(window, size):
    model = padded(size, 1, window)
    merged = merge_padding(model)
    assert not paddings(merged)
    assert is_turned(merged)
    assert_same(model, merged)


@pytest.mark.parametrize(
    ("size", "pad", "options"),
    [
        ((None, None), 1, {}),
        ((8, None), 1, {}),
        ((8, 8), 2, {}),
        ((8, 8), ((0, 1), (0, 1)), {}),
        ((8, 8), ((1, 0), (1, 0)), {}),
        ((8, 8), 1, {"strides": 1}),
        ((8, 8), 1, {"strides": (2, 1)}),
        ((8, 8), 1, {"kernel_size": 5}),
        ((8, 8), 1, {"kernel_size": (3, 2)}),
        ((8, 8), 1, {"strides": 1, "dilation_rate": 2}),
        ((8, 8), 1, {"padding": "same"}),
        ((8, 8), 1, {"data_format": "channels_first"}),
    ],
)
def test_what_is_left_alone(size, pad, options):
    model = padded(size, pad, **options) if "data_format" not in options else _channels_first()
    merged = merge_padding(model)
    assert paddings(merged)
    assert not is_turned(merged)
    if "data_format" not in options:  # the CPU has no such convolution
        assert_same(model, merged)


def _channels_first():
    image = keras.Input((2, 8, 8))
    x = keras.layers.ZeroPadding2D(1, data_format="channels_first")(image)
    x = keras.layers.Conv2D(4, 3, strides=2, data_format="channels_first")(x)
    return keras.Model(image, keras.layers.GlobalAveragePooling2D(data_format="channels_first")(x))


@pytest.mark.parametrize(
    ("pad", "options"),
    [
        (2, {}),
        (((0, 1), (0, 1)), {}),
        (((1, 0), (1, 0)), {"strides": 1}),
        (1, {"kernel_size": 5}),
        (1, {"strides": 1, "dilation_rate": 2}),
    ],
)
def test_what_a_depthwise_convolution_pads_otherwise_is_left_alone(pad, options):
    model = padded((8, 8), pad, "own", **options)
    merged = merge_padding(model)
    assert paddings(merged)
    assert not is_turned(merged)
    assert_same(model, merged)


def test_padding_with_another_user_is_left_alone():
    image = keras.Input((8, 8, 2))
    x = keras.layers.ZeroPadding2D(1)(image)
    model = keras.Model(image, [keras.layers.Conv2D(4, 3, strides=2)(x), x])
    assert paddings(merge_padding(model))


def test_maximum_of_negative_numbers_keeps_its_zeros():
    image = keras.Input((9, 9, 2))
    x = keras.layers.ZeroPadding2D(1)(keras.layers.Activation("tanh")(image))
    x = keras.layers.MaxPooling2D(3, 2)(x)
    model = keras.Model(image, keras.layers.GlobalAveragePooling2D()(x))
    merged = merge_padding(model)
    assert paddings(merged)
    images = np.full((1, 9, 9, 2), -1, "float32")
    np.testing.assert_array_equal(merged(images), model(images))


def _flatten(x):
    return keras.layers.Flatten()(x)


def _another_same(x):
    """Of an even size with stride 2: wrong if turned."""
    return keras.layers.GlobalMaxPooling2D()(keras.layers.MaxPooling2D(3, 2, "same")(x))


def _another_valid(x):
    """Windows of stride 2 that leave the last row and column out."""
    return keras.layers.GlobalMaxPooling2D()(keras.layers.Conv2D(3, 1, strides=2)(x))


def _not_merged(x):
    x = keras.layers.ZeroPadding2D(2)(x)
    return keras.layers.GlobalMaxPooling2D()(keras.layers.Conv2D(3, 3)(x))


def _unknown(x):
    return keras.layers.GlobalMaxPooling2D()(keras.layers.Cropping2D(((1, 0), (0, 0)))(x))


def _along_the_rows(x):
    x = keras.layers.GlobalMaxPooling2D()(keras.layers.Concatenate(axis=1)([x, x[:, :1]]))
    return x


def _a_map(x):
    return x


@pytest.mark.parametrize(
    "end",
    [
        _flatten,
        _another_same,
        _another_valid,
        _not_merged,
        _unknown,
        _along_the_rows,
        _a_map,
    ],
)
def test_images_that_may_not_be_turned(end):
    image = keras.Input((16, 16, 2))
    x = keras.layers.ZeroPadding2D(1)(image)
    x = keras.layers.Conv2D(4, 3, strides=2)(x)
    model = with_weights(keras.Model(image, end(x)))
    merged = merge_padding(model)
    assert not is_turned(merged)
    assert paddings(merged)
    assert_same(model, merged)


def test_inner_model():
    inner = padded((8, 8), 1)
    image = keras.Input((8, 8, 2))
    model = with_weights(keras.Model(image, keras.layers.Dense(3)(inner(image))))
    merged = merge_padding(model)
    assert is_turned(merged.layers[1])
    assert_same(model, merged)


@pytest.mark.parametrize("name", ["mobilenet_v1", "mobilenet_v2", "shufflenet_v1", "shufflenet_v2"])
def test_networks_lose_all_padding(name):
    model = keras_lightnets.create_model(name, input_shape=(64, 96, 3), classes=10, alpha=0.5)
    assert paddings(model)
    merged = merge_padding(model)
    assert not paddings(merged)
    images = np.random.default_rng(0).uniform(size=(2, 64, 96, 3)).astype("float32")
    np.testing.assert_allclose(merged(images), model(images), rtol=1e-3, atol=1e-6)
