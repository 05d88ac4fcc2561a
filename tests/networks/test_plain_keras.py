"""Networks of stock Keras layers, loaded where nobody has heard of this package."""

import json
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_lightnets
from tests.exports import SIZE, small_net

STRANGER = """
import json, pathlib, sys
for name in ("keras_lightnets", "lightnets"):
    sys.modules[name] = None  # importing it fails
import keras, numpy as np
folder = pathlib.Path(sys.argv[1])
for path in sorted(folder.glob("*.keras")):
    model = keras.saving.load_model(path)
    answers = model.predict_on_batch(np.load(path.with_suffix(".images.npy")))
    np.save(path.with_suffix(".answers.npy"), answers)
    layers = {type(layer).__name__: type(layer).__module__ for layer in model.layers}
    path.with_suffix(".json").write_text(json.dumps(layers))
"""


def network(name):
    """A network whose batch norms have other numbers than those of new ones."""
    if name == "small":
        return small_net()
    rng = np.random.default_rng(0)
    model = keras_lightnets.create_model(name, input_shape=(64, 64, 3), classes=5)
    for variable in model.variables:
        if variable.name == "moving_variance":
            variable.assign(rng.uniform(0.5, 1.5, variable.shape))
        elif variable.name in ("moving_mean", "beta"):
            variable.assign(rng.normal(0, 0.2, variable.shape))
    return model


PAPERS = ["mobilenet_v1", "mobilenet_v2", "shufflenet_v1", "shufflenet_v2", "squeezenet"]


@pytest.mark.parametrize("names", [["small"], pytest.param(PAPERS, marks=pytest.mark.nightly)])
def test_networks_load_where_this_package_is_not(tmp_path, names):
    # Mutation: another order of the axes of a shuffle; a layer that keeps its first weights.
    expected = {}
    for name in names:
        model = network(name)
        size = model.inputs[0].shape[1:3]
        images = np.random.default_rng(1).integers(0, 256, (2, *size, 3)).astype("float32")
        np.save(tmp_path / f"{name}.images.npy", images)
        expected[name] = model.predict_on_batch(images)
        keras_lightnets.plain_keras(model).save(tmp_path / f"{name}.keras")
    command = [sys.executable, "-c", STRANGER, tmp_path]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    for name, answers in expected.items():
        np.testing.assert_allclose(np.load(tmp_path / f"{name}.answers.npy"), answers, atol=1e-5)
        modules = json.loads((tmp_path / f"{name}.json").read_text())
        assert all(module.startswith("keras.src.") for module in modules.values())
        if name in ("small", "shufflenet_v1"):
            assert modules.keys() >= {"Conv2D", "DepthwiseConv2D", "BatchNormalization", "Permute"}


def test_the_original_stays_and_the_copy_learns_alone():
    model = small_net()
    before = [weight.copy() for weight in model.get_weights()]
    plain = keras_lightnets.plain_keras(model)
    images = np.random.default_rng(0).integers(0, 256, (4, *SIZE, 3)).astype("float32")
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(plain(images, training=True) ** 2)
    gradients = tape.gradient(loss, [v.value for v in plain.trainable_variables])
    assert None not in gradients
    for after, old in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(after, old)
    names = {layer.name for layer in plain.layers if layer.weights}
    assert names == {layer.name for layer in model.layers if layer.weights}


class Custom(keras.layers.Layer):
    def call(self, inputs):
        return inputs


def test_what_has_no_plain_form_is_named():
    image = keras.Input((8, 8, 3))
    with pytest.raises(ValueError, match="The layer 'own' is a Custom: neither of Keras nor"):
        keras_lightnets.plain_keras(keras.Model(image, Custom(name="own")(image)))
    model = keras_lightnets.create_model("shufflenet_v2", input_shape=(None, None, 3))
    with pytest.raises(ValueError, match=r"'stage2_unit2_split' shuffles channels.*\(None, None, "):
        keras_lightnets.plain_keras(model)
    with pytest.raises(ValueError, match="has no weights yet"):
        keras_lightnets.plain_keras(keras.Sequential([keras.layers.Dense(1)]))
