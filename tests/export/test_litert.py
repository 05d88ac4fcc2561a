"""LiteRT files: whole numbers throughout where int8 is asked for, and one place that runs them."""

import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_lightnets.errors import ExportError
from keras_lightnets.export import described, litert, runtimes
from keras_lightnets.export.parity import HeldOut, ask
from keras_lightnets.inference.function import inference_model
from tests.exports import SIZE, small_net

IMAGES = HeldOut.synthetic(SIZE, 40).images


class Ranged(keras.layers.Layer):
    """Fake quantization, as quantization-aware training leaves it in a model."""

    def __init__(self, low, high, **kwargs):
        super().__init__(**kwargs)
        self.low, self.high = low, high

    def call(self, x):
        return tf.quantization.fake_quant_with_min_max_vars(x, self.low, self.high)

    def get_config(self):
        return {**super().get_config(), "low": self.low, "high": self.high}


class RangedConv2D(keras.layers.Conv2D):
    """A convolution whose weights are ranged by output channel."""

    def convolution_op(self, inputs, kernel):
        limit = tf.reduce_max(tf.abs(kernel), (0, 1, 2))
        ranged = tf.quantization.fake_quant_with_min_max_vars_per_channel(
            kernel, -limit, limit, narrow_range=True
        )
        return super().convolution_op(inputs, ranged)


def tensors(content):
    """Name -> details of the tensors of a LiteRT file, and the names of its operations."""
    interpreter = runtimes.litert_interpreter(content, keep_all=True)
    details = {tensor["name"]: tensor for tensor in interpreter.get_tensor_details()}
    return details, [operation["op_name"] for operation in interpreter._get_ops_details()]


@pytest.fixture(scope="module")
def network():
    return inference_model(small_net(), merge_pads=False)


def test_int8_computes_in_whole_numbers_only(network, tmp_path):
    # Mutations: float fallback; input or output left in float; normalization rounded twice.
    content = litert.int8_file(network, IMAGES[:, ::-1])
    details, operations = tensors(content)
    types = {np.dtype(tensor["dtype"]).name for tensor in details.values()}
    assert types == {"uint8", "int8", "int32"}
    bytes_ = [tensor for tensor in details.values() if tensor["dtype"] == np.uint8]
    # Pixels go in as they are, probabilities come out in steps of 1/256.
    assert [tensor["quantization"] for tensor in bytes_] == [(1.0, 0), (1 / 256, 0)]
    assert operations.count("QUANTIZE") == 2
    assert not {"MUL", "SUB", "DEQUANTIZE"} & set(operations)
    kernels = [t for t in details.values() if len(t["quantization_parameters"]["scales"]) > 1]
    assert len(kernels) >= 3
    (tmp_path / "model.tflite").write_bytes(content)
    received = runtimes.load_litert(tmp_path / "model.tflite")(IMAGES).probabilities
    np.testing.assert_allclose(received.sum(-1), 1, atol=0.02)
    expected = ask(small_net(), IMAGES).probabilities
    assert np.abs(received - expected).max() < 0.1
    assert np.mean(received.argmax(-1) == expected.argmax(-1)) >= 0.9


def test_a_described_file_is_aligned_and_holds_equal_arrays_once(network):
    # Zero points, a zero for each channel of each tensor, are 6 % of an int8 MobileNet v2.
    builder = described._SharingBuilder()
    zeros = np.zeros(100, np.int64)
    assert builder.CreateNumpyVector(zeros) == builder.CreateNumpyVector(zeros.copy())
    content = litert.float_file(network)
    about = described.Description("small", ["one", "two"], {})
    assert described.with_metadata(content, about) == described.with_metadata(content, about)
    interpreter = runtimes.litert_interpreter(content)
    details = [tensor for tensor in interpreter.get_tensor_details() if len(tensor["shape"]) == 4]
    weights = [each for each in details if "convolution" in each["name"] and each["shape"][0] > 1]
    for each in weights:
        raw = interpreter.get_tensor(each["index"]).tobytes()
        assert described.with_metadata(content, about).index(raw) % 16 == 0
    assert weights


def test_int8_takes_the_ranges_of_fake_quantization(tmp_path):
    # Images give other ranges than these.
    x = image = keras.Input((8, 8, 3))
    x = keras.layers.Rescaling(1 / 255)(Ranged(0.0, 255.0)(x))
    x = RangedConv2D(4, 3, name="conv")(Ranged(0.0, 1.0)(x))
    x = Ranged(0.0, 3.0, name="activations")(keras.layers.ReLU()(x))
    x = Ranged(0.0, 2.0, name="means")(keras.layers.GlobalAveragePooling2D()(x))
    x = Ranged(-7.0, 5.0)(keras.layers.Dense(5, name="logits", dtype="float32")(x))
    outputs = keras.layers.Activation("softmax", dtype="float32")(x)
    model = keras.Model(image, outputs)
    images = np.random.default_rng(0).integers(0, 256, (32, 8, 8, 3)).astype("uint8")
    content = litert.int8_file(model, images)
    details, _ = tensors(content)
    assert {t["dtype"] for t in details.values()} <= {np.uint8, np.int8, np.int32}
    scales = {round(t["quantization"][0] * 255, 4) for t in details.values()}
    assert {3.0, 2.0, 12.0} <= scales
    (tmp_path / "model.tflite").write_bytes(content)
    received = runtimes.load_litert(tmp_path / "model.tflite")(images).probabilities
    expected = ask(model, images).probabilities
    # One step of a logit, 12 / 255, moves a probability by a quarter of that; and its own rounding.
    assert np.abs(received - expected).max() <= 12 / 255 / 4 + 0.5 / 256


def test_what_int8_cannot_learn_from_is_named(network):
    with pytest.raises(ExportError, match=r"at least 32 images\. Received: 31"):
        litert.int8_file(network, IMAGES[:31])
    # Dead for all images, not for one alone.
    dead = keras.layers.ReLU(name="dead")(keras.layers.Rescaling(-1.0)(network.inputs[0]))
    x = keras.layers.GlobalAveragePooling2D()(dead)
    collapsed = keras.Model(network.inputs, x)
    with pytest.raises(ExportError, match=r"layer 'dead' gives 0 everywhere for all 40 images"):
        litert.int8_file(collapsed, IMAGES)
    broken = inference_model(small_net(), merge_pads=False)
    broken.get_layer("logits").bias.assign([np.nan] * 6)
    with pytest.raises(ExportError, match="layer 'logits' gives NaN or infinity"):
        litert.int8_file(broken, IMAGES)


def test_the_package_of_litert_runs_files_and_tensorflow_where_it_is_missing(
    network, tmp_path, monkeypatch
):
    path = tmp_path / "model.tflite"
    path.write_bytes(litert.float_file(network))
    assert type(runtimes.litert_interpreter(path)).__module__ == "ai_edge_litert.interpreter"
    expected = runtimes.load_litert(path)(IMAGES).probabilities
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    assert (
        type(runtimes.litert_interpreter(path)).__module__ == "tensorflow.lite.python.interpreter"
    )
    np.testing.assert_allclose(
        runtimes.load_litert(path)(IMAGES).probabilities, expected, atol=1e-5
    )
