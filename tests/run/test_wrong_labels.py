"""Pictures in the folder of another class are found by a network that was trained on them."""

import csv
import pathlib

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from lightnets.cli import main


@pytest.mark.nightly
def test_most_of_the_wrong_labels_are_among_the_first_suspects(tmp_path):
    digits, random = load_digits(), np.random.default_rng(0)
    images = len(digits.target)
    wrong = {*random.choice(images, images // 20, replace=False).tolist()}
    for number, (pixels, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        label = (label + random.integers(1, 10)) % 10 if number in wrong else label
        folder = tmp_path / "digits" / str(label)
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray((pixels * 255 / 16).astype(np.uint8)).save(folder / f"{number}.png")
    run, table = tmp_path / "run", tmp_path / "suspects.csv"
    flags = ["--recipe", "digits", "--image-size", "32", "--epochs", "5", "--out", str(run)]
    assert main(["train", str(tmp_path / "digits"), *flags]) == 0
    assert main(["evaluate", str(run), "--split", "train", "--predictions", str(table)]) == 0

    with table.open(encoding="utf-8", newline="") as file:
        rows = sorted(csv.DictReader(file), key=lambda row: float(row["margin"]))
    suspects = [int(pathlib.Path(row["image"]).stem) for row in rows[: 2 * len(wrong)]]
    assert len(rows) == images
    assert len(wrong & {*suspects}) >= 0.8 * len(wrong)

    # The report needs no second look at the data, and judges no image by what has seen it.
    with (run / "suspects.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))[: 2 * len(wrong)]
    suspects = [int(pathlib.Path(row["image"]).stem) for row in rows]
    assert len(wrong & {*suspects}) >= 0.8 * len(wrong)
    report = (run / "report.html").read_text()
    assert all(f">{row['label']}, looks like {row['likely']}<" in report for row in rows[:24])
    assert all(
        f"{row['label']}/{number}.png" in report
        for row, number in zip(rows[:24], suspects[:24], strict=True)
    )
    listed = (run / "suspects.txt").read_text().splitlines()
    assert listed[: len(rows)] == [row["image"] for row in rows]
