"""`lightnets evaluate` of what others made: one line for each thing that is not as it needs it."""

import json
import re
import shutil

import keras
import pytest
import tensorflow as tf
from colour_run import make_run

from training.cli import main


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("colour"))


def complaint(capfd, *arguments):
    """Runs the command, which must fail with one line, and returns that."""
    capfd.readouterr()
    code = main(["evaluate", *map(str, arguments)])
    out, err = capfd.readouterr()
    assert (code, out, err.count("\n")) == (1, "", 1), err
    return err


def classifier(side, classes):
    image = keras.Input((side, side, 3))
    x = keras.layers.GlobalAveragePooling2D()(image)
    return keras.Model(image, keras.layers.Dense(classes, activation="softmax")(x))


def test_a_model_of_other_images_or_classes(run, tmp_path, capfd):
    """Caught: a traceback, or numbers for a model that has other classes."""
    classifier(8, 3).save(tmp_path / "small.keras")
    classifier(16, 5).save(tmp_path / "five.keras")
    err = complaint(capfd, tmp_path / "small.keras", "--run", run)
    assert "small.keras does not take images of 16x16 pixels: " in err
    err = complaint(capfd, tmp_path / "five.keras", "--run", run)
    assert re.search(r"shape \(12, 5\), not by a probability for each of the 3 classes", err)


def test_a_saved_model_that_is_no_classifier(run, tmp_path, capfd):
    class Double(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec((None, None, None, 3), tf.float32, name="x")])
        def double(self, x):
            return {"y": 2 * x}

    module = Double()
    signatures = {"serving_default": module.double}
    tf.saved_model.save(module, str(tmp_path / "double"), signatures)
    err = complaint(capfd, tmp_path / "double", "--run", run)
    assert "answers 12 images by an array of shape (12, 16, 16, 3)" in err
    tf.saved_model.save(module, str(tmp_path / "other"), {"other": module.double})
    err = complaint(capfd, tmp_path / "other", "--run", run)
    assert "it has no signature serving_default" in err


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("x.keras", "it is no .keras file, or is cut off"),
        ("x.xml", "Cannot load"),
        ("x.onnx", "Cannot load"),
        ("x.tflite", "Cannot load"),
    ],
)
def test_a_damaged_file_says_nothing_of_anybodys_source_code(run, tmp_path, capfd, name, message):
    (tmp_path / name).write_text("no model")
    err = complaint(capfd, tmp_path / name, "--run", run)
    assert message in err
    assert ".cpp" not in err


def test_places_that_cannot_be_written_are_told_before_measuring(run, tmp_path, capfd):
    err = complaint(capfd, run, "--predictions", tmp_path / "no" / "rows.csv")
    assert f"--predictions: there is no folder {tmp_path}/no." in err
    (tmp_path / "file").touch()
    assert f"--out: {tmp_path}/file is no folder." in complaint(
        capfd, run, "--out", tmp_path / "file"
    )


def test_other_images_are_prepared_as_the_model_wants_them(run, tmp_path, capfd):
    """Caught: the transform of a default configuration, which cuts another part out."""
    transform = json.loads((run / "transform.json").read_text())
    shutil.copy(run / "weights" / "best.keras", tmp_path / "net.keras")

    def loss(*arguments):
        assert main(["evaluate", *map(str, arguments), "--json"]) == 0
        return json.loads(capfd.readouterr().out)["loss"]

    losses = []
    for shorter in (18, 30):
        text = json.dumps(transform | {"resize_shorter": shorter})
        (tmp_path / "transform.json").write_text(text)
        losses.append(loss(tmp_path / "net.keras", "--dataset", run.parent / "pictures"))
    assert losses[0] == loss(run)
    assert losses[1] != losses[0]
