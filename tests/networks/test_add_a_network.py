"""A sixth network, from outside: a builder and a catalogue are all that anything needs to know."""

import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest

import keras_lightnets
from keras_lightnets.catalogue import registry
from keras_lightnets.networks.complexity import count_macs, count_parameters
from keras_lightnets.weights import convert
from keras_lightnets.weights import load as weights
from tests import two_blocks

SMALL = {"input_shape": (32, 32, 3), "classes": 3}


@pytest.fixture
def registered(monkeypatch):
    monkeypatch.setattr(registry, "FAMILIES", dict(registry.FAMILIES))
    monkeypatch.setattr(registry, "_NETWORKS", dict(registry._NETWORKS))
    registry.register(two_blocks.FAMILY)


def test_it_is_listed_built_and_as_large_as_its_catalogue_says(registered):
    names = keras_lightnets.list_models("two*")
    assert names == ["two_blocks", "two_blocks_w16", "two_blocks_w8"]
    assert keras_lightnets.list_models("two*", pretrained=True) == ["two_blocks_w16"]
    for name in names:
        model = keras_lightnets.create_model(name)
        info = keras_lightnets.model_info(name)
        assert (info.parameters, info.parameters_total) == count_parameters(model)
        assert info.macs == count_macs(model)
        assert model.name == "two_blocks"
    assert keras_lightnets.model_info("two_blocks").alias_of == "two_blocks_w8"


def test_it_takes_the_shared_arguments_and_other_weights(registered, tmp_path):
    features = keras_lightnets.create_model("two_blocks", features_only=True, **SMALL)
    assert list(features.output) == ["stride_2", "stride_4"]
    model = keras_lightnets.create_model("two_blocks", width=4, **SMALL)
    # Of a model that was saved and loaded, too.
    model.save(tmp_path / "model.keras")
    again = keras_lightnets.create_model(
        "two_blocks", width=4, weights=tmp_path / "model.keras", **SMALL
    )
    slots, _ = convert.tensor_slots(again, "timm")
    state = {
        slot.tensor: np.ones([slot.variable.shape[axis] for axis in np.argsort(slot.axes)])
        if slot.axes
        else np.ones(slot.variable.shape)
        for slot in slots
        if slot.tensor != "fc.bias"
    }
    assert convert.detect_source(again, state) == "timm"
    keras_lightnets.load_state_dict(again, state, "timm")
    assert [float(np.mean(weight)) for weight in again.get_layer("logits").weights] == [1, 0]
    with pytest.raises(ValueError, match=r"'first' is for two_blocks_w16.*'first'"):
        keras_lightnets.create_model("two_blocks", weights="first", **SMALL)
    assert weights.notes(again)["variant"] == {"width": 4}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "already a network of this name: two_blocks, two_blocks_w16, two_blocks_w8"),
        ({"name": "mobilenet_v2", "rows": two_blocks.FAMILY.rows[:1]}, "mobilenet_v2, two_blocks"),
        ({"usual": "two_blocks_w9"}, "`usual` of family 'two_blocks' must be the name of a row"),
    ],
    ids=["again", "another's", "usual"],
)
def test_names_that_exist_are_refused_and_nothing_is_changed(registered, changes, message):
    before = keras_lightnets.list_models()
    with pytest.raises(ValueError, match=message):
        registry.register(dataclasses.replace(two_blocks.FAMILY, **changes))
    assert keras_lightnets.list_models() == before
    assert list(registry.FAMILIES)[-1] == "two_blocks"


@pytest.mark.slow
def test_the_command_lists_shows_trains_and_exports_it(tmp_path):
    def lightnets(*arguments):
        command = [sys.executable, two_blocks.__file__, *arguments]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)

    assert "two_blocks_w16\t1.0\t0.2\t20\tfirst" in lightnets("list", "two*").stdout
    info = json.loads(lightnets("info", "two_blocks", "--json").stdout)
    assert (info["builder"], info["alias_of"]) == ("two_blocks.TwoBlocks", "two_blocks_w8")
    train = ["train", "--model", "two_blocks_w16", "--dataset", "digits", "--out", "run"]
    lightnets(*train, "--set", "train.epochs=1", "--set", "model.args.width=4")
    lightnets("export", "run", "--out", "served")
    labels = (tmp_path / "served/two_blocks/1/assets.extra/labels.txt").read_text()
    assert labels.split() == [str(digit) for digit in range(10)]
