"""Published networks and weight files on the command line, without a run and without a network."""

import json
import pathlib
import shutil

import numpy as np
import pytest
import tensorflow as tf

import keras_lightnets
from keras_lightnets.catalogue import imagenet
from keras_lightnets.preprocessing import evaluation_image
from lightnets.cli import main
from lightnets.run import artifacts
from tests import published_files
from tests.checkout import ROOT
from tests.keras_files import application, publish
from tests.serving_models import serving

GOLDEN = ROOT / "tests/goldens/published/mobilenet_v2-b0353104.npz"
TAG = ["--model", "mobilenet_v2", "--weights", "torchvision-v1"]


@pytest.fixture
def narrow(tmp_path, monkeypatch):
    """A published file of a narrow network in Keras' cache, and a data set of three classes."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    path = publish(application("MobileNetV1", 128), "MobileNetV1", 224, tmp_path / "models")
    rng = np.random.default_rng(0)
    for wnid in ("n01440764", "n02123045", "n07753592"):
        folder = tmp_path / "three" / "val" / wnid
        folder.mkdir(parents=True)
        for number in range(2):
            image = rng.integers(0, 256, (240, 300, 3), dtype="uint8")
            (folder / f"{number}.png").write_bytes(tf.io.encode_png(image).numpy())
    return path


@pytest.mark.slow
def test_evaluate_and_predict_know_a_published_file(narrow, tmp_path, capsys):
    """By name or by file: transform, class names, and the numbers of a set's classes."""
    data = ["--dataset", str(tmp_path / "three"), "--json"]
    measured = []
    for target in (["--model", "mobilenet_v1_relu6_x0_25", "--weights", "keras"], [str(narrow)]):
        assert main(["evaluate", *target, *data]) == 0
        results = json.loads(capsys.readouterr().out)
        assert results["images"] == 6
        assert len(results["missing_classes"]) == 997
        counted = {row["class"]: row["images"] for row in results["per_class"] if row["images"]}
        assert counted == {"tench": 2, "tabby": 2, "banana": 2}
        measured.append(results["loss"])
    assert measured[0] == measured[1]

    picture = str(tmp_path / "three" / "val" / "n01440764" / "0.png")
    assert main(["predict", str(narrow), picture, "--format", "jsonl"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["predictions"][0]["label"] in imagenet.class_names()

    copied = tmp_path / "nameless.keras"
    keras_lightnets.MobileNetV1((32, 32, 3), alpha=0.25, classes=2).save(copied)
    assert main(["predict", str(copied), picture]) == 1
    assert "does not say how images are prepared. Add --transform-of" in capsys.readouterr().err
    assert main(["predict", str(copied), picture, "--transform-of", "timm-ra4"]) == 2
    assert "measured differently. Name one: mobilenet_v1_relu6" in capsys.readouterr().err
    assert main(["predict", str(copied), picture, "--transform-of", "torchvision-v1"]) == 1
    assert (
        "makes images of size (224, 224), but the model takes (32, 32)" in capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["predict", "--model", "mobilenet_v9", "x.png"],
            "Unknown network 'mobilenet_v9'. Did you",
        ),
        (["predict", "x.keras", "--weights", "keras"], "--weights needs --model NAME"),
        (["evaluate"], "Name what is measured: a TARGET, or --model NAME"),
        (["evaluate", "a", "--model", "mobilenet_v2"], "Name what is measured"),
        (
            ["predict", "x.keras", "--transform-of", "kera"],
            "no run and no tag 'kera'. Did you mean",
        ),
    ],
)
def test_what_cannot_be_meant_is_refused(arguments, message, capsys):
    assert main(arguments) == 2
    assert message in capsys.readouterr().err


@pytest.fixture
def offline(tmp_path, monkeypatch):
    """torchvision's file where a download would be, found by its tag."""
    folder = tmp_path / "models" / "keras_lightnets"
    folder.mkdir(parents=True)
    shutil.copy(published_files.weights(), folder)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))


def check_photographs(scores):
    """`scores`: `(20, 1000)`, of the photographs in their order."""
    true = np.array([number for _, number in published_files.photographs()])
    order = np.argsort(-np.asarray(scores), axis=1)
    assert len(true) == 20
    assert (order[:, 0] == true).sum() >= 17
    assert (order[:, :5] == true[:, None]).any(axis=1).sum() == 20


@pytest.mark.slow
def test_torchvisions_file_gives_torchvisions_logits(offline):
    golden = np.load(GOLDEN)["logits"]
    pixels = np.random.default_rng(20).integers(0, 256, (2, 224, 224, 3), dtype="uint8")
    arguments = {"include_preprocessing": True, "classifier_activation": None}
    for weights in ("torchvision-v1", published_files.weights()):
        model = keras_lightnets.create_model("mobilenet_v2", weights=weights, **arguments)
        np.testing.assert_allclose(model(pixels), golden, rtol=0, atol=1e-4)


@pytest.mark.nightly
@pytest.mark.timeout(1800)  # an export of five formats, each compared in two processes
def test_photographs_are_classified_in_every_form(offline, tmp_path, capsys):
    files = [str(path) for path, _ in published_files.photographs()]
    assert main(["predict", *TAG, *files, "--top", "1000", "--format", "jsonl"]) == 0
    rows = [json.loads(line)["predictions"] for line in capsys.readouterr().out.splitlines()]
    by_name = [{answer["label"]: answer["probability"] for answer in row} for row in rows]
    check_photographs([[row[name] for name in imagenet.class_names()] for row in by_name])

    formats = "tf_serving,litert,onnx,openvino"
    assert main(["export", *TAG, "--out", str(tmp_path / "out"), "--formats", formats]) == 0
    version = tmp_path / "out" / "mobilenet_v2" / "1"
    others = [version / "formats" / name for name in ("model.tflite", "model.onnx", "model.xml")]
    for target in (version, *others):
        artifact = artifacts.open(target)
        assert artifact.labels == list(imagenet.class_names())
        images = [
            evaluation_image(pathlib.Path(file).read_bytes(), artifact.transform) for file in files
        ]
        check_photographs(artifact.predict(np.stack(images)))
    with serving(tmp_path / "out") as server:
        served = artifacts.open(f"{server.wait_ready().url}/v1/models/mobilenet_v2")
        check_photographs(served.predict(np.stack(images)))
        served.close()
