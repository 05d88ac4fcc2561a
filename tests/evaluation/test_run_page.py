"""The report of a run: what it says, and how a browser shows it."""

import re

import numpy as np
import tensorflow as tf

from lightnets import data
from lightnets.config import keys as configs
from lightnets.evaluation import page, report
from tests import toy
from tests.pages import PROBE, look

HOSTILE = "<script>document.body.remove()</script> & 'b\"".replace("/", "\u2044")


def write(folder, dataset, classes, wrong):
    """Writes a report of a run whose first answers are wrong, with falling certainty."""
    config = configs.from_dict(
        {
            "model": {"image_size": 32},
            "data": {"dataset": str(dataset)},
            "train": {"batch_size": 4},
        }
    )
    splits = data.load(config)
    true = np.asarray(splits.eval_source.read_labels())
    said = np.where(np.arange(len(true)) < wrong, (true + 1) % len(classes), true)
    probabilities = np.full((len(true), len(classes)), 0.01)
    probabilities[np.arange(len(true)), said] = 0.9 - np.arange(len(true)) / 1000
    accuracy = float(np.mean(said == true))
    results = {
        **{"accuracy": accuracy, "images": len(true), "epochs": 3, "best_epoch": 2},
        "per_class": report.per_class(true, probabilities, splits.labels),
        "advice": ["Try <b>something</b>"],
    }
    folder.mkdir()
    path = folder / page.NAME
    page.write(config, splits, results, true, probabilities, path)
    return path, [splits.eval_source.name(place) for place in range(wrong)]


def test_mistakes_are_named_by_file_and_nothing_becomes_markup(browser, tmp_path):
    classes = ("cat", HOSTILE)
    dataset = toy.noise_files(tmp_path / "data", 40, classes)
    path, wrong = write(tmp_path / "run & co", dataset, classes, wrong=3)
    text = path.read_text()
    assert "<script" not in text
    assert "Accuracy on 8 held-out images: <b>0.6250</b>" in text
    assert "3 mistakes; 3 shown" in text
    path.write_text(text + PROBE)

    shown = look(browser, path, width=500)
    title = re.search(r"<title>(.*?)</title>", shown).group(1)
    images, broken, width = (int(number) for number in re.findall(r"\d+", title))
    assert (images, broken) == (3 + 4, 0)
    assert width <= 500, "the page must not scroll sideways"
    places = [shown.index(re.sub(r".*/", "", name)) for name in wrong]
    assert places == sorted(places), "the most certain mistake comes first"
    assert "Try &lt;b&gt;something" in shown


def test_a_page_is_small_however_many_mistakes_there_are(tmp_path):
    classes = ("a", "b", "c")
    dataset = toy.noise_files(tmp_path / "data", 600, classes)
    path, _ = write(tmp_path / "run", dataset, classes, wrong=100)
    text = path.read_text()
    assert f"100 mistakes; {page.MISTAKES} shown" in text
    assert len(text) < 300_000


def test_pictures_of_a_stream_are_found_by_their_position():
    """Caught: another order, and one record too few or too many before the last one."""
    shades = np.arange(0, 60, 10, np.uint8)
    images = np.broadcast_to(shades[:, None, None, None], (6, 40, 40, 3))
    stream = tf.data.Dataset.from_tensor_slices((images, np.arange(6) % 2))
    config = configs.from_dict({"model": {"image_size": 32}})
    splits = data.from_dataset(config, stream, stream, labels=["a", "b"])
    found = [int(image.mean()) for image in splits.held_out_images([5, 0, 3])]
    assert found == [50, 0, 30]
