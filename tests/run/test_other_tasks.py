"""Runs that tell several labels or numbers: as exact as others, and good to go on with."""

import contextlib
import csv
import io
import json
import pathlib

import keras
import numpy as np
import pytest
from PIL import Image

import keras_lightnets
from keras_lightnets.export.parity import HeldOut
from keras_lightnets.export.runtimes import LOADERS
from keras_lightnets.layers.notes import notes
from keras_lightnets.serving import Client
from lightnets import cli, tasks
from tests import bundles, pages, processes, toy
from tests.run.test_replicas import KEYS, SIZES, assert_equal
from tests.run.test_resume import EVERYTHING, survive, undisturbed
from tests.serving_models import serving

TASKS = {"multi-label": "val_mean_average_precision", "regression": "val_loss"}


@pytest.mark.slow
@pytest.mark.parametrize(("task", "monitor"), TASKS.items())
def test_killed_and_resumed_is_bit_identical(tmp_path, task, monitor):
    config = toy.config(task=task, monitor=monitor, **EVERYTHING)
    whole = undisturbed(config, tmp_path / "whole")
    assert survive(config, tmp_path / "killed", 0, every=3) == whole


@pytest.mark.slow
@pytest.mark.parametrize(("task", "monitor"), TASKS.items())
def test_replicas_train_as_one_device_does(tmp_path, task, monitor):
    def trained(devices):
        config = toy.config(**KEYS, task=task, monitor=monitor, devices=devices)
        results = processes.call(toy.run, config, tmp_path / devices, **SIZES)
        file = tmp_path / devices / "weights" / "last.keras"
        return results, processes.call(toy.weights_of, file)

    assert_equal(trained("cpu:2"), trained("cpu:1"))


def network(task):
    """A network of two labels or values, without training."""
    keras.utils.set_random_seed(1)
    options = {"input_shape": (32, 48, 3), "include_preprocessing": True, "small_input": True}
    model = keras_lightnets.create_model("squeezenet", classes=["cat", "dog"], **options)
    model = task.finish(model)
    task.note(model)
    return model


IMAGES = np.random.default_rng(0).integers(0, 256, (6, 32, 48, 3), np.uint8)
MADE = {
    "labels": tasks.MultiLabel((0.25, 0.75)),
    "values": tasks.Regression((100.0, -5.0), (300.0, 2.0)),
}


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Both kinds in a bundle: the Keras models, and the folder."""
    out = tmp_path_factory.mktemp("served")
    models = {name: network(task) for name, task in MADE.items()}
    for name, model in models.items():
        true = {"labels": np.float32([[1, np.nan]] * 6), "values": np.float32([[90, -4]] * 6)}
        keras_lightnets.export_saved_model(
            model,
            out,
            name=name,
            held_out=HeldOut(IMAGES, true[name]),
            options=keras_lightnets.ExportOptions(
                formats=["litert", "onnx", "openvino", "keras"], warmup_batch_sizes=(1,)
            ),
        )
    return models, out


@pytest.mark.slow
@pytest.mark.parametrize("name", MADE)
def test_every_format_answers_as_keras_does(exported, name):
    models, out = exported
    expected = models[name].predict(IMAGES.astype("float32"), verbose=0)
    version = out / name / "1"
    spread = np.array(getattr(MADE[name], "std", 1.0))
    for file in ("model.tflite", "model.onnx", "model.xml", "model.keras"):
        path = version / "formats" / file
        received = LOADERS[path.suffix](path)(IMAGES).probabilities
        assert np.max(abs(received - expected) / spread) < 1e-4, file
    about = json.loads((version / "formats" / "metadata.json").read_text())["task"]
    assert about == MADE[name].about()
    card = (version / "MODEL_CARD.md").read_text()
    assert "| dog |" in card
    assert "ccuracy of" not in card


@pytest.mark.slow
def test_servers_and_clients_tell_names_scores_and_values(exported, browser):
    models, out = exported
    png = io.BytesIO()
    Image.fromarray(IMAGES[0]).save(png, "PNG")
    scores = models["labels"].predict(IMAGES[:1].astype("float32"), verbose=0)[0]
    values = models["values"].predict(IMAGES[:1].astype("float32"), verbose=0)[0]
    with serving(out) as server:
        for name in MADE:
            code, lines, err = bundles.selftest(
                out / name / "1" / "assets.extra", server.url, "--requests", 0
            )
            assert code == 0, (lines, err)
        (one,) = Client(server.url, "labels").ask(png.getvalue())
        assert one["names"] == ["cat", "dog"]
        np.testing.assert_allclose(one["scores"], scores, atol=1e-5)
        present = (scores >= [0.25, 0.75]).tolist()
        assert one["present"] == present
        (one,) = Client(server.url, "values").ask(png.getvalue())
        np.testing.assert_allclose(one["values"], values, atol=0.01)
        found = pages.tried(browser, server.url, png.getvalue())
        marked = {
            f"{'✓ ' * held}{name}" for name, held in zip(("cat", "dog"), present, strict=True)
        }
        assert {row.partition(":")[0] for row in found["rows"]} == marked


def test_a_classifier_that_begins_with_other_weights_is_one(tmp_path):
    # Mutation: the notes of the file are taken whole.
    network(MADE["labels"]).save(tmp_path / "labels.keras")
    options = {"input_shape": (32, 48, 3), "include_preprocessing": True, "small_input": True}
    begun = keras_lightnets.create_model(
        "squeezenet", classes=["cat", "dog"], weights=tmp_path / "labels.keras", **options
    )
    assert notes(begun)["class_names"] == ["cat", "dog"]
    assert "task" not in notes(begun)


def test_what_has_no_meaning_for_a_task_is_refused(tmp_path):
    model = network(MADE["values"])
    for formats, precision in ((["litert-int8"], "float32"), (["web"], "float32"), ([], "int8")):
        options = keras_lightnets.ExportOptions(formats=formats, precision=precision)
        with pytest.raises(ValueError, match="is for classification, not for regression"):
            keras_lightnets.export_saved_model(model, tmp_path, options=options)


def pictures(folder, count=24):
    """Writes a list of pictures, bright or dark at the left and at the right, and what they are."""
    rng = np.random.default_rng(0)
    rows = []
    for number in range(count):
        sides = rng.integers(0, 2, 2)
        pixels = np.repeat(np.repeat(sides * 150, 16)[None], 32, 0)[..., None]
        pixels = (pixels + rng.integers(0, 100, (32, 32, 3))).astype(np.uint8)
        name = f"{number}.png"
        Image.fromarray(pixels).save(folder / name)
        words = ";".join(w for w, on in zip(("left", "right"), sides, strict=True) if on)
        rows.append([name, words, 100 * int(sides.sum()), "val" if number % 3 == 0 else "train"])
    for list_name, column in (("labels.csv", 1), ("values.csv", 2)):
        with (folder / list_name).open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["path", "labels" if column == 1 else "brightness", "split"])
            writer.writerows([row[0], row[column], row[3]] for row in rows)


def command(*words):
    """Runs a command that must succeed; returns what it prints."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        assert cli.main([*map(str, words)]) == 0
    return out.getvalue()


@pytest.mark.slow
@pytest.mark.parametrize(("task", "name"), [("multi-label", "labels"), ("regression", "values")])
def test_from_a_list_to_answers(tmp_path, capsys, task, name):
    pictures(tmp_path)
    data, run = tmp_path / f"{name}.csv", tmp_path / "run"
    assert f"--task {task}" in command("data", "check", data)
    flags = ["--recipe", "scratch-small", "--model", "squeezenet", "--image-size", 32]
    flags += ["--small-input", "--epochs", 2, "--batch-size", 8, "--task", task]
    command("train", data, *flags, "--out", run, "--devices", "cpu:1")
    told = json.loads(command("evaluate", run, "--json"))
    kept = json.loads((run / "results.json").read_text())
    keys = {"multi-label": ("mean_average_precision", "macro_f1"), "regression": ("mae", "r2")}
    for key in (*keys[task], "loss"):
        assert told[key] == pytest.approx(kept[key], abs=1e-5)
    again = json.loads(command("evaluate", run, "--split", "val", "--json"))
    assert again["loss"] == pytest.approx(told["loss"])
    model = keras.models.load_model(run / "weights" / "best.keras", compile=False)
    assert notes(model)["task"]["name"] == task
    if task == "multi-label":
        assert notes(model)["task"]["thresholds"] != [0.5, 0.5]
    record = json.loads(command("predict", run, tmp_path / "1.png", "--format", "jsonl"))
    numbers = record["scores" if task == "multi-label" else "values"]
    assert set(numbers) == ({"left", "right"} if task == "multi-label" else {"brightness"})
    rows = list(csv.DictReader((run / "predictions.csv").read_text().splitlines()))
    assert len(rows) == 8
    assert pathlib.Path(rows[0]["image"]).name == "0.png"
    page = (run / "report.html").read_text()
    assert "The worst answers" in page
    capsys.readouterr()
    for words, message in (
        (
            ("evaluate", run, "--reject", 0.9),
            f"--reject is for classification, not for --task {task}",
        ),
        (("compare", run, run), f"lightnets compare is for classification, not for --task {task}"),
    ):
        assert cli.main([*map(str, words)]) == 2
        assert message in capsys.readouterr().err


def digits(folder, sides):
    """Writes 30 pixels high pictures of as many digits side by side as asked for, with a list."""
    from sklearn.datasets import load_digits

    found, rng = load_digits(), np.random.default_rng(0)
    order = rng.permutation(len(found.images))
    parts = {"train": order[:1300], "val": order[1300:]}
    large = [
        Image.fromarray((255 - 15.9 * image).astype("uint8")).resize((30, 30))
        for image in found.images
    ]
    rows = []
    for split, own in parts.items():
        chosen = own[:, None]
        if sides == 2:
            chosen = rng.choice(own, (2400 if split == "train" else 600, 2))
        for number, places in enumerate(chosen):
            name = f"{split}{number}.png"
            Image.fromarray(np.hstack([large[place] for place in places])).save(folder / name)
            told = ";".join(sorted({str(found.target[place]) for place in places}))
            rows.append([name, told, split])
    with (folder / "list.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["path", "label", "split"], *rows])
    return folder / "list.csv"


@pytest.mark.nightly
def test_both_digits_of_a_pair_are_told(tmp_path):
    data, run = digits(tmp_path, 2), tmp_path / "run"
    flags = ["--task", "multi-label", "--recipe", "digits", "--alpha", 0.5, "--epochs", 6]
    flags += ["--image-size", "32x64", "--resize", "pad", "--devices", "cpu:1"]
    command("train", data, *flags, "--out", run)
    assert json.loads((run / "results.json").read_text())["mean_average_precision"] >= 0.98


@pytest.mark.nightly
def test_the_value_of_a_digit_is_told(tmp_path):
    data, run = digits(tmp_path, 1), tmp_path / "run"
    flags = ["--task", "regression", "--recipe", "digits", "--epochs", 25, "--devices", "cpu:1"]
    command("train", data, *flags, "--set", "train.loss=huber", "--out", run)
    assert json.loads((run / "results.json").read_text())["mae"] <= 0.25
