"""Weight files of `keras.applications`: the same predictions, on the same pixels."""

import keras
import numpy as np
import pytest

import keras_lightnets
from keras_lightnets.weights import load as weights
from lightnets.run import artifacts
from tests.keras_files import NETWORKS, application, publish


def check_same(builder, theirs, size, **arguments):
    pixels = np.random.default_rng(1).integers(0, 256, (2, size, size, 3), dtype="uint8")
    expected = theirs(keras.applications.mobilenet.preprocess_input(pixels.astype("float32")))
    ours = getattr(keras_lightnets, builder)(
        (size, size, 3), alpha=NETWORKS[builder][1], include_preprocessing=True, **arguments
    )
    np.testing.assert_allclose(ours(pixels), expected, rtol=0, atol=1e-5)
    return ours


def check_tag(builder, size, tmp_path, monkeypatch):
    """The file of this size is found where Keras keeps it."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    theirs = application(builder, size)
    publish(theirs, builder, size, tmp_path / "models")
    ours = check_same(builder, theirs, size, weights="keras")
    assert weights.class_names(ours)[:2] == ["tench", "goldfish"]
    assert weights.evaluation_transform(ours).image_size == (size, size)


def check_odd_size_by_path(builder, tmp_path):
    theirs = application(builder, 193, include_top=False, pooling="avg")
    path = publish(theirs, builder, 224, tmp_path, "_no_top")
    check_same(builder, theirs, 193, weights=path, include_top=False, pooling="avg")


@pytest.mark.parametrize("builder", NETWORKS)
def test_tag_finds_the_file_that_keras_keeps(builder, tmp_path, monkeypatch):
    check_tag(builder, 128, tmp_path, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("size", [160, 192, 224])
@pytest.mark.parametrize("builder", NETWORKS)
def test_every_size_has_its_file(builder, size, tmp_path, monkeypatch):
    check_tag(builder, size, tmp_path, monkeypatch)


@pytest.mark.parametrize("builder", NETWORKS)
def test_odd_sizes_and_files_without_top(builder, tmp_path):
    check_odd_size_by_path(builder, tmp_path)


@pytest.mark.nightly
@pytest.mark.parametrize(("builder", "size"), [("MobileNetV1", 96), ("MobileNetV2", 97)])
def test_exports_pad_as_keras_does(builder, size, tmp_path, no_gate):
    theirs = application(builder, size)
    path = publish(theirs, builder, 224, tmp_path)
    ours = check_same(builder, theirs, size, weights=path)
    options = keras_lightnets.ExportOptions(warmup_batch_sizes=(1,))
    version = keras_lightnets.export_saved_model(ours, tmp_path / "out", options=options)
    pixels = np.random.default_rng(2).integers(0, 256, (3, size, size, 3), dtype="uint8")
    expected = theirs(keras.applications.mobilenet.preprocess_input(pixels.astype("float32")))
    np.testing.assert_allclose(artifacts.open(version).predict(pixels), expected, rtol=0, atol=1e-5)


def test_other_networks_are_refused(tmp_path):
    path = publish(application("MobileNetV1", 128), "MobileNetV1", 128, tmp_path)
    with pytest.raises(ValueError, match=r"another network than model .*: 55 layers instead of"):
        keras_lightnets.MobileNetV2((128, 128, 3), alpha=0.35, weights=path)
