"""What a person with ten pictures a class gets without naming anything but them."""

import json

import numpy as np
import pytest
from PIL import Image

from lightnets.cli import main
from tests.published_files import photographs, weights

CLASSES, TRAIN, HELD_OUT = 8, 10, 8


def write_crops(root):
    """Squares of eight photographs, a class each; those held out lie right of the others."""
    random = np.random.default_rng(0)
    for path, _ in photographs()[:CLASSES]:
        photograph = Image.open(path).convert("RGB")
        width, height = photograph.size
        parts = {"train": (0, width * 6 // 10, TRAIN), "val": (width * 6 // 10, width, HELD_OUT)}
        for split, (left, right, count) in parts.items():
            folder = root / split / path.stem
            folder.mkdir(parents=True)
            for number in range(count):
                side = int(min(right - left, height) * random.uniform(0.6, 1))
                x = random.integers(left, right - side + 1)
                y = random.integers(0, height - side + 1)
                crop = photograph.crop((x, y, x + side, y + side))
                crop.save(folder / f"{number}.jpg", quality=92)


@pytest.mark.nightly
def test_published_weights_are_worth_ten_points_on_few_photographs(tmp_path, monkeypatch, capsys):
    write_crops(tmp_path / "photographs")
    monkeypatch.chdir(tmp_path)
    accuracy = {}
    for start in (str(weights()), "none"):
        flags = ["--weights", start, "--epochs", "8", "--out", f"run-{len(accuracy)}"]
        assert main(["train", "photographs", *flags]) == 0
        results = json.loads((tmp_path / flags[-1] / "results.json").read_text())
        accuracy[start] = results["accuracy"]
    shown = capsys.readouterr().out
    assert "--freeze backbone" in shown
    with capsys.disabled():
        print(f"\n{TRAIN} crops a class, {CLASSES} classes, held-out accuracy: {accuracy}")
    assert accuracy[str(weights())] >= accuracy["none"] + 0.1
