"""Merging of padding: same numbers, without the operations."""

import keras
import numpy as np
import pytest

import keras_lightnets
from keras_lightnets.serving.padding import kernel_growth, merge_padding

CONVOLUTIONS = {
    "conv": lambda **options: keras.layers.Conv2D(4, **options),
    "grouped": lambda **options: keras_lightnets.GroupedConv2D(4, groups=2, **options),
    "depthwise": lambda **options: keras.layers.DepthwiseConv2D(**options),
}


def padded(size, pad, convolution="conv", **options):
    """A net of padding and convolution whose weights are all different."""
    image = keras.Input((*size, 2))
    x = keras.layers.ZeroPadding2D(pad)(image)
    options = {"kernel_size": 3, "strides": 2, "bias_initializer": "normal"} | options
    return keras.Model(image, CONVOLUTIONS[convolution](**options)(x))


def paddings(model):
    return [layer for layer in model.layers if isinstance(layer, keras.layers.ZeroPadding2D)]


def assert_same(model, merged, size=None):
    size = size or model.input_shape[1:3]
    images = np.random.default_rng(0).normal(size=(2, *size, 2)).astype("float32")
    # The zeros add nothing, but the order of the additions is another.
    np.testing.assert_allclose(merged(images), model(images), atol=1e-5)


# A row on the wrong side of the kernel, or on both, gives the same shape and other numbers.
@pytest.mark.parametrize("convolution", CONVOLUTIONS)
@pytest.mark.parametrize(
    ("size", "pad", "kernel"),
    [
        ((8, 8), 1, (4, 4)),
        ((9, 9), 1, (3, 3)),
        ((8, 9), 1, (4, 3)),
        ((8, 8), ((0, 1), (0, 1)), (3, 3)),
        ((9, 8), ((1, 1), (0, 1)), (3, 3)),
    ],
)
def test_stride_two(convolution, size, pad, kernel):
    model = padded(size, pad, convolution)
    merged = merge_padding(model)
    assert not paddings(merged)
    assert merged.layers[-1].kernel_size == kernel
    assert_same(model, merged)


def test_stride_one_and_other_kernels():
    for options, pad in (
        ({"strides": 1}, 1),
        ({"kernel_size": 7}, 3),
        ({"kernel_size": (5, 3)}, (2, 1)),
        ({"kernel_size": 1}, ((0, 0), (0, 0))),
    ):
        model = padded((12, 10), pad, **options)
        merged = merge_padding(model)
        assert not paddings(merged), options
        assert_same(model, merged)


@pytest.mark.parametrize(
    ("size", "pad", "options"),
    [
        ((None, None), 1, {}),
        ((8, None), 1, {}),
        ((8, 8), 2, {}),
        ((8, 8), ((1, 0), (1, 0)), {"strides": 1}),
        ((8, 8), 1, {"strides": 1, "dilation_rate": 2}),
        ((8, 8), 1, {"padding": "same"}),
    ],
)
def test_what_is_left_alone(size, pad, options):
    model = padded(size, pad, **options)
    merged = merge_padding(model)
    assert paddings(merged)
    assert_same(model, merged, size=(8, 8))


def test_padding_with_another_user_is_left_alone():
    image = keras.Input((8, 8, 2))
    x = keras.layers.ZeroPadding2D(1)(image)
    model = keras.Model(image, [keras.layers.Conv2D(4, 3, strides=2)(x), x])
    assert paddings(merge_padding(model))


def test_every_growth_is_right():
    """Compares the first pixel that each window sees, for all small cases."""
    merged = 0
    for size in range(1, 12):
        for kernel in range(1, 6):
            for stride in (1, 2, 3):
                for pad in ((0, 0), (0, 1), (1, 0), (1, 1), (1, 2), (2, 2)):
                    padded_size = size + sum(pad)
                    growth = kernel_growth(padded_size, pad, kernel, stride)
                    if padded_size < kernel or growth is None:
                        continue
                    merged += 1
                    image = np.random.default_rng(0).normal(size=(1, size, 1)).astype("float32")
                    weights = np.arange(1.0, kernel + 1, dtype="float32")[:, None, None]
                    expected = keras.ops.conv(
                        np.pad(image, ((0, 0), pad, (0, 0))), weights, stride, "valid"
                    )
                    grown = np.pad(weights, (growth, (0, 0), (0, 0)))
                    result = keras.ops.conv(image, grown, stride, "same")
                    np.testing.assert_allclose(result, expected, atol=1e-5)
    assert merged > 50
