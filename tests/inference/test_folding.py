"""What `fold_batch_norm` folds, and what it leaves alone."""

import keras
import numpy as np
import pytest

from keras_lightnets.inference.folding import fold_batch_norm
from keras_lightnets.layers import FusedBatchNormalization, GroupedConv2D

layers = keras.layers


def randomize(model, seed=0):
    """Gives every variable a value that no initializer gives; variances stay positive."""
    rng = np.random.default_rng(seed)
    for variable in model.variables:
        low, high = (0.5, 2.0) if variable.name in ("moving_variance", "gamma") else (-0.5, 0.5)
        if "int" not in variable.dtype:
            variable.assign(rng.uniform(low, high, variable.shape).astype("float32"))


def norms(model):
    found = []
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            found += norms(layer)
        elif isinstance(layer, layers.BatchNormalization):
            found.append(layer.name)
    return found


def check(model, expected_norms=(), tolerance=1e-5):
    randomize(model)
    before = [v.numpy() for v in model.variables]
    shape = [size or 9 for size in model.inputs[0].shape[1:]]
    x = np.random.default_rng(1).normal(size=(3, *shape)).astype("float32")
    folded = fold_batch_norm(model)
    assert norms(folded) == list(expected_norms)
    expected = keras.tree.flatten(model(x, training=False))
    received = keras.tree.flatten(folded(x, training=False))
    assert len(expected) == len(received)
    for one, other in zip(expected, received, strict=True):
        np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance)
    for variable, value in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(variable, value)  # the original is left as it is
    return folded


def two_layers(layer, norm=None, shape=(9, 9, 6)):
    inputs = keras.Input(shape, name="image")
    return keras.Model(inputs, (norm or layers.BatchNormalization())(layer(inputs)))


FOLDED = {
    "conv": lambda: layers.Conv2D(5, 3, use_bias=False),
    "conv_with_bias": lambda: layers.Conv2D(5, 3, strides=2, padding="same"),
    "dilated": lambda: layers.Conv2D(5, 3, dilation_rate=2, use_bias=False),
    "grouped": lambda: GroupedConv2D(9, 1, groups=3, use_bias=False),
    "depthwise": lambda: layers.DepthwiseConv2D(3, use_bias=False),
    "depth_multiplier": lambda: layers.DepthwiseConv2D(3, depth_multiplier=3),
    "separable": lambda: layers.SeparableConv2D(5, 3),
    "transposed": lambda: layers.Conv2DTranspose(5, 3, strides=2),
    "dense": lambda: layers.Dense(4),
}


@pytest.mark.parametrize("make", FOLDED.values(), ids=FOLDED)
def test_folds_into(make):
    # Mutation: scaling a transposed kernel along its last axis; depth multiplier transposed.
    folded = check(two_layers(make()))
    assert folded.layers[0].name == "image"
    assert folded.layers[1].use_bias


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (lambda: layers.Conv1D(5, 3), (9, 4)),
        (lambda: layers.Conv3D(5, 2), (4, 4, 4, 2)),
        (lambda: layers.DepthwiseConv1D(3), (9, 4)),
        (lambda: layers.Conv1DTranspose(5, 3), (9, 4)),
    ],
)
def test_folds_in_other_ranks(make, shape):
    check(two_layers(make(), shape=shape))


@pytest.mark.parametrize(
    "norm",
    [
        lambda: layers.BatchNormalization(scale=False, epsilon=0.1),
        lambda: layers.BatchNormalization(center=False),
        lambda: layers.BatchNormalization(scale=False, center=False),
        lambda: FusedBatchNormalization(epsilon=1e-2),
        lambda: layers.BatchNormalization(axis=3),
    ],
)
def test_folds_every_kind_of_norm(norm):
    # Mutation: the epsilon of the norm ignored.
    check(two_layers(layers.Conv2D(5, 3), norm()))


class OwnConv(layers.Conv2D):
    def call(self, inputs):
        return 2.0 * super().call(inputs)


def relu_inside():
    return two_layers(layers.Conv2D(5, 3, activation="relu"))


def norm_of_concatenation():
    x = keras.Input((9, 9, 3))
    y = layers.Concatenate()([layers.Conv2D(2, 3)(x), layers.Conv2D(3, 3)(x)])
    return keras.Model(x, layers.BatchNormalization(name="norm")(y))


def norm_of_sum():
    x = keras.Input((9, 9, 3))
    y = layers.Conv2D(2, 3)(x) + layers.Conv2D(2, 3)(x)
    return keras.Model(x, layers.BatchNormalization(name="norm")(y))


def norm_of_input():
    x = keras.Input((9, 9, 3))
    return keras.Model(x, layers.Conv2D(2, 3)(layers.BatchNormalization(name="norm")(x)))


def second_norm():
    x = keras.Input((9, 9, 3))
    y = layers.BatchNormalization()(layers.Conv2D(2, 3)(x))
    return keras.Model(x, layers.BatchNormalization(name="norm")(y))


def two_users():
    x = keras.Input((9, 9, 3))
    y = layers.Conv2D(2, 3)(x)
    return keras.Model(x, layers.Add()([y, layers.BatchNormalization(name="norm")(y)]))


def output_of_the_model():
    x = keras.Input((9, 9, 3))
    y = layers.Conv2D(2, 3)(x)
    return keras.Model(x, [y, layers.BatchNormalization(name="norm")(y)])


def shared_convolution():
    x = keras.Input((9, 9, 3))
    conv = layers.Conv2D(3, 3, padding="same")
    y = layers.BatchNormalization(name="norm")(conv(x))
    return keras.Model(x, conv(y))


def shared_norm():
    x = keras.Input((9, 9, 3))
    norm = layers.BatchNormalization(name="norm")
    return keras.Model(x, norm(layers.Conv2D(2, 3)(x)) + norm(layers.Conv2D(2, 3)(x)))


def other_axis():
    return two_layers(layers.Conv2D(5, 3), layers.BatchNormalization(axis=1, name="norm"))


def statistics_of_the_batch():
    x = keras.Input((9, 9, 3))
    norm = layers.BatchNormalization(name="norm")
    return keras.Model(x, norm(layers.Conv2D(2, 3)(x), training=True))


def subclass():
    return two_layers(OwnConv(5, 3), layers.BatchNormalization(name="norm"))


LEFT_ALONE = [
    norm_of_concatenation,
    norm_of_sum,
    norm_of_input,
    second_norm,
    two_users,
    output_of_the_model,
    shared_convolution,
    shared_norm,
    other_axis,
    statistics_of_the_batch,
    subclass,
]


@pytest.mark.parametrize("make", LEFT_ALONE, ids=lambda make: make.__name__)
def test_leaves_alone(make):
    check(make(), ["norm"])


def test_leaves_alone_an_activation_inside_the_convolution():
    model = relu_inside()
    check(model, norms(model))


def test_leaves_alone_quantized_layers():
    model = two_layers(layers.Dense(4), layers.BatchNormalization(name="norm"))
    model.layers[1].quantize("int8")
    assert norms(fold_batch_norm(model)) == ["norm"]


def test_inner_models_are_folded():
    inner = two_layers(layers.Conv2D(6, 3, padding="same", use_bias=False))
    x = keras.Input((9, 9, 6))
    y = inner(inner(x))  # shared as a whole: folding inside is safe
    folded = check(keras.Model(x, layers.BatchNormalization(name="norm")(y)), ["norm"])
    assert folded.count_params() < 6 * 6 * 9 + 6 + 4 * 6 + 1


def test_sequential_and_unknown_sizes():
    model = keras.Sequential(
        [
            keras.Input((None, None, 3)),
            layers.Conv2D(4, 3, use_bias=False),
            layers.BatchNormalization(),
            layers.ReLU(),
        ]
    )
    check(model)


def test_keeps_the_dtype_policy_and_the_input():
    x = keras.Input((9, 9, 3), name="image", dtype="uint8")
    y = layers.Rescaling(1 / 255)(x)
    y = layers.Conv2D(4, 3, dtype="mixed_bfloat16", name="conv")(y)
    folded = fold_batch_norm(keras.Model(x, layers.BatchNormalization(dtype="float32")(y)))
    assert folded.get_layer("conv").dtype_policy.name == "mixed_bfloat16"
    assert folded.layers[0].name == "image"
    assert folded.inputs[0].dtype == "uint8"


def test_refuses_what_it_cannot_look_into():
    class Own(keras.Model):
        def call(self, x):
            return x

    with pytest.raises(ValueError, match=r"Only functional and sequential.*Own"):
        fold_batch_norm(Own())
    with pytest.raises(ValueError, match="no weights yet"):
        fold_batch_norm(keras.Sequential([layers.Conv2D(4, 3)]))


def test_a_whole_network():
    model = keras.applications.MobileNetV2((32, 32, 3), alpha=0.35, weights=None, classes=3)
    folded = check(model)
    assert len(folded.layers) == len(model.layers) - 52
