"""A folder and classes of the worst names."""

import json
import os

import numpy as np
import pytest
from PIL import Image

from keras_lightnets import class_names
from training import cli

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


@pytest.mark.slow
def test_a_set_is_checked_trained_on_and_the_run_resumed(root, capsys, monkeypatch):
    assert len(os.fsencode(FOLDER)) == 255
    monkeypatch.setenv("XDG_CACHE_HOME", str(root / "cache"))
    pictures, run = root / "pictures", root / "run"
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
