"""Readers of a SavedModel other than TensorFlow Serving take `serving_default`, in parts or not."""

import warnings

import numpy as np
import pytest
import tensorflow as tf

from keras_lightnets.export import runtimes, saved_model, signatures
from keras_lightnets.inference import parts
from keras_lightnets.inference.function import inference_model
from tests.exports import LABELS, SIZE, TRANSFORM, small_net


def to_litert(path, folder):
    converter = tf.lite.TFLiteConverter.from_saved_model(
        str(path), signature_keys=["serving_default"]
    )
    with runtimes.without_notices():
        (folder / "model.tflite").write_bytes(converter.convert())
    runner = runtimes.litert_interpreter(folder / "model.tflite").get_signature_runner()
    return lambda images: runner(images=images)["probabilities"]


def to_onnx(path, folder):
    import onnxruntime
    from tf2onnx import convert

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loaded = tf.saved_model.load(str(path))
        spec = [tf.TensorSpec((None, *SIZE, 3), tf.uint8, name="images")]
        served = loaded.signatures["serving_default"]
        function = tf.function(lambda images: served(images=images), input_signature=spec)
        file = str(folder / "model.onnx")
        convert.from_function(function, spec, opset=17, output_path=file)
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    place = next(place for place, name in enumerate(names) if "probabilities" in name)
    return lambda images: session.run(None, {"images": images})[place]


def to_openvino(path, folder):
    import openvino

    model = openvino.compile_model(
        openvino.convert_model(str(path)), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    return lambda images: model([images])["probabilities"]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A model and its SavedModel, which runs batches in parts of four."""
    model, path = small_net(), tmp_path_factory.mktemp("written")
    interface = signatures.Interface(TRANSFORM, tuple(LABELS))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts, "images_per_part", lambda graph: 4)
        saved_model.write_saved_model(inference_model(model), interface, path)
    return model, path


@pytest.mark.slow
@pytest.mark.parametrize("read", [to_litert, to_onnx, to_openvino])
def test_parts_of_a_batch_are_no_obstacle(written, tmp_path, read):
    # Caught: the parts' results in a TensorArray, whose operations LiteRT does not have.
    model, path = written
    predict = read(path, tmp_path)
    for batch in (8, 1):  # two parts, and less than one
        images = np.random.default_rng(batch).integers(0, 256, (batch, *SIZE, 3), np.uint8)
        expected = model.predict_on_batch(images.astype("float32"))
        np.testing.assert_allclose(predict(images), expected, atol=1e-5)
