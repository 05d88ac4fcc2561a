"""Formats of other runtimes: each computes what the Keras model computes, or is not written."""

import json
import sys
import zipfile

import keras
import numpy as np
import onnx
import openvino
import pytest

import keras_lightnets
from keras_lightnets.errors import ExportError, ParityError
from keras_lightnets.export import bundle, formats, litert, runtimes
from keras_lightnets.export.described import Description
from keras_lightnets.export.parity import HeldOut
from keras_lightnets.inference.function import inference_model
from lightnets.run import artifacts
from lightnets.support.errors import UserError
from tests import gpus
from tests.bundles import traces
from tests.exports import LABELS, SIZE, TRANSFORM, small_net

HELD_OUT = HeldOut.synthetic(SIZE, 20)


@pytest.fixture(scope="module")
def model():
    return small_net()


def in_litert(path):
    """The class names behind a LiteRT file, which its metadata name."""
    content = path.read_bytes()
    assert content.count(b"TFLITE_METADATA") == content.count(b"M001") == 1
    with zipfile.ZipFile(path) as archive:
        (file,) = archive.infolist()
        # Apps map the file into memory.
        assert (file.filename, file.compress_type) == ("labels.txt", zipfile.ZIP_STORED)
        return archive.read(file).decode().splitlines(), None


def in_onnx(path):
    properties = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    return json.loads(properties["labels"]), json.loads(properties["transform"])


def in_openvino(path):
    model = openvino.Core().read_model(path)
    values = (model.get_rt_info(["model_info", key]).value for key in ("labels", "transform"))
    return tuple(map(json.loads, values))


@pytest.mark.parametrize("name", ["litert", "onnx", "openvino", "keras"])
def test_a_format_answers_like_the_keras_model(tmp_path, model, name):
    # Catches float16 weights in OpenVINO's file, a fixed batch, a lost softmax.
    about = Description("small", LABELS, TRANSFORM.to_dict())
    report = formats.convert(model, tmp_path, [name], HELD_OUT, about)
    assert report[name]["top1_agreement"] == 1
    read_described = {"litert": in_litert, "onnx": in_onnx, "openvino": in_openvino}
    if name in read_described:
        labels, transform = read_described[name](tmp_path / report[name]["file"])
        assert (labels, transform or TRANSFORM.to_dict()) == (LABELS, TRANSFORM.to_dict())
    bundle.write_extra(tmp_path, LABELS, {"transform": TRANSFORM.to_dict()})
    artifact = artifacts.open(tmp_path / report[name]["file"])
    assert (artifact.labels, artifact.transform) == (LABELS, TRANSFORM)
    expected = model.predict_on_batch(HELD_OUT.images.astype("float32"))
    for batch in (1, 7):
        received = artifact.predict(HELD_OUT.images[:batch])
        np.testing.assert_allclose(received, expected[:batch], atol=1e-4)
    assert not traces(tmp_path)


def test_the_keras_format_is_compared_on_the_cpu(tmp_path, model, monkeypatch):
    gpus.tensor_float_32(monkeypatch)
    report = formats.convert(model, tmp_path, ["keras"], HELD_OUT)
    assert report["keras"]["max_difference"] < 1e-6


def test_litert_splits_grouped_convolutions_only_where_it_must(model):
    def traced(network):
        graph = litert._for_float(network).get_concrete_function().graph
        return {op.type for op in graph.get_operations()}, graph.inputs[0].shape[0]

    net = keras_lightnets.ShuffleNetV1((32, 32, 3), groups=3, alpha=0.5, include_preprocessing=True)
    for grouped in (model, inference_model(net, merge_pads=False)):
        types, batch = traced(grouped)
        assert ("Split" in types, batch) == (False, 1)
    # A reshape that has been given the batch size would keep a file of batch size 1 at that.
    x = keras.layers.Reshape((SIZE[0] * SIZE[1], 6))(
        keras_lightnets.GroupedConv2D(6, 3, padding="same", groups=3)(model.inputs[0])
    )
    types, batch = traced(keras.Model(model.inputs[0], x))
    assert ("Split" in types, batch) == (True, None)


def test_rounded_weights_are_smaller_and_refused_beyond_the_drop(tmp_path, model):
    convert = formats.convert
    rounded = ["litert-float16", "litert-dynamic", "litert-int8"]
    images = HeldOut.synthetic(SIZE, 32).images
    report = convert(
        model, tmp_path, rounded, HELD_OUT, representative=images, max_accuracy_drop=0.2
    )
    assert all(0 <= report[name]["accuracy_drop"] <= 0.2 for name in rounded)
    contents = [(tmp_path / report[name]["file"]).read_bytes() for name in rounded]
    assert len(set(contents)) == 3
    assert report["litert-float16"]["max_difference"] < 0.01
    # Ranges of almost black images clip everything that real ones give.
    args = (model, tmp_path, ["litert-int8"], HELD_OUT)
    with pytest.raises(ParityError, match="litert-int8: top-1 agreement falls by"):
        convert(*args, representative=images // 64, max_accuracy_drop=0)
    with pytest.raises(ExportError, match="needs representative images"):
        convert(*args)


@pytest.fixture(scope="module")
def int8(model, tmp_path_factory):
    """Both files of ONNX' quantization, and their report."""
    about = Description("small", LABELS, TRANSFORM.to_dict())
    folder = tmp_path_factory.mktemp("int8")
    report = formats.convert(
        model,
        folder,
        ["onnx-int8", "openvino-int8"],
        HELD_OUT,
        about,
        representative=HeldOut.synthetic(SIZE, 40).images,
        max_accuracy_drop=0.1,
    )
    bundle.write_extra(folder, LABELS, {"transform": TRANSFORM.to_dict()})
    return folder, report


@pytest.mark.parametrize("name", ["onnx-int8", "openvino-int8"])
def test_an_int8_file_takes_and_gives_what_the_float_one_does(int8, model, name):
    folder, report = int8
    path = folder / report[name]["file"]
    assert 0 <= report[name]["accuracy_drop"] <= 0.1
    read = in_onnx if path.suffix == ".onnx" else in_openvino
    assert read(path) == (LABELS, TRANSFORM.to_dict())
    artifact = artifacts.open(path)
    assert (artifact.labels, artifact.transform) == (LABELS, TRANSFORM)
    expected = model.predict_on_batch(HELD_OUT.images.astype("float32"))
    for batch in (1, 7):
        received = artifact.predict(HELD_OUT.images[:batch])
        np.testing.assert_allclose(received, expected[:batch], atol=0.1)
    np.testing.assert_allclose(received.sum(-1), 1, atol=1e-5)  # the softmax is not rounded
    assert not traces(folder)


def test_an_int8_file_rounds_each_channel_by_itself_and_pixels_not_at_all(int8):
    # Mutations: one scale for a kernel; normalization in two roundings; activations in float.
    folder, report = int8
    graph = onnx.load(folder / report["onnx-int8"]["file"]).graph
    numbers = {each.name: onnx.numpy_helper.to_array(each) for each in graph.initializer}
    makers = {name: node for node in graph.node for name in node.output}
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    assert len(convolutions) >= 4  # normalization is one
    for node in convolutions:
        image, kernel, bias = (makers[name] for name in node.input)
        assert {each.op_type for each in (image, kernel, bias)} == {"DequantizeLinear"}
        rounded, scales = (numbers[name] for name in kernel.input[:2])
        assert (rounded.dtype, scales.shape) == (np.int8, rounded.shape[:1])
        assert numbers[image.input[2]].dtype == np.uint8
        assert numbers[bias.input[0]].dtype == np.int32
    first = next(node for node in graph.node if node.op_type == "QuantizeLinear")
    assert [numbers[name] for name in first.input[1:]] == [1, 0]
    assert not {"Mul", "Sub"} & {node.op_type for node in graph.node}


def test_an_int8_file_that_loses_too_much_says_what_to_do(tmp_path, model):
    args = (model, tmp_path, ["onnx-int8"], HELD_OUT)
    dark = HeldOut.synthetic(SIZE, 32).images // 64
    with pytest.raises(ParityError, match=r"onnx-int8: .* falls by .* Try `equalize`") as error:
        formats.convert(*args, representative=dark, max_accuracy_drop=0)
    assert "\n" not in str(error.value)
    for images, message in ((None, "'onnx-int8' needs"), (HELD_OUT.images, "at least 32 images")):
        with pytest.raises(ExportError, match=message):
            formats.convert(*args, representative=images)


def test_names():
    assert runtimes.parse_formats("tf_serving, onnx,onnx") == ["tf_serving", "onnx"]
    with pytest.raises(ValueError, match=r"Unknown format 'onx'\. Did you mean 'onnx'"):
        runtimes.parse_formats("onx")
    assert runtimes.parse_formats(" all ") == [n for n in runtimes.FORMATS if n != "web"]
    with pytest.raises(ValueError, match="No format"):
        runtimes.parse_formats(" ,")


@pytest.mark.parametrize(
    ("name", "package"), [("onnx", "tf2onnx"), ("onnx", "onnxruntime"), ("openvino", "openvino")]
)
def test_a_missing_converter(tmp_path, model, monkeypatch, name, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ExportError, match=rf"{package}.*pip install 'keras-lightnets\[convert\]'"):
        formats.convert(model, tmp_path, ["litert", name], HELD_OUT)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("file", ["broken.onnx", "broken.tflite", "broken.xml"])
def test_a_damaged_file(tmp_path, file):
    (tmp_path / file).write_text("garbage")
    with pytest.raises(UserError, match=f"Cannot load .*{file}"):
        artifacts.open(tmp_path / file)
