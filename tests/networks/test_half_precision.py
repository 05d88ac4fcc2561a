import json
import subprocess
import sys

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]


def accuracy(folder, precision):
    """Held-out accuracy of the demo's training command, at half its length, in a precision."""
    command = [sys.executable, "-m", "lightnets.cli", "train", "--model", "shufflenet_v1"]
    command += ["--dataset", "digits", "--recipe", "digits", "--precision", precision]
    command += ["--epochs", "5", "--image-size", "32"]
    run = folder / precision
    result = subprocess.run([*command, "--out", str(run)], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert f"weights, {precision};" in result.stdout
    return json.loads((run / "results.json").read_text())["accuracy"]


def test_training_reaches_the_accuracy_of_float32_within_a_point(tmp_path):
    # In float16, whose loss is scaled: test_precision.py has bfloat16, on a small network.
    # Mutation: a loss that is not unscaled, or a head that computes in half precision.
    exact = accuracy(tmp_path, "float32")
    assert exact >= 0.95
    assert accuracy(tmp_path, "mixed_float16") >= exact - 0.01
