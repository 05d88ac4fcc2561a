"""The report of a run: what it says, and how a browser shows it."""

import csv
import pathlib
import re

import numpy as np
import tensorflow as tf

from lightnets import data
from lightnets.config import keys as configs
from lightnets.evaluation import page, report, scoring, suspects
from lightnets.run import directory
from tests import pages, toy

HOSTILE = "<script>document.body.remove()</script> & 'b\"".replace("/", "\u2044")


def write(folder, dataset, classes, wrong, certain=0.9):
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
    probabilities[np.arange(len(true)), said] = certain - np.arange(len(true)) / 1000
    accuracy = float(np.mean(said == true))
    results = {
        **{"accuracy": accuracy, "images": len(true), "epochs": 3, "best_epoch": 2},
        "per_class": report.per_class(true, probabilities, splits.labels),
        "advice": ["Try <b>something</b>"],
        "environment": {**directory.environment(config), "seconds": 200.2},
    }
    folder.mkdir()
    path = folder / page.NAME
    model = toy.pooled_network(len(classes))
    found = scoring.Predictions(true, probabilities, splits.labels)
    page.write(splits, results, found, model, None, path)
    return path, [splits.eval_source.name(place) for place in range(wrong)]


def test_mistakes_are_named_by_file_and_nothing_becomes_markup(browser, tmp_path):
    classes = ("cat", HOSTILE)
    dataset = toy.noise_files(tmp_path / "data", 40, classes)
    path, wrong = write(tmp_path / "run & co", dataset, classes, wrong=3)
    text = path.read_text()
    assert "<script" not in text
    assert "Accuracy on 8 held-out images: <b>0.6250</b>" in text
    assert "3 mistakes; 3 shown" in text
    assert "calibration" not in text, "8 images say nothing of it"
    for found in pages.check(browser, path):
        assert found["images"] == text.count("data:image/") >= 3 + 4
        names = ["/".join(pathlib.Path(name).parts[-2:]) for name in wrong]
        places = [found["text"].index(name) for name in names]
        assert places == sorted(places), "the most certain mistake comes first"
        assert "Try <b>something" in found["text"]
        assert "most like it in training: " in found["text"]
        assert "3 min 20 s, evaluation included" in found["text"]
    rows = list(csv.DictReader((path.parent / suspects.TABLE).read_text().splitlines()))
    held_out = [row["image"] for row in rows if row["split"] == "held out"]
    assert held_out == wrong, "which the network is certain to be others"
    listed = (path.parent / suspects.LIST).read_text().splitlines()
    assert listed == [row["image"] for row in rows]


def test_classes_and_kinds_of_mistakes_lead_to_their_pictures(tmp_path, monkeypatch):
    classes = [f"c{number}" for number in range(5)]
    dataset = toy.noise_files(tmp_path / "data", 300, classes)
    monkeypatch.setattr(page, "CALIBRATED", 60)
    path, _ = write(tmp_path / "run", dataset, classes, wrong=60)
    text = path.read_text()
    assert "60 mistakes; " in text
    assert "expected calibration error" in text
    for number in range(5):
        place = f"mistake-{number}-{(number + 1) % 5}"
        assert text.count(f'id="{place}"') >= 1
        assert text.count(f'href="#{place}"') == 2, "from the class and from the matrix"


def test_a_page_is_small_however_many_mistakes_there_are(tmp_path):
    classes = ("a", "b", "c")
    dataset = toy.noise_files(tmp_path / "data", 600, classes)
    path, _ = write(tmp_path / "run", dataset, classes, wrong=100)
    text = path.read_text()
    shown = int(re.search(r"100 mistakes; (\d+) shown", text)[1])
    assert page.MISTAKES <= shown <= page.MISTAKES + 6, "and one of each kind"
    assert len(text) < 1_000_000


def test_pictures_of_a_stream_are_found_by_their_position():
    """Caught: another order, and one record too few or too many before the last one."""
    shades = np.arange(0, 60, 10, np.uint8)
    images = np.broadcast_to(shades[:, None, None, None], (6, 40, 40, 3))
    stream = tf.data.Dataset.from_tensor_slices((images, np.arange(6) % 2))
    config = configs.from_dict({"model": {"image_size": 32}})
    splits = data.from_dataset(config, stream, stream, labels=["a", "b"])
    found = [int(image.mean()) for image in splits.images(splits.eval_source, [5, 0, 3])]
    assert found == [50, 0, 30]
