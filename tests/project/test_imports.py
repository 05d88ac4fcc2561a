"""Fresh processes: what loads, and what another backend's user is told."""

import subprocess
import sys

import pytest

import keras_lightnets
from lightnets.fit import FitModel
from tests.checkout import ROOT, imports

FIRST = {
    "package": "import keras_lightnets, keras",
    "keras": "import keras, keras_lightnets",
    "tensorflow": "import keras_lightnets, tensorflow, keras",
    "layers": "import keras_lightnets.layers.replicas, keras",
    "network": "import keras_lightnets.preprocessing.transform, keras",
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A network, and a checkpoint of a `FitModel`, which `save` writes."""
    folder = tmp_path_factory.mktemp("saved")
    network = keras_lightnets.ShuffleNetV2((32, 32, 3), alpha=0.5, classes=2)
    network.save(folder / "network.keras")
    FitModel(network).save(folder / "fit.keras")
    return folder


@pytest.mark.parametrize(
    "order",
    [
        "package",
        "keras",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("tensorflow", "layers", "network")
        ),
    ],
)
def test_saved_networks_load_in_a_fresh_process(order, saved):
    code = f"""
{FIRST[order]}
for name in ("network", "fit"):
    model = keras.models.load_model(f"{saved}/{{name}}.keras")
    assert {{type(layer).__module__.split(".")[0] for layer in model.layers}} == {{
        "keras", "keras_lightnets"
    }}
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_a_command_on_another_backend_is_told_in_one_line(monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    run = [sys.executable, "-m", "lightnets.cli", "list"]
    done = subprocess.run(run, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("lightnets: The commands run on TensorFlow")


def test_a_script_that_keras_takes_for_a_module_of_its_own_is_no_error(tmp_path):
    # Keras tries `import litert`, and finds this beside the script that runs.
    (tmp_path / "litert.py").write_text("import keras_lightnets\n")
    (tmp_path / "script.py").write_text("import keras, litert, keras_lightnets.layers\n")
    run = [sys.executable, tmp_path / "script.py"]
    subprocess.run(run, check=True, timeout=120)


def test_layers_need_nothing_else_of_the_package():
    """Else the import of Keras, which registers them, could meet a module half imported."""
    for path in (ROOT / "keras_lightnets/layers").glob("*.py"):
        names = [name for name in imports(path) if name.startswith("keras_lightnets.")]
        assert all(name.startswith("keras_lightnets.layers.") for name in names), path
