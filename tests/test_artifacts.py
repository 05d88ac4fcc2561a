"""One adapter for every form of a network: the same numbers from all."""

import numpy as np
import pytest
from test_export import LABELS, SIZE, TRANSFORM, small_net

from training import artifacts
from training.errors import UserError

IMAGES = np.random.default_rng(5).integers(0, 256, (3, *SIZE, 3)).astype("uint8")


@pytest.fixture(scope="module")
def exported(small_export):
    model, path = small_export
    return path, model.predict_on_batch(IMAGES.astype("float32"))


@pytest.mark.parametrize("up", [0, 1, 2], ids=["version", "model", "bundle"])
def test_a_saved_model_by_any_of_its_directories(exported, up):
    path, expected = exported
    artifact = artifacts.open([path, *path.parents][up])
    assert artifact.labels == LABELS
    assert artifact.transform == TRANSFORM
    np.testing.assert_allclose(artifact.predict(IMAGES), expected, atol=1e-5)


def test_a_keras_file(tmp_path, exported):
    small_net().save(tmp_path / "net.keras")
    artifact = artifacts.open(tmp_path / "net.keras")
    assert artifact.labels is None
    np.testing.assert_allclose(artifact.predict(IMAGES), exported[1], atol=1e-6)


def test_what_is_no_model(tmp_path):
    (tmp_path / "notes.txt").write_text("")
    (tmp_path / "broken.keras").write_text("no archive")
    (tmp_path / "empty").mkdir()
    for name, match in {
        "none": "There is no",
        "notes.txt": r"is no model file.*\.tflite",
        "broken.keras": "Cannot load .*broken.keras",
        "empty": "neither a run .* nor a model",
    }.items():
        with pytest.raises(UserError, match=match):
            artifacts.open(tmp_path / name)
