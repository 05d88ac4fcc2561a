"""What a quantized network computes in training is what its int8 file computes."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_lightnets as kl
from keras_lightnets.export import formats, litert, onnx_model, runtimes
from keras_lightnets.export.parity import HeldOut
from keras_lightnets.inference.function import inference_model
from keras_lightnets.layers import (
    Activation,
    ConcatShuffleSplit,
    DepthwiseConv2D,
    FakeQuantize,
    FusedBatchNormalization,
    fake_quantization,
)
from tests import toy

L = keras.layers


def examples(seed, count):
    images, labels = toy._examples(tf.constant([seed, seed]), count)
    return images.numpy(), labels.numpy()


def network():
    """Every kind of layer, and every way in which tensors share a range."""

    def norm(x, activation=None):
        x = FusedBatchNormalization(momentum=0.7)(x)
        return x if activation is None else Activation(activation)(x)

    x = inputs = keras.Input((toy.SIDE, toy.SIDE, 3), name="image")
    x = L.Rescaling([1 / 60, 1 / 70, 1 / 65], [-2.0, -1.8, -1.9])(x)
    x = first = norm(L.Conv2D(8, 3, padding="same", use_bias=False, name="stem")(x), "relu6")
    x = norm(DepthwiseConv2D(3, padding=1, use_bias=False, name="deep")(x), "relu6")
    x = norm(kl.GroupedConv2D(8, 1, groups=2, use_bias=False, name="grouped")(x))
    x = L.Add(name="add")([first, kl.ChannelShuffle(2)(x)])
    left, right = kl.ChannelSplit()(x)
    right = norm(kl.GroupedConv2D(4, 1, use_bias=False, name="right")(right), "relu")
    left, right = ConcatShuffleSplit(name="unit")([left, right])
    pooled = L.AveragePooling2D(2, name="mean")(left)
    right = L.Conv2D(6, 3, strides=2, padding="same", activation="relu", name="down")(right)
    x = Activation("relu", name="joined")(L.Concatenate(name="concat")([right, pooled]))
    x = L.MaxPooling2D(2)(x)
    x = L.Flatten()(x)
    x = L.Dense(toy.CLASSES, name="logits")(L.Dropout(0.1)(x))
    return keras.Model(inputs, L.Activation("softmax", name="predictions")(x))


def fit(model, rate, epochs):
    model.compile(keras.optimizers.Adam(rate), "categorical_crossentropy", metrics=["accuracy"])
    images, labels = examples(1, 256)
    return model.fit(images, labels, batch_size=32, epochs=epochs, verbose=0).history


@pytest.fixture(scope="module")
def trained():
    """The network, that trained on for int8, and what the latter was before."""
    keras.utils.set_random_seed(0)
    plain = network()
    fit(plain, 0.01, 6)
    quantized = kl.quantize_aware(plain, examples(1, 64)[0])
    before = [w.copy() for w in quantized.get_weights()]
    fit(quantized, 0.001, 2)
    return plain, quantized, before


@pytest.fixture(scope="module")
def interpreter(trained):
    network = inference_model(trained[1], merge_pads=False)
    return runtimes.litert_interpreter(litert.int8_file(network, examples(1, 32)[0]))


def levels(interpreter, images):
    (given,), (output,) = interpreter.get_input_details(), interpreter.get_output_details()
    answers = []
    for image in images:
        interpreter.set_tensor(given["index"], image[None])
        interpreter.invoke()
        answers.append(interpreter.get_tensor(output["index"])[0])
    return np.array(answers)


def test_the_file_computes_what_training_computed(trained, interpreter):
    # Mutations: `keepdims=True` left out of a scale; ranges of a concatenation not shared; a ReLU
    # rounded twice.
    _, quantized, _ = trained
    (given,), (output,) = interpreter.get_input_details(), interpreter.get_output_details()
    assert given["dtype"] == output["dtype"] == np.uint8
    assert given["quantization"] == (1.0, 0)
    assert output["quantization"] == (1 / 256, 0)
    images, labels = examples(2, 500)
    answers = levels(interpreter, images) / 256
    expected = quantized.predict(images.astype("float32"), verbose=0)
    assert np.abs(answers - expected).max() <= 1 / 256
    assert np.mean(np.argmax(answers, 1) == labels.argmax(1)) > 0.9


def assert_every_bit(network, images):
    """The int8 file of a network gives the level of each of its outputs."""
    interpreter = runtimes.litert_interpreter(litert.int8_file(network, images[:64]))
    scale, zero = interpreter.get_output_details()[0]["quantization"]
    expected = network.predict(images.astype("float32"), verbose=0) / scale + zero
    np.testing.assert_array_equal(levels(interpreter, images), np.rint(expected))


def without_softmax(quantized):
    return keras.Model(quantized.inputs, quantized.layers[-1].input)


def test_every_logit_is_that_of_the_file(trained):
    # Mutations: sums in real numbers; ratios of an addition not as XNNPACK has them.
    assert_every_bit(without_softmax(trained[1]), examples(5, 2000)[0])


@pytest.mark.parametrize("pooling", [L.GlobalAveragePooling2D(), L.AveragePooling2D(2)])
def test_a_mean_between_two_levels_is_that_of_the_file(pooling):
    # Mutations: the upper one, of either; the even one of a mean that is not global.
    keras.utils.set_random_seed(3)
    images = np.random.default_rng(0).integers(0, 256, (200, 4, 4, 3)).astype("uint8")
    model = small(L.Rescaling(1 / 58, -2.1), L.Conv2D(16, 1), pooling, shape=(4, 4, 3))
    assert_every_bit(kl.quantize_aware(model, images), images)


@pytest.mark.parametrize(
    ("name", "others"),  # images of which a number in the middle is on another level
    [
        pytest.param("mobilenet_v2_x0_35", 0, marks=pytest.mark.slow),
        pytest.param("shufflenet_v1_g3_x0_5", 1, marks=pytest.mark.slow),
        pytest.param("squeezenet", 0, marks=pytest.mark.nightly),
        pytest.param("mobilenet_v1_x0_25", 0, marks=pytest.mark.nightly),
        pytest.param("shufflenet_v2_x0_5", 0, marks=pytest.mark.nightly),
    ],
)
def test_a_deep_network_answers_as_its_file(name, others):
    keras.utils.set_random_seed(0)
    model = kl.create_model(name, weights=None, input_shape=(64, 64, 3), classes=10)
    images = np.random.default_rng(0).integers(0, 256, (40, 64, 64, 3)).astype("uint8")
    network = without_softmax(kl.quantize_aware(model, images))
    interpreter = runtimes.litert_interpreter(litert.int8_file(network, images))
    scale, zero = interpreter.get_output_details()[0]["quantization"]
    expected = network.predict(images.astype("float32"), verbose=0)
    answers = ((levels(interpreter, images) - np.float32(zero)) * scale).astype("float32")
    probabilities = [keras.ops.softmax(logits).numpy() for logits in (answers, expected)]
    assert np.abs(np.subtract(*probabilities)).max() <= 1 / 256
    same = np.isclose(answers, expected, rtol=0, atol=scale / 2).all(1)
    assert np.sum(~same) <= others


def test_biases_are_those_of_the_file():
    # Mutations: the bias of the convolution, or the offset of the pixels, not rounded: 0.07 % of
    # the numbers of the map then lie on another level.
    keras.utils.set_random_seed(2)
    convolution = L.Conv2D(32, 1, activation="relu", bias_initializer="random_normal")
    images = np.random.default_rng(0).integers(0, 256, (64, 8, 8, 3)).astype("uint8")
    model = kl.quantize_aware(small(L.Rescaling(1 / 58, -2.1), convolution), images)
    interpreter = runtimes.litert_interpreter(litert.int8_file(model, images))
    scale, zero = interpreter.get_output_details()[0]["quantization"]
    expected = model.predict(images.astype("float32"), verbose=0) / scale + zero
    assert np.mean(levels(interpreter, images) != np.rint(expected)) < 1e-4


def test_a_range_reaches_beyond_the_mean_of_what_images_have():
    layer = FakeQuantize()
    moments = fake_quantization.moments(np.float32([[0, 1], [-1, 3]]), (-0.5, 2))
    layer.set_weights([np.array([moment]) for moment in moments])
    np.testing.assert_allclose(layer.ends(), [-0.5 - 2 * 0.5, 2 + 2 * 1])


def test_an_onnx_file_keeps_the_ranges_of_training(trained, tmp_path):
    # Mutation: the ranges of these images, which are nearly black.
    dark = examples(1, 32)[0] // 8
    network = inference_model(trained[1], merge_pads=False)
    onnx_model.write(network, tmp_path / "model.onnx", images=dark)
    images = examples(2, 500)[0].astype("float32")
    answers = runtimes.load_onnx(tmp_path / "model.onnx")(images).probabilities
    expected = trained[1].predict(images, verbose=0)
    assert np.mean(np.abs(answers - expected) <= 1 / 256) >= 0.999


@pytest.fixture(scope="module")
def meeting():
    """A network where the range of a ReLU begins below zero, and with groups of 80 channels."""
    keras.utils.set_random_seed(1)
    x = inputs = keras.Input((8, 8, 3))
    x = L.Rescaling(1 / 64, -2)(x)
    x = L.Conv2D(120, 3, name="stem", activation="relu")(x)
    x = L.Concatenate()([x, kl.GroupedConv2D(120, 1, groups=3, name="grouped")(x)])
    x = L.GlobalAveragePooling2D()(kl.GroupedConv2D(60, 1, groups=3, name="last")(x))
    return keras.Model(inputs, L.Dense(5, activation="softmax", name="logits")(x))


@pytest.mark.parametrize("name", ["onnx-int8", "openvino-int8"])
def test_an_int8_file_computes_where_tensors_meet(meeting, name, tmp_path):
    # Mutations: a ReLU left out whose range begins below zero; OpenVINO's grouped convolutions.
    images = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3)).astype("uint8")
    for model in (meeting, kl.quantize_aware(meeting, images)):
        report = formats.convert(
            model, tmp_path, [name], HeldOut(images), representative=images, max_accuracy_drop=1
        )
        assert report[name]["max_difference"] < 0.01


def test_no_operation_of_the_file_is_in_float_or_more_than_needed(interpreter):
    kinds = {detail["dtype"] for detail in interpreter.get_tensor_details()}
    assert kinds <= {np.int8, np.uint8, np.int32}
    names = [op["op_name"] for op in interpreter._get_ops_details()]
    assert names.count("QUANTIZE") == 2  # the input and the output alone: no range is changed


def test_training_moves_weights_and_ranges(trained):
    _, quantized, before = trained
    after = {v.path: v.numpy() for v in quantized.variables if "seed" not in v.path}
    still = [path for path, old in zip(after, before, strict=False) if (after[path] == old).all()]
    # The smallest value behind a ReLU is always 0.
    assert [path for path in still if not path.endswith(("/min", "/min_variance"))] == []
    ends = [layer.ends() for layer in quantized.layers if _moves(layer)]
    assert all(high > low and low <= 0 for low, high in ends)


def _moves(layer):
    return isinstance(layer, FakeQuantize) and layer.limits is None


def test_the_quantized_network_answers_as_the_other(trained):
    plain, quantized, _ = trained
    images, labels = examples(3, 300)
    shares = [
        np.mean(model.predict(images, verbose=0).argmax(1) == labels.argmax(1))
        for model in (plain, quantized)
    ]
    assert shares[1] >= shares[0] - 0.01


def test_a_saved_network_is_the_same(trained, tmp_path):
    _, quantized, _ = trained
    quantized.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    images = examples(4, 16)[0]
    np.testing.assert_array_equal(
        loaded.predict(images, verbose=0), quantized.predict(images, verbose=0)
    )


def test_tensors_that_meet_share_a_range(trained):
    ranges = {layer.name: layer.members for layer in trained[1].layers if _moves(layer)}
    # `add` and `right` meet in the unit, which `mean` and `down` go on from.
    assert max(ranges.values()) >= 4
    # A ReLU behind a convolution or a sum is rounded with it.
    assert not {"stem_range", "deep_range", "right_range"} & set(ranges)


def small(*layers, shape=(8, 8, 3)):
    return keras.Sequential([keras.Input(shape), *layers])


def with_nan():
    model = small(L.Conv2D(2, 3, name="broken"))
    model.layers[0].set_weights([np.full((3, 3, 3, 2), np.nan), np.zeros(2)])
    return model


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            lambda: small(L.Conv2D(2, 3), L.LeakyReLU(name="leaky")),
            "'leaky'.*LeakyReLU.* Known are",
        ),
        (
            lambda: small(L.Conv2D(2, 3, activation="gelu", name="own")),
            "'own_activation' .Activation, gelu",
        ),
        (lambda: small(L.BatchNormalization(name="alone")), "'alone'.*BatchNormalization"),
        (lambda: small(L.Conv2D(2, 3, kernel_initializer="zeros", name="dead")), "'dead' are zero"),
        (with_nan, "'broken' are not finite"),
    ],
)
def test_what_has_no_range_is_named(model, message):
    with pytest.raises(ValueError, match=message) as error:
        kl.quantize_aware(model(), examples(1, 8)[0])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("images", [np.zeros((0, 8, 8, 3)), np.zeros((2, 8, 4, 3)), []])
def test_images_that_give_no_range_are_named(images):
    with pytest.raises(ValueError, match=r"`images` \(None, 8, 8, 3\)\. Received: \("):
        kl.quantize_aware(small(L.Conv2D(2, 3)), images)


def test_inner_models_and_activations_of_layers():
    inner = small(L.Conv2D(4, 3, activation="relu", name="conv"))
    model = small(inner, L.GlobalAveragePooling2D(), L.Dense(3, activation="softmax", name="head"))
    images = np.random.default_rng(0).normal(size=(32, 8, 8, 3)).astype("float32")
    quantized = kl.quantize_aware(model, images)
    answers = quantized.predict(images, verbose=0)
    np.testing.assert_allclose(answers, model.predict(images, verbose=0), rtol=0, atol=0.05)
    # Pixels of floats have a range of their own.
    assert quantized.layers[1].limits is None


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_a_network_of_16_bits_is_quantized_as_its_float32_copy(policy):
    images = examples(1, 32)[0]
    layers = [L.Conv2D(4, 3, activation="relu"), L.GlobalAveragePooling2D(), L.Dense(3)]
    keras.utils.set_random_seed(0)
    plain = small(*layers, shape=images.shape[1:])
    expected = kl.quantize_aware(plain, images).predict(images, verbose=0)
    mixed = [type(layer).from_config(layer.get_config() | {"dtype": policy}) for layer in layers]
    mixed = small(*mixed, shape=images.shape[1:])
    mixed.set_weights(plain.get_weights())
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        quantized = kl.quantize_aware(mixed, list(images))  # a list will do
    finally:
        keras.config.set_dtype_policy(before)
    assert {layer.compute_dtype for layer in quantized.layers[1:]} == {"float32"}
    np.testing.assert_array_equal(quantized.predict(images, verbose=0), expected)


def test_what_cannot_round_says_so(trained):
    with pytest.raises(ValueError, match="rounds as an int8 file does"):
        kl.plain_keras(trained[1])
    with pytest.raises(kl.errors.ExportError, match="leave out precision='bfloat16'"):
        inference_model(trained[1], "bfloat16")
