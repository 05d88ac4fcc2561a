import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_lightnets.layers import ChannelShuffle, ChannelSplit, ConcatShuffleSplit
from tests import graphs


def unit(channels=(12, 12), size=(3, 5), plain=False):
    """Two branches to the halves of their shuffled concatenation."""
    inputs = [keras.Input((*size, width)) for width in channels]
    if plain:
        x = ChannelShuffle(2)(keras.layers.Concatenate()(inputs))
        return keras.Model(inputs, keras.ops.split(x, 2, axis=-1))
    return keras.Model(inputs, ConcatShuffleSplit()(inputs))


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


def assert_same_bits(**kwargs):
    ours, expected = unit(**kwargs), unit(**kwargs, plain=True)
    given = numbers(ours, 1)
    actual, wanted = (tf.nest.flatten(traced(model)(*given)) for model in (ours, expected))
    for a, e in zip(actual, wanted, strict=True):
        np.testing.assert_array_equal(a, e)
    for training in (False, True):  # eager
        for a, e in zip(ours(given[0], training=training), expected(given[0]), strict=True):
            np.testing.assert_array_equal(a, e)


def test_halves_of_two_branches_are_the_same_bits():
    assert_same_bits()
    assert "Unpack" in used_types(unit())
    assert not {"Split", "ConcatV2", "Slice"} & used_types(unit())


@pytest.mark.parametrize("channels", [(8, 16), (7, 7)], ids=str)
def test_everything_else_is_concatenated(channels):
    assert_same_bits(channels=channels)
    assert "Split" in used_types(unit(channels=channels))


def test_unknown_sizes():
    model, given = unit(size=(None, None)), numbers(unit(), 3)[0]
    for a, e in zip(model(given, training=True), unit()(given), strict=True):
        np.testing.assert_array_equal(a, e)


def test_channel_split_gives_the_two_halves():
    x = tf.reshape(tf.range(24.0), (2, 3, 4))
    first, second = ChannelSplit()(x)
    np.testing.assert_array_equal(first, x[..., :2])
    np.testing.assert_array_equal(second, x[..., 2:])


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
    with pytest.raises(ValueError, match="even number of channels"):
        ConcatShuffleSplit()([keras.Input((3, 3, channels)), keras.Input((3, 3, 4))])
