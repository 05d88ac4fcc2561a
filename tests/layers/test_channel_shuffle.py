import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_lightnets.layers import ChannelShuffle


@pytest.mark.parametrize("groups", [2, 3, 4])
def test_interleaves_the_groups_and_is_undone_by_its_dual(groups):
    # Catches the inverse permutation, which keeps every shape and parameter count.
    x = np.arange(2 * 3 * 3 * 12, dtype="float32").reshape(2, 3, 3, 12)
    y = ChannelShuffle(groups)(x)
    np.testing.assert_array_equal(y[0, 0, 0, :groups], x[0, 0, 0, :: 12 // groups])
    np.testing.assert_array_equal(ChannelShuffle(12 // groups)(y), x)


def test_output_channel_of_the_docstring():
    groups, channels = 3, 12
    x = np.random.default_rng(0).normal(size=(2, 4, 5, channels)).astype("float32")
    y = np.asarray(ChannelShuffle(groups)(x))
    width = channels // groups
    for i in range(width):
        for j in range(groups):
            np.testing.assert_array_equal(y[..., i * groups + j], x[..., j * width + i])


@pytest.mark.parametrize("groups", [1, 12])
def test_one_group_and_one_channel_per_group_change_nothing(groups):
    x = np.arange(24, dtype="float32").reshape(1, 1, 2, 12)
    np.testing.assert_array_equal(ChannelShuffle(groups)(x), x)


def test_gradient_is_the_inverse_shuffle():
    x = tf.constant(np.random.default_rng(0).normal(size=(2, 3, 3, 12)).astype("float32"))
    seed = tf.constant(np.random.default_rng(1).normal(size=(2, 3, 3, 12)).astype("float32"))
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = ChannelShuffle(3)(x)
    np.testing.assert_array_equal(tape.gradient(y, x, seed), ChannelShuffle(4)(seed))


@pytest.mark.parametrize("shape", [(None, None, 12), (5, None, 12), (5, 4, 12)])
def test_unknown_sizes_keep_the_static_channel_count(shape):
    inputs = keras.Input(shape)
    model = keras.Model(inputs, ChannelShuffle(3)(inputs))
    assert model.output_shape == (None, *shape)
    x = np.random.default_rng(0).normal(size=(2, 5, 4, 12)).astype("float32")
    np.testing.assert_array_equal(model(x), ChannelShuffle(3)(x))

    @tf.function(input_signature=[tf.TensorSpec((None, *shape))])
    def shuffle(image):
        y = ChannelShuffle(3)(image)
        assert y.shape[-1] == 12
        return y

    np.testing.assert_array_equal(shuffle(x), model(x))


def test_save_and_load(tmp_path):
    inputs = keras.Input((4, 4, 12))
    model = keras.Model(inputs, ChannelShuffle(3, name="shuffle")(inputs))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.get_layer("shuffle").groups == 3
    x = np.random.default_rng(0).normal(size=(2, 4, 4, 12)).astype("float32")
    np.testing.assert_array_equal(loaded(x), model(x))
    np.testing.assert_array_equal(keras.models.clone_model(model)(x), model(x))


@pytest.mark.parametrize("groups", [0, -1, 1.5, "2"])
def test_bad_groups_are_refused(groups):
    with pytest.raises(ValueError, match="`groups` must be a positive integer"):
        ChannelShuffle(groups)


def test_indivisible_and_unknown_channels_are_refused():
    with pytest.raises(ValueError, match=r"must divide.*groups=5.*10, 10, 12"):
        ChannelShuffle(5)(keras.Input((10, 10, 12)))
    with pytest.raises(ValueError, match="known number of channels"):
        ChannelShuffle(5)(keras.Input((10, 10, None)))
