"""The folder for browsers: in a real one it answers as the Keras model, or it is not written."""

import functools
import os
import shutil

import numpy as np
import pytest
import tensorflow as tf

from keras_lightnets.errors import ExportError, ParityError
from keras_lightnets.export import browser as browsers
from keras_lightnets.export import formats, parity, runtimes, web
from keras_lightnets.export.described import Description
from keras_lightnets.preprocessing import EvalTransform, evaluation_image
from keras_lightnets.weights import downloads
from lightnets.run import artifacts
from tests import pages
from tests.exports import LABELS, SIZE, TRANSFORM, photos, small_net

NAMES = ["<b>zero</b>", *LABELS[1:]]


FILES, BACK = photos(), (9, 99, 200)


@functools.cache
def held_out(transform):
    """The pictures as a network gets them."""
    prepare = tf.function(lambda file: evaluation_image(file, transform))
    images = np.stack([prepare(tf.constant(file)) for file in FILES])
    return parity.HeldOut(images, None, FILES)


def description(transform):
    return Description("small", NAMES, transform.to_dict())


@pytest.fixture(scope="module")
def exported(browser, tmp_path_factory):
    """A model, its folder, and what was found out about it."""
    # Tests do not download.
    archive = downloads.home() / downloads.FOLDER / f"onnxruntime-web-{web.VERSION}.tgz"
    if not archive.is_file():
        assert not os.environ.get("CI"), "`make install` fetches ONNX Runtime Web"
        pytest.skip(f"needs {archive}, which `make install` fetches")
    folder, model = tmp_path_factory.mktemp("formats"), small_net()
    about = description(TRANSFORM)
    found = formats.convert(model, folder, ["web"], held_out(TRANSFORM), about)["web"]
    return model, folder / "web", found


def completed(exported, folder, transform):
    """What is found out about a page for the same network, otherwise prepared."""
    model, source, _ = exported
    shutil.copy(source / web.MODEL, folder)
    images, tolerance = held_out(transform), formats.TOLERANCE
    return web.complete(folder, description(transform), model, images, None, 0.01, tolerance)


@pytest.mark.slow
def test_the_page_answers_as_the_keras_model(browser, exported):
    model, folder, found = exported
    assert (found["images"], found["top1_agreement"], found["files_top1_agreement"]) == (5, 1, 1)
    assert found["max_difference"] < 1e-6
    assert sum(path.stat().st_size for path in folder.iterdir()) == found["bytes"] < 15e6
    artifact = artifacts.open(folder / "model.onnx")
    assert (artifact.labels, artifact.transform) == (NAMES, TRANSFORM)
    scores = parity.ask(model, held_out(TRANSFORM).images[1:2]).probabilities[0]
    best = np.argsort(-scores)[:5]

    seen, other = (pages.tried(browser, folder, file) for file in (FILES[1], b"no picture"))
    assert seen["rows"] == [f"{NAMES[number]}: {scores[number]:.4f}" for number in best]
    assert seen["about"] == "small runs in this browser: pictures stay on this device."
    assert (seen["problem"], seen["sideways"], seen["picture"] > 0) == ("", False, True)
    assert other["rows"] == []
    assert other["problem"] == "The browser cannot read this file as a picture."
    pages.check(browser, folder, ["index.html"])


@pytest.mark.slow
@pytest.mark.parametrize(
    "how",
    [{"interpolation": "bicubic"}, {"pad": True, "background": BACK}, {"resize_shorter": 40}],
    ids=["bicubic", "pad", "cover"],
)
def test_pixels_of_other_transforms_are_equal_too(exported, tmp_path, how):
    found = completed(exported, tmp_path, EvalTransform(SIZE, **how))
    assert found["max_difference"] < 1e-6


@pytest.mark.slow
def test_a_page_that_prepares_pictures_otherwise_is_refused(exported, tmp_path, monkeypatch):
    changed = shutil.copytree(web._TEMPLATES, tmp_path / "templates")
    text = (changed / "classify.js").read_text()
    assert text.count("* 4 + channel]") == 1
    (changed / "classify.js").write_text(text.replace("* 4 + channel]", "* 4 + 2 - channel]"))
    monkeypatch.setattr(web, "_TEMPLATES", changed)
    with pytest.raises(ParityError, match="web: the export differs from the Keras model"):
        completed(exported, tmp_path, TRANSFORM)
    (tmp_path / "classify.js").write_text("throw new Error('no network')")
    with pytest.raises(ExportError, match="The page fails: no network"):
        web._asked(tmp_path, FILES)


def test_without_browser_or_runtime_one_line_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ExportError, match=r"there is none of chromium, .* apt install chromium"):
        runtimes.check_installed(["web"])
    monkeypatch.setattr(browsers, "find", lambda: "chromium")
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv(downloads.MIRROR, (tmp_path / "mirror").as_uri())
    name = f"onnxruntime-web-{web.VERSION}.tgz"
    with pytest.raises(
        ExportError, match=f"Cannot download file:.*put the file at .*{name}, or set"
    ):
        runtimes.check_installed(["web"])
    (tmp_path / "mirror").mkdir()
    (tmp_path / "mirror" / name).write_bytes(b"another")
    with pytest.raises(ExportError, match=r"is not the published file: .* Try again\.$") as error:
        runtimes.check_installed(["web"])
    assert "\n" not in str(error.value)
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
