"""The examples of `docs/examples.md` run as they stand, one after the other in one folder."""

import re
import runpy
import subprocess
import sys

import keras
import numpy as np
import pytest

from tests import toy
from tests.checkout import ROOT

CODE = re.findall(
    r"```python\n(# (\w+\.py)\n.*?)```", (ROOT / "docs" / "examples.md").read_text(), re.DOTALL
)


@pytest.mark.slow
def test_every_example_does_what_it_says(tmp_path, monkeypatch):
    names = [name for _, name in CODE]
    assert names == ["finetune.py", "load.py", "heads.py", "detector.py", "plain.py"]
    for code, name in CODE:
        (tmp_path / name).write_text(code)
    toy.noise_files(tmp_path / "pictures", 20, ("cat", "dog"))
    (tmp_path / "pictures" / "cat" / "0.png").rename(tmp_path / "picture.png")
    monkeypatch.chdir(tmp_path)
    keras.utils.set_random_seed(0)
    assert len([line for line in CODE[0][0].splitlines()[1:] if line]) <= 24
    network = runpy.run_path("finetune.py")["network"]
    done = subprocess.run([sys.executable, "load.py"], check=True, capture_output=True, text=True)
    (_, said), *_ = re.findall(r"\('(cat|dog)', [^\d]*([\d.]+)", done.stdout)
    picture = keras.utils.load_img("picture.png", target_size=(96, 96))
    probabilities = network.predict(keras.utils.img_to_array(picture)[None])
    assert float(said) == pytest.approx(float(probabilities.max()), abs=1e-4)
    answers = runpy.run_path("heads.py")["model"].output
    assert {name: answer.shape for name, answer in answers.items()} == {
        "species": (None, 3),
        "age": (None, 1),
    }
    found = runpy.run_path("detector.py")
    assert found["detector"].output["extent"].shape == (None, 12, 12, 2)
    assert len(found["rows"]) == 8
    plain = runpy.run_path("plain.py")
    again = keras.models.load_model("digits.keras")
    images = keras.ops.convert_to_numpy(plain["images"][:8])
    np.testing.assert_allclose(again.predict(images), plain["model"].predict(images), atol=1e-4)
