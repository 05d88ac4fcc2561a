"""Feature maps in int8 by TensorFlow's own operations, in a Session as servers have it."""

import concurrent.futures
import json

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_lightnets as kl
from keras_lightnets.errors import ExportError
from keras_lightnets.export import int8_convolution, int8_network
from keras_lightnets.export import saved_model as export
from keras_lightnets.export.parity import HeldOut
from keras_lightnets.inference.function import inference_model
from keras_lightnets.layers import DepthwiseConv2D, FakeQuantize
from keras_lightnets.preprocessing import EvalTransform
from tests.exports import Served, with_statistics

L = keras.layers
SIDE = 16


def _has_instructions():
    try:
        int8_network._check_processor()
    except ExportError:
        return False
    return True


needs_int8 = pytest.mark.skipif(not _has_instructions(), reason="no processor with VNNI or AMX")


def network():
    """A small MobileNet v2: every kind of layer and padding, every sort of zero."""

    def convolution(x, layer, relu=True):
        x = L.BatchNormalization()(layer(x))
        return L.ReLU(6.0)(x) if relu else x

    def unit(x, filters, stride, padding):
        y = convolution(x, kl.GroupedConv2D(12, 1, use_bias=False))
        y = convolution(y, DepthwiseConv2D(3, stride, padding, use_bias=False))
        y = convolution(y, kl.GroupedConv2D(filters, 1, use_bias=False), relu=False)
        return L.Add()([x, y]) if stride == 1 else y

    keras.utils.set_random_seed(0)
    x = image = keras.Input((SIDE, SIDE, 3), name="image")
    # The zero of each channel is another level.
    x = L.Rescaling([1 / 58, 1 / 40, 1 / 60], [-2.1, -2.0, -1.8])(x)
    x = convolution(L.ZeroPadding2D(1)(x), L.Conv2D(8, 3, strides=2, use_bias=False))
    x = unit(unit(x, 6, 2, 1), 6, 1, "same")
    x = unit(unit(x, 6, 1, "same"), 8, 2, "same")
    x = convolution(x, L.Conv2D(16, 1, use_bias=False))
    x = L.Dropout(0.1)(L.GlobalAveragePooling2D(name="global_pool")(x))
    model = keras.Model(image, L.Dense(6, name="logits")(x), name="tiny")
    return with_statistics(model, np.random.default_rng(4), 0.3)


@pytest.fixture(scope="module")
def images():
    coarse = np.random.default_rng(0).integers(0, 256, (64, 4, 4, 3))
    return tf.saturate_cast(tf.image.resize(coarse, (SIDE, SIDE), "bicubic"), tf.uint8).numpy()


@pytest.fixture(scope="module")
def aware(images):
    return kl.quantize_aware(network(), images)


def in_session(make, *arrays):
    """Runs a function of tensors in a Session, which knows their shapes only from the arrays."""
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        feeds = [
            tf.compat.v1.placeholder(array.dtype, (None, *array.shape[1:])) for array in arrays
        ]
        return session.run(make(*feeds), dict(zip(feeds, arrays, strict=True)))


@needs_int8
def test_every_tensor_is_that_of_the_quantized_network(aware, images):
    # Mutations: the input's offset not in the bias; a border of level 0; the kernel not divided by
    # the shares of its channels; the offset of what is added forgotten.
    quantized = inference_model(aware, merge_pads=False)
    ranges = [x for x in quantized.layers if isinstance(x, FakeQuantize)]
    outputs = {x: [node.outputs[0] for node in x._inbound_nodes] for x in ranges}
    ranges = {x: next((y for y in ys if len(y.shape) == 4), None) for x, ys in outputs.items()}
    ranges = {x: y for x, y in ranges.items() if y is not None}
    pixels = images[:32].astype("float32")
    maps = keras.Model(quantized.inputs[0], list(ranges.values()))(pixels)
    bodies = [int8_network._Int8Maps(keras.Model(quantized.inputs, x)) for x in ranges.values()]
    ours = in_session(lambda x: [body(x) for body in bodies], pixels)
    assert len(ours) > 15
    for layer, expected, received in zip(ranges, maps, ours, strict=True):
        low, high = int8_network._limits(layer)
        levels = np.abs(np.asarray(expected) - received) / ((high - low) / 255)
        assert levels.mean() < 1, layer.name
        assert np.quantile(levels, 0.99) < 5, layer.name


@needs_int8
def test_a_saved_model_of_whole_numbers_with_a_classifier_in_float(aware, images, tmp_path):
    model = network()
    served = int8_network.int8_model(aware, None)  # it knows its ranges
    options = export.ExportOptions(features=True)
    interface = export.make_interface(model, None, EvalTransform((SIDE, SIDE)), options)
    export.write_saved_model(served, interface, tmp_path)
    asked = Served(tmp_path)
    answers = asked("serving_default", images)["probabilities"]
    expected = inference_model(model)(images.astype("float32")).numpy()
    # The quantized network itself, whose features and logits are rounded too, is 0.05 off.
    assert 1e-6 < np.abs(answers - expected).max() < 0.02
    assert asked("features", images[:3])["features"].shape == (3, 16)
    functions = asked.meta_graph.graph_def.library.function
    nodes = [node for function in functions for node in function.node_def]
    assert not [node for node in nodes if node.op in ("Conv2D", "DepthwiseConv2dNative")]
    fused = {node.name for node in nodes if node.op.startswith("_FusedQuantized")}
    assert len(fused) >= 14
    # The first requests of many clients at once, of other sizes.
    fresh, sizes = Served(tmp_path), np.random.default_rng(1).integers(1, len(images), 24)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        received = pool.map(lambda size: fresh("serving_default", images[:size]), sizes)
        for size, answer in zip(sizes, received, strict=True):
            np.testing.assert_allclose(answer["probabilities"], answers[:size], atol=1e-5)


@needs_int8
def test_equalized_it_computes_the_same(aware, images):
    pixels = images[:16].astype("float32")
    served = int8_network.int8_model(network(), images, equalize=True)
    answers = tf.function(lambda x: served(x), autograph=False)(pixels)
    np.testing.assert_allclose(answers, inference_model(network())(pixels), atol=0.02)
    with pytest.raises(ExportError, match="leave out `equalize`"):
        int8_network.int8_model(aware, images, equalize=True)


@needs_int8
@pytest.mark.slow
def test_an_export_in_int8_passes_its_gate(images, tmp_path):
    """The gate reads it without oneDNN's rewriting of graphs, too."""
    options = export.ExportOptions(
        precision="int8",
        representative=images,
        max_accuracy_drop=0.1,
        warmup_batch_sizes=(1,),
    )
    path = kl.export_saved_model(network(), tmp_path, held_out=HeldOut(images), options=options)
    about = json.loads((path / "assets.extra" / "metadata.json").read_text())
    assert about["precision"] == "int8"


@needs_int8
def test_what_is_added_may_be_in_use():
    """The operation would write over it, or crash the process (Mutation: `Snapshot` left out)."""
    rng = np.random.default_rng(2)
    first, second = rng.integers(0, 256, (2, 3, 4, 4, 5)).astype("uint8")
    kernel, bias = rng.normal(size=(1, 1, 5, 5)), rng.normal(size=5)

    def make(first, second):
        levels = tf.bitcast(first, tf.quint8), tf.bitcast(second, tf.quint8)
        a = int8_convolution.Levels(levels[0], np.float64(0.01), np.float64(-1.0))
        b = int8_convolution.Levels(levels[1], np.float64(0.02), np.float64(-3.0))
        options = {"depthwise": False, "stride": 1, "padding": "valid", "limits": (-8.0, 8.0)}
        out = int8_convolution.convolution(a, kernel, bias, **options, added=b)
        with tf.control_dependencies([out.levels]):
            return out.numbers(), tf.identity(second)

    received, after = in_session(make, first, second)
    numbers = np.einsum("bhwc,co->bhwo", first * 0.01 - 1.0, kernel[0, 0]) + bias
    expected = np.clip(numbers + second * 0.02 - 3.0, -8, 8)
    # Half a step of the output, and what rounding five weights moves.
    assert np.abs(received - expected).max() < 16 / 255 * 0.5 + 0.03
    np.testing.assert_array_equal(after, second)


def test_what_has_no_int8_form_is_one_line(images, monkeypatch, tmp_path):
    def refused(match, model, pixels=images):
        with pytest.raises(ExportError, match=match) as error:
            int8_network.int8_model(model, pixels)
        assert "\n" not in str(error.value)

    cpu = tmp_path / "cpuinfo"
    monkeypatch.setattr(int8_network, "_CPU", cpu)
    refused("needs a processor with VNNI or AMX", network())
    cpu.write_text("flags : fpu avx512_bf16\n")
    refused("names neither", network())
    cpu.write_text("flags : fpu avx512_vnni\n")
    refused("needs representative images", network(), None)
    x = keras.Input((SIDE, SIDE, 3))
    y = L.GlobalAveragePooling2D()(L.MaxPooling2D(name="largest")(x))
    refused(r"no int8 form of the layer 'largest' \(MaxPooling2D\)", keras.Model(x, L.Dense(2)(y)))
    y = L.GlobalAveragePooling2D()(kl.GroupedConv2D(6, 1, groups=3, name="groups")(x))
    refused("'groups'", keras.Model(x, L.Dense(2)(y)))
    refused("one GlobalAveragePooling2D", keras.Model(x, L.Dense(2)(L.Flatten()(x))))
    refused("int8: .*LeakyReLU", keras.Model(x, L.Dense(2)(L.Flatten()(L.LeakyReLU()(x)))))
