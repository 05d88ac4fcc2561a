"""What all tests share: this checkout's code, silence, and a clean state of Keras."""

import os
import pathlib
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent

# Processes that tests start must run this checkout, also from other folders.
os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [os.getenv("PYTHONPATH")])])
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


@pytest.fixture(autouse=True)
def clean_keras():
    """Undoes what a test did to Keras' global state, where Keras was used at all."""

    yield
    if "keras" in sys.modules:
        import keras

        keras.config.set_dtype_policy("float32")
        keras.config.set_floatx("float32")
