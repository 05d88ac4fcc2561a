"""The five networks in other runtimes: each answers as the Keras model does."""

import keras
import numpy as np
import pytest

import keras_lightnets
from keras_lightnets.export import formats
from keras_lightnets.export.parity import HeldOut
from lightnets.run import artifacts
from tests.exports import with_statistics

SIDE, CLASSES, LARGEST_DIFFERENCE = 96, 10, 1e-4
NETS = ("shufflenet_v1", "mobilenet_v2", "shufflenet_v2", "mobilenet_v1", "squeezenet")


def randomized(name: str) -> keras.Model:
    """Returns a network with statistics and biases as training leaves them.

    Of a fresh one the batch norms are zeros and ones, and all answers are about equal.
    """
    keras.utils.set_random_seed(0)
    shape = (SIDE, SIDE, 3)
    model = keras_lightnets.create_model(
        name, input_shape=shape, classes=CLASSES, include_preprocessing=True
    )
    rng = np.random.default_rng(0)
    with_statistics(model, rng, 0.2)
    if name == "shufflenet_v2":  # its answers grow until softmax gives ones and zeros
        image = rng.integers(0, 256, (4, *shape)).astype("float32")
        logits = keras.Model(model.inputs[0], model.get_layer("logits").output)
        spread = logits.predict_on_batch(image).std()
        last = [layer for layer in model.layers if layer.weights][-1]
        last.set_weights([weights / max(spread, 1) for weights in last.get_weights()])
    return model


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(NETS[0], marks=pytest.mark.slow),
        *(pytest.param(name, marks=pytest.mark.nightly) for name in NETS[1:]),
    ],
)
def test_onnx_runtime_and_openvino_agree_with_keras(name, tmp_path):
    """OpenVINO also on the SavedModel's `serving_default`, as a server gets it."""
    openvino = pytest.importorskip("openvino")
    images = np.random.default_rng(3).integers(0, 256, (8, 6, 6, 3)).repeat(SIDE // 6, 1)
    images = images.repeat(SIDE // 6, 2).astype("uint8")
    model = randomized(name)
    expected = model.predict_on_batch(images.astype("float32"))
    assert expected.std(0).max() > 10 * LARGEST_DIFFERENCE  # the answers differ by more

    held_out = HeldOut.synthetic((SIDE, SIDE), 8)
    report = formats.convert(model, tmp_path, ["onnx", "openvino"], held_out)
    for kind in ("onnx", "openvino"):
        predict = artifacts.open(tmp_path / report[kind]["file"]).predict
        for batch in (1, 8):
            difference = np.abs(predict(images[:batch]) - expected[:batch]).max()
            assert difference < LARGEST_DIFFERENCE, f"{kind}, batch {batch}: {difference:.1e}"

    path = keras_lightnets.export_saved_model(
        model, tmp_path / "served", options=keras_lightnets.ExportOptions(warmup_batch_sizes=(1,))
    )
    settings = {"INFERENCE_PRECISION_HINT": "f32"}  # else it may choose bfloat16 by itself
    compiled = openvino.Core().compile_model(str(path), "CPU", settings)
    for batch in (1, 8):
        answer = compiled([images[:batch]])["probabilities"]
        difference = np.abs(answer - expected[:batch]).max()
        assert difference < LARGEST_DIFFERENCE, f"SavedModel, batch {batch}: {difference:.1e}"
