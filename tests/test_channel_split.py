import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_lightnets.layers import ChannelShuffle, ChannelSplit
from tests import graphs


def unit(groups=2, axis=-1, channels=(12, 12), split=None):
    """Two tensors to the halves of their shuffled concatenation."""
    inputs = [keras.Input((3, 5, width)) for width in channels]
    x = keras.layers.Concatenate(axis=axis)(inputs)
    x = ChannelShuffle(groups)(x)
    outputs = ChannelSplit()(x) if split is None else split(x)
    return keras.Model(inputs, outputs)


def traced(model):
    """A training step: halves, and gradients of the inputs."""

    @tf.function
    def step(inputs, upstream):
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            halves = model(inputs, training=True)
        return halves, tape.gradient(halves, inputs, upstream)

    return step


def numbers(model, seed):
    rng = np.random.default_rng(seed)
    shapes = [(2, *t.shape[1:]) for t in model.inputs], [(2, *t.shape[1:]) for t in model.outputs]
    return [[tf.constant(rng.normal(size=s), "float32") for s in side] for side in shapes]


def used_types(model):
    graph = traced(model).get_concrete_function(*numbers(model, 0)).graph
    return {op.type for op in graphs.used_operations(graph)}


def plain(x):
    return keras.ops.split(x, 2, axis=-1)


def assert_same_bits(**kwargs):
    ours, expected = unit(**kwargs), unit(**kwargs, split=plain)
    given = numbers(ours, 1)
    actual, wanted = (tf.nest.flatten(traced(model)(*given)) for model in (ours, expected))
    for a, e in zip(actual, wanted, strict=True):
        np.testing.assert_array_equal(a, e)
    for a, e in zip(ours(given[0]), expected(given[0]), strict=True):  # inference, eager
        np.testing.assert_array_equal(a, e)


def test_halves_behind_a_shuffle_are_the_same_bits():
    assert_same_bits()
    assert "Unpack" in used_types(unit())
    assert not {"Split", "ConcatV2", "Slice"} & used_types(unit())


@pytest.mark.parametrize(
    "kwargs",
    [
        {"groups": 3},
        {"groups": 12},
        {"channels": (8, 16)},
        {"channels": (7, 7)},
        {"axis": 1},
        {"axis": 2, "groups": 6},
    ],
    ids=str,
)
def test_everything_else_is_split(kwargs):
    assert_same_bits(**kwargs)
    assert "Split" in used_types(unit(**kwargs))


def test_a_shuffle_without_a_concatenation_is_split():
    image = keras.Input((3, 5, 12))
    model = keras.Model(image, ChannelSplit()(ChannelShuffle(2)(image)))
    assert "Split" in {
        op.type
        for op in tf.function(lambda x: model(x, training=True))
        .get_concrete_function(tf.zeros((2, 3, 5, 12)))
        .graph.get_operations()
    }


def test_saves_and_loads(tmp_path):
    model = unit()
    model.save(tmp_path / "unit.keras")
    loaded = keras.models.load_model(tmp_path / "unit.keras")
    (given, _) = numbers(model, 2)
    for a, e in zip(loaded(given), model(given), strict=True):
        np.testing.assert_array_equal(a, e)


@pytest.mark.parametrize("channels", [7, None])
def test_wrong_numbers_of_channels_are_named(channels):
    with pytest.raises(ValueError, match="even number of channels"):
        ChannelSplit()(keras.Input((3, 3, channels)))
