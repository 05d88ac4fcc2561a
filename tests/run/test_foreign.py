"""Networks of anybody: they compute what they did, train exactly, and are refused in one line."""

import argparse
import functools
import pathlib
import re
import sys

import keras
import numpy as np
import pytest

from keras_lightnets import inference_function
from keras_lightnets.inference.function import inference_model
from keras_lightnets.serving import Client
from lightnets import cli
from lightnets.config import keys as configs
from lightnets.config import resolve
from lightnets.run import build, foreign
from lightnets.run.directory import Run
from lightnets.support.errors import UserError
from tests import foreign_networks, processes, toy
from tests.checkout import ROOT
from tests.serving_models import serving

SHAPE, CLASSES = (32, 32, 3), 4
IMAGES = np.random.default_rng(0).integers(0, 256, (3, *SHAPE)).astype("float32")


def built(name, weights=None, **arguments):
    model = configs.ModelConfig(name, image_size=SHAPE[0], weights=weights, bn_momentum=0.8)
    return foreign.build(model, {"input_shape": SHAPE, "classes": CLASSES, **arguments})


def of_tests(name):
    return f"{foreign_networks.__name__}:{name}"


def shaken(network):
    """Gives a network weights and statistics that are nothing special."""
    rng = np.random.default_rng(1)
    for layer in network.layers:
        if isinstance(layer, keras.Model):
            shaken(layer)
        elif not isinstance(layer, keras.layers.Normalization):
            layer.set_weights([rng.uniform(0.1, 0.4, w.shape) for w in layer.get_weights()])
    return network


def answers(network, images=IMAGES):
    return np.asarray(network(images, training=False))


@pytest.mark.parametrize("name", ["plain", "nested", "convolutional", "normalized"])
def test_a_network_computes_what_it_did(name, tmp_path):
    # Mutations: the statistics of `Normalization` are copied as weights; operations keep names.
    theirs = shaken(getattr(foreign_networks, name)(SHAPE, CLASSES))
    expected = answers(theirs)
    if not np.allclose(expected.sum(-1), 1):
        expected = np.asarray(keras.ops.softmax(expected))
    assert expected.std() > 0.01
    theirs.save(tmp_path / "theirs.keras")
    ours = built(str(tmp_path / "theirs.keras"))
    np.testing.assert_allclose(answers(ours), expected, rtol=1e-4, atol=1e-6)
    ours.save(tmp_path / "ours.keras")
    again = keras.models.load_model(tmp_path / "ours.keras")
    np.testing.assert_array_equal(answers(again), answers(ours))
    np.testing.assert_allclose(inference_function(again)(IMAGES), expected, rtol=1e-4, atol=1e-6)
    norms = [one for one in ours.layers if isinstance(one, keras.layers.BatchNormalization)]
    assert {norm.momentum for norm in norms} <= {0.8}
    assert all(layer.trainable for layer in ours.layers)
    if name == "plain":
        kinds = {type(layer).__name__ for layer in inference_model(ours).layers}
        assert not any("BatchNormalization" in kind for kind in kinds)


def test_names_are_the_same_however_much_was_built_before():
    names = [[one.name for one in built(of_tests("nested")).operations] for _ in range(2)]
    assert names[0] == names[1]
    assert len(set(names[0])) == len(names[0])
    assert {"image", "notes", "logits", "predictions"} <= set(names[0])


REFUSED = {
    "sigmoids": "layer 'each', the last one, is neither a softmax nor a linear Dense layer",
    "one_more": r"layer 'wide', the last one, gives \(None, 5\), not \(None, 4\)",
    "no_head": r"layer 'gate' \(\w+\) is no Dense or Conv2D layer",
    "code": r"layer 'lambda\w*' \(Lambda\) cannot be read back from a file",
    "unregistered": r"layer 'mine' \(Unregistered\) cannot be read back .*register_keras",
    "stateful": "layer 'spectral' changes its 'vector_u' while it trains",
    "subclassed": "it is a Subclassed, which has no graph of layers",
    "subclassed_inside": r"layer 'subclassed\w*' \(Subclassed\) has no graph of layers",
    "two_outputs": "it has 2 outputs, where one is needed",
    "fixed_size": r"layer 'large', its input, takes \(None, 64, 48, 3\), .*: --image-size 64x48",
    "unbuilt": r"it has no weights yet: begin it with keras\.Input",
    "no_network": "it is a str, which has no graph of layers",
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_trained_is_refused_by_name(name):
    with pytest.raises(UserError, match=f"{name} cannot be trained: {REFUSED[name]}") as refusal:
        built(of_tests(name))
    assert "\n" not in str(refusal.value)


def test_errors_of_somebodys_code_are_one_line_with_its_place():
    with pytest.raises(UserError, match=r"Cannot build .*: TypeError: unsupported .*_networks\.py"):
        built(of_tests("broken"))
    with pytest.raises(UserError, match=r"Cannot import .*missing: AttributeError: module"):
        built(of_tests("missing"))
    with pytest.raises(UserError, match=r"no network 'MobilNet'\. Did you mean 'MobileNet'\?"):
        built("keras.applications:MobilNet")
    with pytest.raises(UserError, match=r"Cannot build .*:Xception: ValueError: .* at least 71x71"):
        built("keras.applications:Xception")
    with pytest.raises(UserError, match=r"is a run or a \.keras file. Received: imagenet"):
        built(of_tests("plain"), weights="imagenet")


def test_a_file_is_trained_on_for_other_classes(tmp_path):
    path = tmp_path / "mine v2.keras"
    foreign_networks.plain(SHAPE, 7).save(path)
    first = built(str(path))
    assert (first.name, first.output_shape) == ("mine_v2", (None, CLASSES))
    kernel = keras.models.load_model(path).layers[1].kernel
    np.testing.assert_array_equal(first.get_layer("conv2d").kernel, kernel)
    keras.config.set_dtype_policy("mixed_bfloat16")
    half = built(str(path))
    dtypes = {layer.name: layer.compute_dtype for layer in half.layers}
    assert (dtypes["conv2d"], dtypes["logits"]) == ("bfloat16", "float32")
    # And from the weights of a run of it.
    first.save(tmp_path / "run.keras")
    second = built(str(path), weights=str(tmp_path / "run.keras"))
    for mine, theirs in zip(second.get_weights(), first.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize(("name", "alpha"), [("MobileNet", 0.25), ("VGG16", None)])
def test_a_network_of_keras_applications_is_given_its_own_pixels(name, alpha, monkeypatch):
    # Mutation: pixels that are not prepared, of which a run would only seem to learn less.
    original, asked = getattr(keras.applications, name), []

    @functools.wraps(original)
    def build(**arguments):
        asked.append(arguments.pop("weights"))
        return original(weights=None, **arguments)

    monkeypatch.setattr(keras.applications, name, build)
    alphas = {} if alpha is None else {"alpha": alpha}
    ours = built(f"keras.applications:{name}", weights="imagenet", dropout_rate=0.5, **alphas)
    assert asked == ["imagenet"]
    assert ours.get_layer("dropout").rate == 0.5
    assert ours.output_shape == (None, CLASSES)
    theirs = original(weights=None, include_top=False, pooling="avg", input_shape=SHAPE, **alphas)
    layers = {layer.name: layer for layer in ours.layers}
    for layer in theirs.layers:
        if layer.weights:
            layer.set_weights(layers[layer.name].get_weights())
    pixels = sys.modules[original.__module__].preprocess_input(IMAGES.copy())
    features = keras.Model(ours.input, ours.get_layer("global_pool").output)
    expected = answers(theirs, pixels)
    scale = np.abs(expected).max()
    np.testing.assert_allclose(answers(features) / scale, expected / scale, atol=1e-4)
    assert np.abs(answers(theirs) / scale - expected / scale).max() > 0.1


def test_settings_of_a_run(tmp_path, monkeypatch, capsys):
    def resolved(*flags):
        parser = argparse.ArgumentParser()
        resolve.add_arguments(parser)
        args = parser.parse_args(["--dataset", "digits", *flags])
        return resolve.resolve(args, {"recipe": "digits"}).model

    # The recipe's stem is not one of somebody's network; the user's wish is asked of it.
    assert not resolved("--model", of_tests("plain")).small_input
    with pytest.raises(UserError, match=r"takes no model\.small_input\. It takes: filters, rate"):
        build.check_arguments(resolved("--model", of_tests("plain"), "--small-input"))
    with pytest.raises(UserError, match=r"takes no model\.args\.rat\. Did you mean 'rate'"):
        build.check_arguments(resolved("--model", of_tests("plain"), "--set", "model.args.rat=0.1"))
    build.check_arguments(resolved("--model", "keras.applications:MobileNet", "--alpha", "0.25"))
    # A run is resumed from any folder.
    monkeypatch.chdir(tmp_path)
    pathlib.Path("mine.keras").touch()
    assert resolved("--model", "mine.keras").name == str(tmp_path / "mine.keras")
    assert resolved("--model", "mine.keras").label == "mine.keras"
    for name, said in {
        "nowhere:build": "nowhere:build: there is no module 'nowhere' in the current folder",
        "nowhere.keras": "There is no network nowhere.keras.",
        "mine.keras": "it is no .keras file",
    }.items():
        assert cli.main(["train", "digits", "--model", name, "--out", "run"]) == 1
        assert said in capsys.readouterr().err
        assert not pathlib.Path("run").exists()
    assert cli.main(["rank", "digits", of_tests("plain")]) == 2
    assert "Name a run of it." in capsys.readouterr().err


def test_a_network_that_has_changed_is_not_resumed(tmp_path):
    network = built(of_tests("plain"))
    foreign.save(tmp_path, network)
    foreign.check(tmp_path, built(of_tests("plain")), "plain")
    for other in (built(of_tests("plain"), rate=0.3), built(of_tests("nested"))):
        with pytest.raises(UserError, match="The network plain has changed since the run"):
            foreign.check(tmp_path, other, "plain")


def test_the_example_of_the_guide(tmp_path, monkeypatch):
    guide = (ROOT / "docs" / "models.md").read_text()
    (code,) = re.findall(r"```python\n(# my_nets\.py.*?)```", guide, re.DOTALL)
    (tmp_path / "my_nets.py").write_text(code)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "my_nets", raising=False)
    monkeypatch.chdir(tmp_path)
    network = built("my_nets:build", filters=8)
    assert network.name == "my_nets_build"
    assert np.allclose(answers(network).sum(-1), 1)
    assert foreign.remarks(configs.ModelConfig("my_nets:build"), network) == [
        "my_nets:build is given RGB pixels of 0 to 255."
    ]
    bare = keras.Model(network.layers[2].output, network.output)
    (line,) = foreign.remarks(configs.ModelConfig("my_nets:build"), bare)
    assert "no Rescaling or Normalization layer" in line
    del sys.modules["my_nets"]


def run(config, out, die_at=None):
    """Trains a network of `tests.foreign_networks` on the toy data; returns what is left."""
    toy.run(config, out, at_step=toy.death_at(die_at), real=(build, "build_model"))
    return toy.outcome(out), toy.weights_of(out / "weights" / "last.keras")


@pytest.mark.slow
def test_a_run_is_exact_and_the_same_on_two_replicas(tmp_path):
    keys = {"accumulate": 2, "ema": 0.9, "checkpoint_steps": 4, "epochs": 2, "sync_bn": True}
    keys |= {"model__name": of_tests("plain"), "model__dropout_rate": None}

    def config(devices, **arguments):
        return toy.config(devices=devices, model__args=arguments, **keys)

    whole = processes.call(run, config("cpu:2"), tmp_path / "whole")[0]
    killed = processes.Child(run, config("cpu:2"), tmp_path / "killed", die_at=7)
    with pytest.raises(ChildProcessError):
        killed.result()
    assert processes.call(run, config("cpu:2"), tmp_path / "killed")[0] == whole
    alone, both = (
        processes.call(run, config(devices, rate=0.0), tmp_path / devices)[1]
        for devices in ("cpu:1", "cpu:2")
    )
    for mine, theirs in zip(alone, both, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-5)


def refused_by_xla(config, out):
    with pytest.raises(UserError) as refusal:
        run(config, out)
    return str(refusal.value)


@pytest.mark.slow
def test_what_xla_cannot_compile_is_told_in_one_line(tmp_path):
    config = toy.config(jit="on", model__name=of_tests("turned"), model__dropout_rate=None)
    said = processes.call(refused_by_xla, config, tmp_path / "run")
    name = of_tests("turned")
    assert said == f"{name} has ImageProjectiveTransformV3, which XLA lacks. Add --jit off."


MODULE = """
import keras
from keras import layers

@keras.saving.register_keras_serializable("mine")
class Half(layers.Layer):
    def call(self, inputs):
        return inputs / 2

def build(input_shape, classes):
    image = keras.Input(input_shape)
    x = layers.Conv2D(8, 3, strides=2, groups=1)(Half()(layers.Rescaling(1 / 255)(image)))
    x = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(8, 3, groups=4)(x)))
    return keras.Model(image, layers.Dense(classes)(layers.GlobalAveragePooling2D()(x)))
"""


@pytest.mark.parametrize(
    ("name", "flags"),
    [
        pytest.param("my_nets:build", [], marks=pytest.mark.slow),
        pytest.param(
            "keras.applications:MobileNet", ["--alpha", "0.25"], marks=pytest.mark.nightly
        ),
    ],
)
def test_from_training_to_a_server(name, flags, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "my_nets.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    arguments = ["digits", "--model", name, *flags, "--set", "train.epochs=1", "--out", "run"]
    assert cli.main(["train", *arguments]) == 0
    given = "my_nets:build is given RGB pixels of 0 to 255." in capsys.readouterr().out
    assert given == name.startswith("my_nets")
    # Other commands do not know its layers before its module is imported.
    sys.modules.pop("my_nets", None)
    keras.saving.get_custom_objects().pop("mine>Half", None)
    assert cli.main(["evaluate", "run", "--no-report"]) == 0
    assert "accuracy" in capsys.readouterr().out
    assert cli.main(["export", "run", "--out", "served"]) == 0  # with its gate, without XLA
    network = Run.open("run").model()
    images = np.random.default_rng(0).integers(0, 256, (2, *SHAPE), np.uint8)
    with serving(tmp_path / "served") as server, Client(server.url, network.name) as client:
        found = client.predict({"images": images.tolist()})["probabilities"]
    np.testing.assert_allclose(found, network(images.astype("float32")), atol=1e-5)
