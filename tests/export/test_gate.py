"""The parity gate: what it lets pass, and that a failure publishes nothing."""

import numpy as np
import pytest
import tensorflow as tf

import keras_lightnets
from keras_lightnets.errors import ExportError, ParityError
from keras_lightnets.export import parity as gate
from keras_lightnets.export.answers import Answer
from tests import gpus
from tests.exports import SIZE, small_net

EXPECTED = np.array([[0.7, 0.2, 0.1], [0.1, 0.5, 0.4]])


def test_equal_numbers_pass():
    result = gate.compare("here", Answer(EXPECTED), Answer(EXPECTED + 5e-6), np.array([0, 2]), None)
    assert result["top1_agreement"] == 1
    assert result["accuracy"] == result["keras_accuracy"] == 0.5


@pytest.mark.parametrize(
    ("received", "match"),
    [
        (EXPECTED + 3e-5, "largest difference of a probability 3.00e-05"),
        (EXPECTED[:, ::-1], "top-1 agreement 0.5000"),
        (EXPECTED[:1], r"\(1, 3\) instead of \(2, 3\)"),
        (EXPECTED * np.nan, "not finite"),
    ],
)
def test_different_numbers_do_not(received, match):
    with pytest.raises(ParityError, match=match):
        gate.compare("here", Answer(EXPECTED), Answer(received), None, None)


def test_a_tie_within_the_rounding_may_be_decided_either_way():
    tied = np.array([[0.5, 0.5]])
    other = tied + np.array([[-1e-7, 1e-7]])
    assert gate.compare("here", Answer(tied), Answer(other), None, None)["top1_agreement"] == 1


def test_the_reference_is_exact_where_a_gpu_rounds(monkeypatch):
    model, images = small_net(), gate.HeldOut.synthetic(SIZE).images
    exact = gate.ask(model, images).probabilities
    gpus.tensor_float_32(monkeypatch)
    assert np.abs(model.predict_on_batch(images.astype("float32")) - exact).max() > 5e-5
    np.testing.assert_allclose(gate.ask(model, images).probabilities, exact, atol=1e-6)


def test_rounded_weights_are_judged_by_accuracy():
    worse = EXPECTED[:, ::-1]
    labels = np.array([0, 1])
    assert (
        gate.compare("here", Answer(EXPECTED), Answer(worse), labels, 0.6)["accuracy_drop"] == 0.5
    )
    with pytest.raises(ParityError, match=r"accuracy falls by 0.5000, more than the 0.4"):
        gate.compare("here", Answer(EXPECTED), Answer(worse), labels, 0.4)


def test_a_mismatch_publishes_nothing(tmp_path, monkeypatch):
    # The same through the processes: test_export_command.py, with a changed graph.
    def read_back(saved_model, expected, scratch):
        right = {
            f"{key}/probabilities": value.probabilities for key, value in expected.answers.items()
        }
        wrong = right | {"serve_bytes/probabilities": right["serve_bytes/probabilities"] + 2e-5}
        return [answer | {"xla_disabled": True} for answer in (right, wrong)]

    monkeypatch.setattr(gate, "_read_back", read_back)
    with pytest.raises(ParityError, match="serve_bytes, oneDNN off: the export differs"):
        keras_lightnets.export_saved_model(small_net(), tmp_path / "models")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_an_export_that_cannot_run_is_not_passed(tmp_path):
    """What Keras 3 makes of a grouped convolution: TensorFlow Serving has XLA switched off."""

    class Compiled(tf.Module):
        @tf.function(
            input_signature=[tf.TensorSpec((None, 4, 4, 3), tf.uint8, name="images")],
            jit_compile=True,
        )
        def serving_default(self, images):
            return {"probabilities": tf.nn.softmax(tf.cast(images[:, 0, 0], tf.float32))}

    module = Compiled()
    signatures = {"serving_default": module.serving_default}
    tf.saved_model.save(module, str(tmp_path / "1"), signatures=signatures)
    held_out = gate.HeldOut(np.zeros((2, 4, 4, 3), "uint8"))
    expected = gate.Reference(held_out, [b"", b""], {"serving_default": np.full((2, 3), 1 / 3)})
    with pytest.raises(ParityError, match=r"The export cannot be run: .*XLA"):
        gate.run(tmp_path / "1", expected)


def test_held_out_pictures_must_fit_the_model(tmp_path):
    images = np.zeros((2, 8, 8, 3), "uint8")
    with pytest.raises(ExportError, match=rf"uint8 \(n, {SIZE[0]}, {SIZE[1]}, 3\)"):
        keras_lightnets.export_saved_model(small_net(), tmp_path, held_out=gate.HeldOut(images))
