"""Real pictures: of Fashion-MNIST, as Debian packages it."""

import gzip
import json
import pathlib

import numpy as np
import pytest
from PIL import Image

from lightnets.cli import main

FOLDER = pathlib.Path("/usr/share/datasets/fashion-mnist")
COUNTS = {"train": 2000, "t10k": 500}  # of 60,000 and 10,000, which would take many minutes


def write_pictures(root: pathlib.Path) -> None:
    """Writes PNG files below `root/SPLIT/CLASS`."""
    assert FOLDER.is_dir(), "Fashion-MNIST is missing: apt-get install dataset-fashion-mnist"
    for split, count in COUNTS.items():
        with gzip.open(FOLDER / f"{split}-labels-idx1-ubyte.gz") as file:
            labels = np.frombuffer(file.read(8 + count), np.uint8, offset=8)
        with gzip.open(FOLDER / f"{split}-images-idx3-ubyte.gz") as file:
            images = np.frombuffer(file.read(16 + count * 28 * 28), np.uint8, offset=16)
        for number, (image, label) in enumerate(
            zip(images.reshape(-1, 28, 28), labels, strict=True)
        ):
            folder = root / {"train": "train", "t10k": "test"}[split] / str(label)
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(folder / f"{number}.png")


@pytest.mark.slow
def test_real_pictures_hold_no_copies(tmp_path, capsys):
    # tests/run/test_few_pictures.py trains on photographs.
    write_pictures(tmp_path)
    assert main(["data", "check", str(tmp_path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {name: split["images"] for name, split in found["splits"].items()} == {
        "train": COUNTS["train"],
        "test": COUNTS["t10k"],
    }
    assert not found["copies"]
    assert not found["wrong"]
