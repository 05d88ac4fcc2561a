"""What all tests share: this checkout's code, silence, and a clean state of Keras."""

import gc
import os
import random
import shutil
import sys

import pytest

from tests.checkout import ROOT

# Processes that tests start must run this checkout, also from other folders.
os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [os.getenv("PYTHONPATH")])])
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # as the command does
# A session holds a million objects: looking through them again and again took a sixth of its time.
gc.set_threshold(100_000, 50, 50)


@pytest.fixture(autouse=True)
def clean_keras():
    """Seeds random weights; undoes what a test did to Keras' global state, where it was used."""
    # What Keras draws its seeds from. `set_random_seed` would clear TensorFlow's cache, too: every
    # function would be prepared anew in every test.
    random.seed(0)
    yield
    if "keras" in sys.modules:
        import keras

        keras.config.set_dtype_policy("float32")
        keras.config.set_floatx("float32")


@pytest.fixture(scope="session")
def small_export(tmp_path_factory):
    """A model and the version that it was exported as, for all tests that only read it."""
    import keras_lightnets
    from keras_lightnets.inference import parts
    from tests.exports import LABELS, TRANSFORM, small_net

    model = small_net()
    with pytest.MonkeyPatch.context() as patch:
        # Batches run in parts, as those of larger pictures do.
        patch.setattr(parts, "images_per_part", lambda graph: 4)
        path = keras_lightnets.export_saved_model(
            model,
            tmp_path_factory.mktemp("models"),
            LABELS,
            transform=TRANSFORM,
            options=keras_lightnets.ExportOptions(features=True, warmup_batch_sizes=(1, 4)),
        )
    return model, path


@pytest.fixture(
    scope="session",
    params=["embedded", *(["binary"] if shutil.which("tensorflow_model_server") else [])],
)
def small_server(request, small_export):
    """A server of that export: the embedded one and, where it is on `PATH`, the real one."""
    from tests.serving_models import serving

    with serving(small_export[1].parent.parent, engine=request.param) as server:
        yield server


@pytest.fixture(scope="session")
def browser():
    """The program of a Chromium."""
    from keras_lightnets.export.browser import find

    found = find()
    if found is None:
        assert not os.environ.get("CI"), "CI needs Chromium: see .ci/run"
        pytest.skip("needs Chromium on PATH")
    return found


@pytest.fixture
def no_gate(monkeypatch):
    """Exports are not read back in two processes: what a test promises is something else.

    Returns:
        The options of each comparison that was left out.
    """
    from keras_lightnets.export import parity as gate

    left_out = []

    def run(path, expected, **options):
        left_out.append(options)
        return {"images": len(expected.files), "signatures": {}}

    monkeypatch.setattr(gate, "run", run)
    return left_out
