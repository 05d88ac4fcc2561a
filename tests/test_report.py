import csv

import numpy as np
import pytest
from matplotlib import image as mpl_image

from training import report

LABELS = ["cat", "dog", "eel"]
TRUE = np.array([0, 0, 1, 1, 2])
PROBABILITIES = np.eye(3, dtype="float32")[[0, 1, 1, 1, 0]]


def test_per_class_scores_follow_their_definitions(tmp_path):
    rows = report.per_class(TRUE, PROBABILITIES, LABELS)
    assert [row["images"] for row in rows] == [2, 2, 1]
    # cat: one of two predictions right, one of two images found; dog: 2 of 3, 2 of 2; eel: none.
    assert [row["precision"] for row in rows] == pytest.approx([1 / 2, 2 / 3, 0])
    assert [row["recall"] for row in rows] == pytest.approx([1 / 2, 1, 0])
    report.write_per_class(rows, tmp_path / "per_class.csv")
    with (tmp_path / "per_class.csv").open() as file:
        saved = list(csv.DictReader(file))
    assert [row["class"] for row in saved] == LABELS
    assert float(saved[1]["f1"]) == pytest.approx(0.8)


def test_pictures_are_drawn_and_leave_no_temporary_file(tmp_path):
    history = [{"epoch": 1, "loss": 2.0, "val_loss": 2.1}, {"epoch": 2, "loss": 1.0, "val_loss": 1}]
    report.write_curves(history, tmp_path / "curves.png")
    report.write_confusion_matrix(TRUE, PROBABILITIES, LABELS, tmp_path / "confusion_matrix.png")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["confusion_matrix.png", "curves.png"]
    for path in tmp_path.iterdir():
        pixels = mpl_image.imread(path)
        assert pixels.shape[0] > 200
        assert pixels.std() > 0.01


def test_a_thousand_classes_still_give_a_picture(tmp_path):
    true = np.arange(1000)
    report.write_confusion_matrix(
        true, np.eye(1000, dtype="float32"), [str(i) for i in true], tmp_path / "matrix.png"
    )
    assert mpl_image.imread(tmp_path / "matrix.png").shape[0] < 2000
