"""What every network promises, whatever its family."""

import dataclasses
import functools
import inspect
import re

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_lightnets
from keras_lightnets.networks import options
from keras_lightnets.preprocessing import IMAGENET_MEAN, IMAGENET_STD, EvalTransform
from keras_lightnets.weights import load

# The narrowest of each family; `(batch, 64, 64, 3)` images are enough for all five strides.
NARROW = {
    "SqueezeNet": {},
    "MobileNetV1": {"alpha": 0.25},
    "MobileNetV2": {"alpha": 0.25},
    "ShuffleNetV1": {"groups": 2, "alpha": 0.25},
    "ShuffleNetV2": {"alpha": 0.5},
}
BUILDERS = pytest.mark.parametrize("builder", NARROW)


@functools.cache
def narrow(builder, **arguments):
    arguments = {"input_shape": (64, 64, 3), "classes": 10, **NARROW[builder], **arguments}
    model = getattr(keras_lightnets, builder)(**arguments)
    rng = np.random.default_rng(0)
    for variable in model.weights:  # moving statistics and scales that are not 0 and 1
        if len(variable.shape) == 1:
            variable.assign(rng.uniform(0.3, 1.0, variable.shape))
    return model


def images(height=64, width=64, batch=2):
    return np.random.default_rng(1).normal(size=(batch, height, width, 3)).astype("float32")


def share_weights(model, other):
    for layer in model.layers:
        if layer.weights:
            layer.set_weights(other.get_layer(layer.name).get_weights())


def close(ours, theirs, tolerance=1e-5):
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).max() <= tolerance * np.abs(theirs).max()


@BUILDERS
def test_predictions_are_float32_probabilities_behind_float32_logits(builder):
    model = narrow(builder)
    assert model.input.name == "image"
    assert model.get_layer("logits").compute_dtype == "float32"
    predictions = np.asarray(model(images()))
    assert predictions.dtype == "float32"
    np.testing.assert_allclose(predictions.sum(axis=1), 1, rtol=1e-5)
    logits = np.asarray(keras_lightnets.logits_model(model)(images()))
    np.testing.assert_allclose(keras.ops.softmax(logits), predictions, rtol=1e-4, atol=1e-6)


@BUILDERS
@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_head_is_float32_under_mixed_precision(builder, policy):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        model = getattr(keras_lightnets, builder)((32, 32, 3), classes=10, **NARROW[builder])
    finally:
        keras.config.set_dtype_policy(before)
    compute = policy.removeprefix("mixed_")
    assert {layer.compute_dtype for layer in model.layers if "stage" in layer.name} <= {compute}
    for layer in model.layers:
        if layer.name.startswith("logits") or layer.name == "predictions":
            assert layer.compute_dtype == "float32", layer.name
    predictions = model(images(32, 32))
    assert predictions.dtype == "float32"
    assert np.isfinite(np.asarray(predictions)).all()


@BUILDERS
def test_gradients_reach_every_variable(builder):
    model = keras_lightnets.logits_model(
        getattr(keras_lightnets, builder)((64, 64, 3), classes=10, **NARROW[builder])
    )
    moving = [np.array(v) for v in model.non_trainable_weights]
    with tf.GradientTape() as tape:
        logits = model(images(batch=4), training=True)
        loss = tf.reduce_sum(tf.square(logits - 3.0))
    gradients = tape.gradient(loss, [v.value for v in model.trainable_variables])
    for variable, gradient in zip(model.trainable_variables, gradients, strict=True):
        assert gradient is not None, variable.path
        assert np.abs(np.asarray(gradient)).max() > 0, variable.path
    for variable, before in zip(model.non_trainable_weights, moving, strict=True):
        if "seed" not in variable.path:
            assert (np.asarray(variable) != before).any(), variable.path


@BUILDERS
def test_keras_file_gives_the_same_predictions(builder, tmp_path):
    model = narrow(builder)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(model(images()), loaded(images()))
    assert [layer.name for layer in loaded.layers] == [layer.name for layer in model.layers]


@BUILDERS
def test_unknown_image_size_computes_the_same(builder):
    """Static and dynamic sizes are padded by different layers: even, odd and mixed sizes."""
    dynamic = narrow(builder, input_shape=(None, None, 3))
    for height, width in ((64, 64), (75, 64), (97, 97)):
        fixed = narrow(builder, input_shape=(height, width, 3))
        share_weights(fixed, dynamic)
        close(fixed(images(height, width)), dynamic(images(height, width)))


CHANNELS = {  # at strides 4, 8, 16, 32, at full width
    "SqueezeNet": {4: 128, 8: 256, 16: 512},
    "MobileNetV1": {4: 32, 8: 64, 16: 128, 32: 256},
    "MobileNetV2": {4: 8, 8: 8, 16: 24, 32: 80},
    "ShuffleNetV1": {4: 6, 8: 56, 16: 104, 32: 200},
    "ShuffleNetV2": {4: 24, 8: 48, 16: 96, 32: 192},
}


@BUILDERS
def test_features_are_named_by_stride(builder):
    size = 96
    model = narrow(builder, input_shape=(size, size, 3), features_only=True)
    features = model(images(size, size))
    assert {name: tuple(map_.shape) for name, map_ in features.items()} == {
        f"stride_{stride}": (2, *_map(builder, size, stride), channels)
        for stride, channels in CHANNELS[builder].items()
    }
    assert {name: output.shape[-1] for name, output in model.output.items()} == {
        f"stride_{stride}": channels for stride, channels in CHANNELS[builder].items()
    }


def _map(builder, size, stride):
    if builder == "SqueezeNet":  # not padded: 96 -> 47 -> 23 -> 11 -> 5
        return {4: (23, 23), 8: (11, 11), 16: (5, 5)}[stride]
    return size // stride, size // stride


@pytest.mark.parametrize(
    ("builder", "output_stride"),
    [
        ("SqueezeNet", 8),
        ("MobileNetV1", 16),
        ("MobileNetV1", 8),
        ("MobileNetV2", 16),
        ("MobileNetV2", 8),
        ("ShuffleNetV1", 16),
        ("ShuffleNetV2", 16),
        ("ShuffleNetV2", 8),
    ],
)
def test_atrous_network_computes_the_same_at_every_position_that_the_strided_one_keeps(
    builder, output_stride
):
    # The map in front of the lost stride must be even, else it has positions that the strided
    # network has not: 55 -> 27 -> 13 -> 6 -> 3.
    size = 55 if builder == "SqueezeNet" else 64
    strided = narrow(builder, input_shape=(size, size, 3), include_top=False)
    atrous = narrow(
        builder, input_shape=(size, size, 3), include_top=False, output_stride=output_stride
    )
    share_weights(atrous, strided)
    expected = np.asarray(strided(images(size, size)))
    step = (16 if builder == "SqueezeNet" else 32) // output_stride
    dense = np.asarray(atrous(images(size, size)))
    assert dense.shape[1] > expected.shape[1]
    sampled = dense[:, ::step, ::step]
    close(sampled[:, : expected.shape[1], : expected.shape[2]], expected)


@BUILDERS
def test_small_input_stem_keeps_large_maps(builder):
    model = narrow(builder, input_shape=(32, 32, 3), small_input=True, include_top=False)
    expected = {"SqueezeNet": 7, "MobileNetV1": 2, "MobileNetV2": 2}
    assert model.output_shape[1] == expected.get(builder, 4)


@BUILDERS
def test_preprocessing_normalizes_uint8_and_float_alike(builder):
    inside = narrow(builder, include_preprocessing=True)
    outside = narrow(builder)
    share_weights(inside, outside)
    pixels = np.random.default_rng(2).integers(0, 256, (2, 64, 64, 3), dtype="uint8")
    normalized = (pixels - np.array(IMAGENET_MEAN)) / np.array(IMAGENET_STD)
    close(inside(pixels), outside(normalized.astype("float32")), 1e-4)
    np.testing.assert_array_equal(inside(pixels), inside(pixels.astype("float32")))


def test_mean_and_std_can_be_given():
    model = narrow(
        "MobileNetV1", include_preprocessing=True, mean=(10.0, 20.0, 30.0), std=(1.0, 2.0, 4.0)
    )
    normalized = model.get_layer("normalization")(np.full((1, 64, 64, 3), 40, "uint8"))
    np.testing.assert_allclose(normalized[0, 0, 0], [30, 10, 2.5])


@pytest.mark.parametrize(("pooling", "shape"), [(None, 4), ("avg", 2), ("max", 2)])
def test_pooling_without_top(pooling, shape):
    model = narrow("MobileNetV2", include_top=False, pooling=pooling)
    assert len(model.output_shape) == shape
    assert model.output_shape[-1] == 1280


def test_input_tensor_continues_another_model():
    inputs = keras.Input((32, 32, 1), name="grey")
    x = keras.layers.Concatenate()([inputs] * 3)
    model = keras_lightnets.MobileNetV1(input_tensor=x, alpha=0.25, classes=4)
    assert model.input is inputs
    assert model.output_shape == (None, 4)


def test_input_tensor_decides_on_the_size_of_the_image(tmp_path):
    build = functools.partial(keras_lightnets.MobileNetV1, alpha=0.25, classes=2)
    first = build((64, 64, 3))
    known = EvalTransform((64, 64), resize_shorter=80)
    load.notes(first)["transform"] = known.to_dict()
    first.save(tmp_path / "first.keras")
    model = build(input_tensor=keras.Input((32, 32, 3)), weights=tmp_path / "first.keras")
    assert load.evaluation_transform(model) == known.scaled((32, 32))


def test_arguments_may_be_of_numpy_and_tensorflow(tmp_path):
    build = functools.partial(keras_lightnets.MobileNetV1, alpha=0.25)
    model = build(
        np.array([32, 32, 3]),
        classes=np.unique(["dog", "cat", "dog"]),
        include_preprocessing=True,
        mean=np.full(3, 127.5),
        std=np.full(3, 127.5, "float32"),
    )
    model.save(tmp_path / "model.keras")
    assert load.class_names(keras.saving.load_model(tmp_path / "model.keras")) == ["cat", "dog"]
    model = build(tf.TensorShape((32, None, 3)), classes=np.int64(2), dropout_rate=np.float32(0.5))
    assert model.output_shape == (None, 2)


def test_classifier_activation_none_ends_at_the_logits():
    model = narrow("MobileNetV1", classifier_activation=None)
    assert model.layers[-1].name == "logits"


def test_batch_norm_constants_and_dropout_are_passed_on():
    model = narrow("MobileNetV1", bn_momentum=0.99, bn_epsilon=1e-3, dropout_rate=0.3)
    norms = [layer for layer in model.layers if layer.name.endswith("_bn")]
    assert {(norm.momentum, norm.epsilon) for norm in norms} == {(0.99, 1e-3)}
    assert len(norms) == 27
    assert model.get_layer("dropout").rate == 0.3
    assert "dropout" not in {layer.name for layer in narrow("MobileNetV1").layers}


def test_logits_model_shares_weights_and_refuses_headless_models():
    model = narrow("MobileNetV1")
    logits = keras_lightnets.logits_model(model)
    assert logits.get_layer("logits").kernel is model.get_layer("logits").kernel
    with pytest.raises(ValueError, match="has no layer named 'logits'"):
        keras_lightnets.logits_model(narrow("MobileNetV2", include_top=False, pooling="avg"))


@BUILDERS
def test_signature_and_docstring_show_every_argument(builder):
    function = getattr(keras_lightnets, builder)
    parameters = inspect.signature(function).parameters
    assert parameters["options"].annotation == "Unpack[NetworkOptions]"
    for name in parameters:
        assert f"    {name}: " in function.__doc__.replace("**", ""), name


def test_the_shared_arguments_have_a_type_a_default_and_a_sentence():
    typed = list(keras_lightnets.NetworkOptions.__annotations__)
    fields = [field.name for field in dataclasses.fields(options.Options)]
    assert fields == [*typed, "class_names"], "which `classes` gives"
    documented = re.split(r"^        (\w+): ", keras_lightnets.NetworkOptions.__doc__, flags=re.M)[
        1:
    ]
    assert documented[::2] == typed
    assert all("efault" in text for text in documented[1::2])


@BUILDERS
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"input_shape": (16, 16, 3)}, r"`input_shape` must be at least 32 .*\(16, 16, 3\)"),
        ({"input_shape": (224, 224)}, r"`input_shape` must be \(height, width, channels\)"),
        ({"classes": 0}, "`classes` must be a positive integer or a list of names. Received: 0"),
        ({"classes": 2.5}, "must be a positive integer or a list of names. Received: 2.5"),
        ({"classes": []}, r"must be a positive integer or a list of names. Received: \[\]"),
        ({"classes": ["a", 1]}, r"or a list of names. Received: \['a', 1\]"),
        ({"classes": ["a", "b", "a"]}, r"`classes` has a name twice. Received: \['a', 'b', 'a'\]"),
        ({"pooling": "mean"}, "`pooling` must be one of None, 'avg', 'max'. Received: 'mean'"),
        ({"output_stride": 4}, "`output_stride` must be one of 8, 16, 32. Received: 4"),
        ({"dropout_rate": 1.0}, r"`dropout_rate` must be in \[0, 1\). Received: 1.0"),
        ({"dropout_rate": None}, r"`dropout_rate` must be in \[0, 1\). Received: None"),
        ({"input_shape": ("32", "32", 3)}, r"`input_shape` must be \(height, width, channels\)"),
        ({"include_preprocessing": True, "mean": 127.5}, "`mean` must have three values"),
        ({"mean": (1, 2, 3)}, "`mean` needs `include_preprocessing=True`"),
        ({"include_preprocessing": True, "std": (1, 0, 1)}, "`std` must be positive"),
        ({"include_preprocessing": True, "input_shape": (32, 32, 1)}, "needs three channels"),
        ({"input_tensor": 5}, "`input_tensor` must be a Keras tensor"),
    ],
)
def test_bad_shared_arguments_are_refused(builder, arguments, message):
    with pytest.raises(ValueError, match=message):
        getattr(keras_lightnets, builder)(**arguments)


@pytest.mark.parametrize(
    ("builder", "arguments", "message"),
    [
        ("SqueezeNet", {"version": "1.2"}, "`version` must be one of '1.0', '1.1'.*'1.2'"),
        ("SqueezeNet", {"bypass": "both"}, "`bypass` must be one of None, 'simple', 'complex'"),
        ("SqueezeNet", {"squeeze_ratio": 0}, "`squeeze_ratio` must be in"),
        (
            "SqueezeNet",
            {"output_stride": 32},
            r"`output_stride` .* 8, 16 \(.*SqueezeNet.*Received: 32",
        ),
        ("MobileNetV1", {"alpha": 0}, "`alpha` must be a positive number. Received: 0"),
        ("MobileNetV1", {"alpha": "1"}, "`alpha` must be a positive number. Received: '1'"),
        ("MobileNetV1", {"activation": "selu"}, "`activation` must be one of 'relu', 'relu6'"),
        ("MobileNetV2", {"channel_divisor": 0}, "`channel_divisor` must be a positive integer"),
        ("ShuffleNetV1", {"groups": 5}, "`groups` must be one of 1, 2, 3, 4, 8. Received: 5"),
        ("ShuffleNetV1", {"groups": True}, "`groups` must be one of .* Received: True"),
        ("ShuffleNetV1", {"alpha": 0.3}, "`alpha` must be one of .* Received: 0.3"),
        ("ShuffleNetV1", {"stem_filters": 25}, "multiple of groups=3. Received: 25"),
        (
            "ShuffleNetV1",
            {"output_stride": 8},
            r"`output_stride` .* 16, 32 \(.*ShuffleNetV1.*Received: 8",
        ),
        ("ShuffleNetV2", {"alpha": 0.25}, "`alpha` must be one of 0.5, 1.0, 1.5, 2.0"),
        ("ShuffleNetV2", {"depth": 101}, "`depth` must be one of None, 50, 164"),
        ("ShuffleNetV2", {"downsample": "x"}, "`downsample` must be one of 'half', 'keep'"),
        ("ShuffleNetV2", {"stem_pool": "x"}, "`stem_pool` must be one of 'symmetric', 'ceil'"),
        ("ShuffleNetV2", {"se_reduction": 0}, "`se_reduction` must be a positive integer"),
    ],
)
def test_bad_arguments_of_a_network_are_refused(builder, arguments, message):
    with pytest.raises(ValueError, match=message):
        getattr(keras_lightnets, builder)(**arguments)


def test_misspelt_argument_is_refused():
    with pytest.raises(TypeError, match="unexpected keyword argument 'clases'"):
        keras_lightnets.MobileNetV1(clases=5)


# Layers in the order of the variables are the same in both packages, but for v1's classifier.
KERAS = {
    "MobileNetV1": (keras.applications.MobileNet, {"activation": "relu6"}),
    "MobileNetV2": (keras.applications.MobileNetV2, {"alpha": 0.35}),
}


@pytest.mark.parametrize("builder", KERAS)
@pytest.mark.parametrize("size", [(64, 64), (75, 64), (97, 97), (None, None)])
def test_same_padding_is_that_of_keras_applications(builder, size):
    application, arguments = KERAS[builder]
    arguments = {"alpha": 0.25, **arguments}
    shape = (*size, 3)
    theirs = application(shape, alpha=arguments["alpha"], weights=None, include_top=False)
    ours = getattr(keras_lightnets, builder)(
        shape, padding="same", include_top=False, bn_epsilon=1e-3, **arguments
    )
    ours.set_weights(theirs.get_weights())
    height, width = size if size[0] else (64, 64)
    close(ours(images(height, width)), theirs(images(height, width)))


@pytest.mark.parametrize("builder", KERAS)
def test_symmetric_padding_is_the_default_and_others_are_refused(builder):
    image = images(64, 64)
    symmetric, same = narrow(builder), narrow(builder, padding="same")
    share_weights(same, symmetric)
    assert np.abs(np.asarray(symmetric(image)) - np.asarray(same(image))).max() > 1e-4
    with pytest.raises(ValueError, match="`padding` must be one of 'symmetric', 'same'"):
        narrow(builder, padding="valid")
