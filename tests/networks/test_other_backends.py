"""Networks on Keras' other backends: no TensorFlow, the same numbers, the same training."""

import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from tests import backend_jobs

# An installation of its own: TensorFlow would import a JAX beside it, in every process.
JAX = pathlib.Path(sys.prefix, "jax")


def on_another_backend(*command: str, backend: str) -> list[str]:
    paths = os.pathsep.join((os.environ["PYTHONPATH"], str(JAX)))
    environment = {**os.environ, "KERAS_BACKEND": backend, "PYTHONPATH": paths}
    run = subprocess.run(
        [sys.executable, *command],
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout.splitlines()


@pytest.mark.slow
def test_a_network_needs_no_tensorflow_on_another_backend():
    code = (
        "import sys, keras_lightnets\n"
        "assert keras_lightnets.ShuffleNetV2((32, 32, 3), classes=2).count_params()\n"
        "print('tensorflow' in sys.modules)\n"
    )
    assert on_another_backend("-c", code, backend="jax") == ["False"]


@pytest.mark.slow
def test_jax_computes_and_trains_like_tensorflow(tmp_path):
    model = backend_jobs.network()
    model.save(tmp_path / "tensorflow.keras")
    model.save_weights(tmp_path / "tensorflow.weights.h5")
    said = on_another_backend("-m", "tests.backend_jobs", str(tmp_path), backend="jax")
    assert len(said) == 6
    assert all(" needs TensorFlow: set KERAS_BACKEND=tensorflow. " in line for line in said)

    expected = backend_jobs.numbers(model)
    with np.load(tmp_path / "other.npz") as other:
        for name, value in expected.items():
            np.testing.assert_allclose(other[name], value, rtol=1e-4, atol=1e-5, err_msg=name)
    # Back again, and lower for having trained.
    model.load_weights(tmp_path / "other.weights.h5")
    assert backend_jobs.numbers(model)["loss"] < expected["loss"]
