"""Does any setting gain over what `lightnets train` chooses, with few, more or unbalanced pictures?

    python benchmarks/situations.py [--seeds 5] [--only few imbalanced]

Each situation is a folder of pictures, and each way of training it some flags. What counts is the
accuracy of the last epoch, which was not chosen, on held-out pictures of which each class has as
many: the mean over the seeds with Student's 95 % interval, and that of the difference to what is
chosen without these flags. A seed is other pictures and other random numbers.
"""

from __future__ import annotations

import argparse
import datetime
import gzip
import pathlib
import tempfile
from collections.abc import Callable, Sequence
from typing import NamedTuple

import common
import distillation
import numpy as np
from PIL import Image

from lightnets import cli
from lightnets.config.keys import Config
from lightnets.run import train, training
from tests import published_files

FASHION = pathlib.Path("/usr/share/datasets/fashion-mnist")
COLUMNS = ["situation", "flags", "seeds", "mean", "low", "high", "gain", "gain_low", "gain_high"]
COLUMNS += ["date", "versions"]
Write = Callable[[pathlib.Path, np.random.Generator], None]


def crops(counts: Sequence[int]) -> Write:
    """Squares of photographs, a class each; those held out lie right of the others."""

    def write(root: pathlib.Path, rng: np.random.Generator) -> None:
        for (path, _), count in zip(published_files.photographs(), counts, strict=False):
            photograph = Image.open(path).convert("RGB")
            width, height = photograph.size
            middle = width * 6 // 10
            for split, left, right, each in (
                ("train", 0, middle, count),
                ("val", middle, width, 10),
            ):
                for number in range(each):
                    side = int(min(right - left, height) * rng.uniform(0.4, 1))
                    x, y = rng.integers(left, right - side + 1), rng.integers(height - side + 1)
                    crop = photograph.crop((x, y, x + side, y + side))
                    _save(crop.resize((128, 128)), root / split / path.stem, number)

    return write


def fashion(count: int) -> Write:
    """Clothes: Debian's package dataset-fashion-mnist."""

    def write(root: pathlib.Path, rng: np.random.Generator) -> None:
        for split, file, each in (("train", "train", count), ("val", "t10k", 100)):
            with gzip.open(FASHION / f"{file}-labels-idx1-ubyte.gz") as source:
                labels = np.frombuffer(source.read(), np.uint8, offset=8)
            with gzip.open(FASHION / f"{file}-images-idx3-ubyte.gz") as source:
                images = np.frombuffer(source.read(), np.uint8, offset=16).reshape(-1, 28, 28)
            _write_some(root / split, images, labels, [each] * 10, rng)

    return write


def digits(counts: Sequence[int]) -> Write:
    """Handwritten digits: 20 of each are held out."""

    def write(root: pathlib.Path, rng: np.random.Generator) -> None:
        from sklearn.datasets import load_digits

        images, labels = load_digits(return_X_y=True)
        images = np.round(images * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8)
        held_out = _write_some(root / "val", images, labels, [20] * 10, rng)
        rest = np.setdiff1d(np.arange(len(labels)), held_out)
        _write_some(root / "train", images[rest], labels[rest], counts, rng)

    return write


def _write_some(
    root: pathlib.Path,
    images: np.ndarray,
    labels: np.ndarray,
    counts: Sequence[int],
    rng: np.random.Generator,
) -> np.ndarray:
    """Writes so many of each class; returns which."""
    chosen = []
    for label, count in enumerate(counts):
        own = rng.permutation(np.flatnonzero(labels == label))[:count]
        for place in own:
            _save(Image.fromarray(images[place]), root / str(label), place)
        chosen.append(own)
    return np.concatenate(chosen)


def _save(picture: Image.Image, folder: pathlib.Path, number: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    picture.save(folder / f"{number}.png")


class Situation(NamedTuple):
    """Pictures, and ways to train on them.

    Attributes:
        write: Writes them.
        flags: Of all ways.
        ways: Flags of each beside those.
        begun: Whether it begins with torchvision's MobileNet v2.
    """

    write: Write
    flags: str
    ways: tuple[str, ...]
    begun: bool = False


STILL = "--set data.crop=center --set data.flip=false --set data.color_jitter=0"
MILD = "--set data.auto_augment=none"  # of scratch-small, which is chosen: trivialaugment
BALANCED = "--set data.class_weights=balanced"
SMALL = "--model mobilenet_v1_x0_25 --small-input --image-size 32"
SITUATIONS = {
    "few: 10 crops of each of 20 photographs": Situation(
        crops([10] * 20),
        "--image-size 96",
        ("", "--freeze backbone --views 4", STILL),
        begun=True,
    ),
    "small: 100 of each of 10 kinds of clothes": Situation(
        fashion(100),
        f"{SMALL} --epochs 30",
        ("", MILD, "--set data.mixup=0.2", "--ema 0.99"),
    ),
    "small: the same clothes, all 100 epochs of the recipe": Situation(
        fashion(100),
        SMALL,
        ("", MILD),
    ),
    "small: 40 crops of each of 12 photographs": Situation(
        crops([40] * 12),
        "--model mobilenet_v1_x0_25 --small-input --image-size 64",
        ("", MILD),
    ),
    "medium: 1,000 of each of 10 kinds of clothes": Situation(
        fashion(1000),
        f"{SMALL} --epochs 8",
        ("", MILD),
    ),
    "imbalanced: 30 crops of 10 photographs, 3 of 10 others": Situation(
        crops([30, 3] * 10),
        f"--image-size 96 {STILL}",
        ("", BALANCED),
        begun=True,
    ),
    "imbalanced: 60 of 5 digits, 6 of the others": Situation(
        digits([60] * 5 + [6] * 5),
        f"{SMALL} --epochs 40 --set data.flip=false",
        ("", BALANCED),
    ),
}


def trained(folder: pathlib.Path, flags: str, seed: int) -> float:
    """Returns the accuracy at the end of `lightnets train`, but for what it writes."""
    found = []

    def without_files(config: Config, out: pathlib.Path, *, resume: bool) -> dict:
        run = training.Training(config, out, resume=resume)
        for epoch in range(config.train.epochs):
            run.start_epoch(epoch)
            if epoch in (0, run.head_epochs):
                batches = run.batches()
            for _ in range(run.steps_per_epoch):
                run.take_steps(batches, 1, [0.0, 0.0])
        true, probabilities = run.evaluate(lambda: None)
        found.append(float(np.mean(true == probabilities.argmax(-1))))
        return {"advice": []}

    train.train = without_files
    with tempfile.TemporaryDirectory() as temporary:
        words = ["train", str(folder), "--seed", str(seed), "--out", f"{temporary}/run"]
        if cli.main([*words, *flags.split()]):
            raise SystemExit(f"lightnets {' '.join(words)} {flags} failed.")
    print(f"{flags}, seed {seed}: {found[0]:.4f}", flush=True)
    return found[0]


def measure(name: str, seeds: int) -> list[dict]:
    """Returns a row for each way."""
    situation = SITUATIONS[name]
    begin = f" --weights {published_files.weights()}" if situation.begun else ""
    found = []
    for seed in range(seeds):
        with tempfile.TemporaryDirectory() as folder:
            root = pathlib.Path(folder)
            situation.write(root, np.random.default_rng(seed))
            of_all = f"{situation.flags}{begin}"
            found.append([trained(root, f"{of_all} {way}", seed) for way in situation.ways])
    accuracies, rows = np.array(found), []
    for way, own in zip(situation.ways, accuracies.T, strict=True):
        spans = (*distillation.interval(own), *distillation.interval(own - accuracies[:, 0]))
        values = [name, f"{situation.flags} {way}".strip(), seeds, *(f"{n:.4f}" for n in spans)]
        values += [datetime.datetime.now(tz=datetime.UTC).date().isoformat(), common.versions()]
        rows.append(dict(zip(COLUMNS, values, strict=True)))
    return rows


def main(arguments: list[str] | None = None) -> None:
    """Trains and writes `situations-<machine>.csv`."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--only", nargs="+", default=[""], help="beginnings of situations")
    parser.add_argument("--out", type=pathlib.Path, default=common.RESULTS)
    args = parser.parse_args(arguments)
    path = common.result_file("situations", args.out)
    rows = common.load(path) if path.exists() else []
    for name in SITUATIONS:
        if name.startswith(tuple(args.only)):
            rows = [row for row in rows if row["situation"] != name]
            rows += measure(name, args.seeds)
            common.write(path, COLUMNS, rows)


if __name__ == "__main__":
    main()
