"""`lightnets train --folds`: every picture is judged once, by a network that has not seen it."""

import csv
import json
import shutil

import numpy as np
import pytest

from lightnets import cli, data
from lightnets.config import keys as configs
from lightnets.support.errors import UserError
from tests import toy

CLASSES = ("a", "b", "c")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return toy.noise_files(tmp_path_factory.mktemp("folds") / "pictures", 32, CLASSES)


def test_each_picture_is_held_out_once(pictures):
    # Mutations: a fold too few; the same images in each; another order of the images in each.
    seen = []
    for fold in (1, 2, 3):
        values = {"dataset": str(pictures), "folds": 3, "fold": fold}
        splits = data.load(configs.from_dict({"data": values}))
        own = [splits.eval_source.name(place) for place in range(splits.eval_source.count)]
        trained = [splits.train_source.name(place) for place in range(splits.train_source.count)]
        assert len(set(own + trained)) == 32
        counts = np.bincount(splits.eval_source.read_labels())
        assert counts.max() - counts.min() <= 1, "as many of each class"
        seen += own
    assert len(seen) == len(set(seen)) == 32


FLAGS = ["--folds", "2", "--model", "tests.foreign_networks:plain", "--image-size", "32"]
FLAGS += ["--recipe", "scratch-small", "--epochs", "1", "--batch-size", "8"]


@pytest.mark.slow
def test_folds_are_runs_that_go_on_where_they_stopped(pictures, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["train", str(pictures), "--out", "run", *FLAGS]) == 0
    assert cli.main(["train", "--resume", "run", "--extend", "1"]) == 1
    shown, error = capsys.readouterr()
    assert error.endswith("run holds a run for each fold. Name one of them: run/fold-1\n")
    assert "All 32 images, each by a network that did not learn from it" in shown
    answers = (tmp_path / "run" / "predictions.csv").read_text()
    rows = list(csv.DictReader(answers.splitlines()))
    assert len({row["image"] for row in rows}) == 32
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["accuracy"] == np.mean([row["true"] == row["predicted"] for row in rows])

    kept = (tmp_path / "run" / "fold-1" / "results.json").stat().st_mtime_ns
    shutil.rmtree(tmp_path / "run" / "fold-2")
    assert cli.main(["train", "--resume", "run"]) == 0
    assert "Fold 1" not in capsys.readouterr().out
    assert (tmp_path / "run" / "fold-1" / "results.json").stat().st_mtime_ns == kept
    assert (tmp_path / "run" / "predictions.csv").read_text() == answers, "the same bits"

    assert cli.main(["evaluate", "run"]) == 1
    assert "run holds 2 folds, each a run. Name one: run/fold-1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--folds", "1"], "data.folds (=1) must be at least 2"),
        (["--folds", "3", "--set", "data.fold=4"], "data.fold (=4)"),
        (["--folds", "3", "--dry-run"], "Leave out --folds"),
        (["--folds", "3", "--workers", "a:1,b:2", "--out", "x"], "Leave out --workers"),
    ],
)
def test_what_folds_cannot_do_is_one_line(flags, message, pictures, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    recipe = ["--recipe", "scratch-small", "--image-size", "32"]
    assert cli.main(["train", str(pictures), *recipe, *flags]) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_data_with_held_out_images_has_no_folds(tmp_path):
    for split in ("train", "val"):
        toy.noise_files(tmp_path / split, 6, CLASSES)
    config = configs.from_dict({"data": {"dataset": str(tmp_path), "folds": 3, "fold": 1}})
    with pytest.raises(UserError, match="has held-out images of its own"):
        data.load(config)
