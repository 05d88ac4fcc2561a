"""The evaluation transform gives the same pixels in the pipeline, `predict` and the export."""

from __future__ import annotations

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from sklearn.datasets import load_sample_image

import keras_lightnets
import lightnets.data
from keras_lightnets.export.answers import Answer
from lightnets.commands import predict
from lightnets.config import keys as configuration
from lightnets.data import augment

SIDE = 24


@pytest.fixture
def pictures(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    photo = Image.fromarray(load_sample_image("china.jpg"))
    root = tmp_path / "pictures" / "val"
    for name, sides, orientation in (
        ("a/small.jpg", (31, 20), 1),
        ("a/large.jpg", (333, 221), 1),
        ("a/turned.jpg", (90, 61), 6),
        ("b/mirrored.jpg", (61, 90), 5),
        ("b/tall.png", (50, 173), 1),
        ("b/exact.png", (SIDE, SIDE), 1),
        ("b/wrong_name.jpg.png", (77, 77), 1),
    ):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        exif = Image.Exif()
        exif[0x112] = orientation
        kind = "JPEG" if ".jpg" in name else "PNG"
        photo.resize(sides).save(path, kind, exif=exif)
    (tmp_path / "pictures" / "train").symlink_to(root)
    return tmp_path / "pictures"


@pytest.mark.slow
@pytest.mark.usefixtures("no_gate")
def test_every_pixel_is_the_same_everywhere(pictures, tmp_path):
    """Caught: another resize, margin or decoding in any of the four; a random part in training."""
    data = {"dataset": str(pictures), "flip": False, "resize": "pad", "background": [9, 99, 200]}
    config = configuration.from_dict({"model": {"image_size": f"20x{SIDE}"}, "data": data})
    splits = lightnets.data.load(config)
    paths = [splits.eval_source.name(place) for place in range(splits.eval_examples)]
    piped = np.concatenate([np.asarray(images) for images, _, _ in splits.evaluation(7)])

    seen = []
    artifact = type("Artifact", (), {})()
    artifact.transform = splits.transform
    artifact.answer = lambda images: seen.append(images) or Answer(np.zeros((len(images), 2)))
    files = [type(pictures)(path) for path in paths]
    assert [path for path, _ in predict.predictions(artifact, files, 4)] == files
    np.testing.assert_array_equal(np.concatenate(seen), piped)

    @functools.partial(tf.function, input_signature=[tf.TensorSpec((), tf.string)])
    def trained(contents):
        key, randoms = tf.constant([1, 2], tf.int64), tf.zeros(augment.RANDOM_NUMBERS)
        how = config.data, splits.transform
        return augment.train_image(contents, key, randoms, *how)

    for path, pixels in zip(files, piped, strict=True):
        np.testing.assert_array_equal(trained(path.read_bytes()), pixels)

    # A model whose answer is the pixels, so that one level of difference is seen.
    image = keras.Input((*config.model.sides, 3), name="image")
    row = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(image))
    model = keras.Model(image, keras.layers.Activation("linear", dtype="float32")(row), name="m")
    exported = keras_lightnets.export_saved_model(
        model,
        tmp_path / "models",
        transform=splits.transform,
        options=keras_lightnets.ExportOptions(warmup_batch_sizes=(1,)),
    )
    serve_bytes = tf.saved_model.load(str(exported)).signatures["serve_bytes"]
    answer = serve_bytes(image_bytes=tf.constant([path.read_bytes() for path in files]))
    served = np.rint(answer["probabilities"].numpy() * 255).reshape(piped.shape)
    np.testing.assert_array_equal(served, piped)
