"""The README in a bundle: its calls are run as they stand, against the embedded server."""

from __future__ import annotations

import re
import subprocess
import sys

import keras
import pytest
import tensorflow as tf
from serving_models import serving

import keras_lightnets

SIZE = 32  # pixels
NAMES = ["cat", "dog"]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundle")
    keras.utils.set_random_seed(0)
    model = keras_lightnets.SqueezeNet(
        (SIZE, SIZE, 3), classes=len(NAMES), small_input=True, include_preprocessing=True
    )
    keras_lightnets.export_saved_model(model, folder, NAMES, name="pets", warmup_batch_sizes=[1])
    picture = tf.image.resize(tf.random.stateless_uniform((8, 8, 3), [1, 2]), (40, 50)) * 255
    (folder / "picture.png").write_bytes(tf.io.encode_png(tf.cast(picture, tf.uint8)).numpy())
    return folder


def test_the_calls_of_the_readme_work_as_they_stand(bundle):
    # Mutation: another signature, model or output name in the text.
    readme = (bundle / "README.md").read_text()
    shell = re.findall(r"```sh\n(.*?)```", readme, flags=re.S)
    python = re.findall(r"```python\n(.*?)```", readme, flags=re.S)
    assert (len(shell), len(python)) == (2, 2)
    with serving(bundle) as server:
        rest = server.url.removeprefix("http://")
        grpc = server.grpc_url.removeprefix("grpc://")

        def run(command):
            command[-1] = command[-1].replace("127.0.0.1:8501", rest)
            command[-1] = command[-1].replace("127.0.0.1:8500", grpc)
            result = subprocess.run(command, capture_output=True, text=True, cwd=bundle)
            assert result.returncode == 0, result.stderr
            return result.stdout

        assert '"AVAILABLE"' in run(["bash", "-c", shell[0]])
        answer = run(["bash", "-c", shell[1]])
        assert '"valid": true' in answer.replace('":true', '": true')
        lines = [run([sys.executable, "-c", code]).split() for code in python]
    (label, score), (grpc_label, grpc_score) = lines
    assert label == grpc_label
    assert label in NAMES
    assert float(score) == pytest.approx(float(grpc_score), abs=1e-5)
    assert f'"{label}"' in answer
