"""`MODEL_CARD.md` and the list of software: what they say, of a run and of an export."""

import json

import numpy as np
import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

import keras_lightnets
from keras_lightnets.export import model_card, sbom
from keras_lightnets.export.parity import HeldOut
from keras_lightnets.preprocessing import EvalTransform
from tests.exports import LABELS, small_net

SIZE = EvalTransform((32, 48), 60)


def rows(text, heading):
    """The rows of the table below a heading, without its first two lines."""
    below = text.partition(f"## {heading}\n")[2]
    return [line.strip("| ").split(" | ") for line in below.splitlines() if line.startswith("|")][
        2:
    ]


def test_the_card_says_how_well_and_where_it_fails():
    # Mutations: the best classes instead of the worst; the class itself as what it is taken for.
    true = np.repeat([0, 1, 2], [10, 4, 6])
    said = np.array([0] * 9 + [1] + [2, 2, 0, 1] + [2] * 6)
    text = model_card.render(
        "net", ["a|b", "*c*", "d\n", "unseen"], SIZE, true, np.eye(4)[said], data="pictures"
    )
    assert rows(text, "Limits") == [
        ["\\*c\\*", "3", "4", "d\\\\n"],
        ["a\\|b", "1", "10", "\\*c\\*"],
    ]
    assert "1 of the classes have no held-out image." in text
    assert "they get one all the same. Of the 4 mistakes 4 had a probability above 0.9." in text
    assert "16 of 20 held-out images get their class: accuracy 0.8000." in text
    assert "0.584 to 0.919 (95 % interval)" in text
    assert "32 x 48 pixels: the shorter side is resized to 60" in text
    assert "**Data**: pictures" in text
    perfect = model_card.render("net", ["a", "b"], SIZE, true % 2, np.eye(2)[true % 2], chose=True)
    assert "None of these images was missed." in perfect
    assert "mistakes" not in perfect
    assert "They also chose the best epoch" in perfect
    padded = EvalTransform((32, 48), pad=True)
    whole = model_card.render("net", ["a", "b"], padded, None, np.eye(2))
    assert "whole image is resized, with margins of the colour (255, 255, 255) to" in whole
    many = model_card.render("net", [str(n) for n in range(30)], SIZE, None, np.eye(30))
    assert "18, 19 and 10 more, in `labels.txt`" in many
    assert many.count("nobody") + many.count("Not ") == 2


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        (None, "where they come from is not known"),
        ("", "trained from random ones"),
        ("torchvision-v1", "torchvision-v1, whose code has the licence BSD-3-Clause;"),
        ("/tmp/mine.pth", "from the published mine.pth; see there for its licence"),
    ],
)
def test_the_licence_is_that_of_the_weights_that_training_began_with(weights, words):
    text = model_card.render("net", ["a"], SIZE, None, np.ones((1, 1)), weights=weights)
    assert words in text


def test_of_a_network_of_somebody_else_the_licence_is_not_known():
    # Mutation: "" for any network, whose card then says that the licence may be chosen.
    ours = keras_lightnets.create_model("squeezenet", input_shape=(32, 32, 3), classes=2)
    assert model_card.weights_of(ours, None) == ""
    assert model_card.weights_of(small_net(), None) is None
    assert model_card.weights_of(small_net(), "imagenet") == "imagenet"


@pytest.mark.parametrize("right", [0, 3, 7])
def test_the_interval_is_wilsons(right):
    from scipy.stats import binomtest

    expected = binomtest(right, 7).proportion_ci(0.95, method="wilson")
    assert model_card.interval(right, 7) == pytest.approx((expected.low, expected.high), abs=1e-6)


@pytest.mark.usefixtures("no_gate")
def test_an_export_has_a_card_and_a_list_of_software(tmp_path):
    model = small_net()
    images = np.random.default_rng(0).integers(0, 256, (6, 40, 48, 3), np.uint8)
    held_out = HeldOut(images, model.predict_on_batch(images.astype("float32")).argmax(-1))
    options = keras_lightnets.ExportOptions(warmup_batch_sizes=(1,))
    config = {"data": {"dataset": "pictures"}, "model": {"weights": "torchvision-v2"}}

    def export(**more):
        more |= {"held_out": held_out, "options": options}
        return keras_lightnets.export_saved_model(model, tmp_path, LABELS, **more)

    version = export(metadata={"run": {"name": "demo", "config": config}})
    card = (version / "MODEL_CARD.md").read_text()
    assert "6 of 6 held-out images get their class" in card
    assert "pictures" in card
    assert "BSD-3-Clause" in card
    text = (version / "assets.extra" / sbom.NAME).read_text()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    listed = {each["name"]: each["version"] for each in json.loads(text)["components"]}
    assert listed["numpy"] == np.__version__
    assert "keras-lightnets" in listed
    assert "pytest" not in listed  # of an extra
    about = json.loads(text)["metadata"]["component"]
    assert (about["name"], about["version"]) == ("small", "1")
    sums = (version / "SHA256SUMS").read_text()
    assert "MODEL_CARD.md" in sums
    assert sbom.NAME in sums

    version = export()
    assert "where they come from is not known" in (version / "MODEL_CARD.md").read_text()
