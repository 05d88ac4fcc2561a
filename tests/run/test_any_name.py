"""A folder and classes of the worst names."""

import csv
import json
import os
import re
import signal

import numpy as np
import pytest
from PIL import Image

from keras_lightnets.catalogue import class_names
from keras_lightnets.serving import Client
from keras_lightnets.text import visible
from lightnets import cli
from lightnets.commands import serve

# A pattern, a link's end, escapes of several languages, two lines, quotes, and a space at the end.
FOLDER = "exp[1]*?\n#%20\\\"'${x} {" + 231 * "n" + "} "
CLASSES = ("$5_$ note", "a\nb", "c\u2028d", "e\x85f", "猫", "=1+1", "\x1b[31mred")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("any") / FOLDER
    random = np.random.default_rng(0)
    for number, name in enumerate(CLASSES):
        (root / "pictures" / name).mkdir(parents=True)
        for copy in range(3):
            pixels = random.integers(0, 60, (32, 32, 3)) + 28 * number
            Image.fromarray(pixels.astype("uint8")).save(root / "pictures" / name / f"{copy}.png")
    return root


def lightnets(capsys, *words):
    """Runs a command that must succeed, and returns what it printed."""
    code = cli.main([str(word) for word in words])
    output = capsys.readouterr()
    assert code == 0, output.err
    shown = (output.out + output.err).replace("\n", "")
    assert shown.isprintable()
    assert "was not drawn" not in shown
    return output.out


def evaluate(capsys, *words):
    return json.loads(lightnets(capsys, "evaluate", *words, "--json"))


@pytest.fixture
def handlers():
    """Puts signal handlers back, as a command in its own process need not."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.nightly
def test_the_whole_way_from_pictures_to_a_served_model(root, capsys, monkeypatch, handlers):
    assert len(os.fsencode(FOLDER)) == 255
    monkeypatch.setenv("XDG_CACHE_HOME", str(root / "cache"))
    pictures, run, served = root / "pictures", root / "run", root / "served"
    network = ("--model", "squeezenet_v1_1", "--image-size", 32, "--small-input")
    lightnets(capsys, "data", "check", pictures, "--page", root / "page.html")
    lightnets(
        capsys,
        *("train", "--dataset", pictures, "--out", run, *network, "--recipe", "scratch-small"),
        *("--epochs", 1, "--batch-size", 7, "--time-limit", "1e-5"),
    )
    assert json.loads((run / "results.json").read_text())["stopped"]
    assert "Resuming after step 1" in lightnets(
        capsys, "train", "--resume", run, "--time-limit", 60
    )
    assert sorted(class_names.read(run)) == sorted(CLASSES)
    assert {path.name for path in run.glob("*.png")} == {"curves.png", "confusion_matrix.png"}

    results = evaluate(capsys, run)
    table = root / "predictions.csv"
    lightnets(capsys, "predict", run, pictures, "--format", "csv", "--top", 1, "--out", table)
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3 * len(CLASSES)
    assert all(row["file"].startswith(str(pictures)) for row in rows)
    assert {row["label"].removeprefix("'") for row in rows} <= set(CLASSES)

    lightnets(capsys, "export", run, "--out", served, "--formats", "tf_serving,litert")
    (version,) = served.glob("*/1")
    for target in (version, *served.rglob("*.tflite")):
        again = evaluate(capsys, target, "--run", run)
        assert again["accuracy"] == results["accuracy"]
        assert [row["class"] for row in again["per_class"]] == class_names.read(run)

    answers = []

    def ask(stop):
        output = capsys.readouterr().out
        url = re.search(r"REST (http://\S+)", output)[1]
        assert visible(str(version.parent)) in output
        with Client(url) as client:
            answers.extend(client.classify([rows[0]["file"]]))

    monkeypatch.setattr(serve, "_wait_for", ask)
    ports = ("--rest-port", 0, "--port", 0)
    assert "Stopped" in lightnets(capsys, "serve", served, "--engine", "embedded", *ports)
    assert answers[0][0][0] in CLASSES
