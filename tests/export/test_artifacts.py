"""One adapter for every form of a network: the same numbers from all."""

import keras
import numpy as np
import pytest

from keras_lightnets.inference import function as inference
from lightnets.run import artifacts
from lightnets.support.errors import UserError
from tests.exports import LABELS, SIZE, TRANSFORM, small_net

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


@pytest.mark.parametrize("images", [1, 1000])
def test_a_keras_file(tmp_path, exported, images, monkeypatch):
    """Caught: many images by the slower network, or a few that wait for it to be folded."""
    folded = []
    fold = inference.inference_function
    monkeypatch.setattr(
        inference, "inference_function", lambda *a, **k: folded.append(1) or fold(*a, **k)
    )
    small_net().save(tmp_path / "net.keras")
    artifact = artifacts.open(tmp_path / "net.keras", images=images)
    assert artifact.labels is None
    assert len(folded) == (images == 1000)
    np.testing.assert_allclose(artifact.predict(IMAGES), exported[1], atol=1e-6)


def test_a_keras_file_that_is_no_classifier(tmp_path):
    """Caught: only what can be folded can be opened."""
    image = keras.Input((*SIZE, 3))
    model = keras.Model(image, keras.layers.Conv2D(2, 3)(image))
    model.save(tmp_path / "net.keras")
    answer = artifacts.open(tmp_path / "net.keras", images=1000).predict(IMAGES)
    expected = model.predict_on_batch(IMAGES.astype("float32"))
    np.testing.assert_allclose(answer, expected, rtol=1e-5)


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
