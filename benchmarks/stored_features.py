"""What does an epoch of `--freeze backbone` take with stored features, and without?

    python benchmarks/stored_features.py

Two runs of MobileNet v2 on crops of photographs, which take turns by the epoch: training, held-out
images, history, checkpoint, best weights. Their numbers are compared, too. Storing the features
takes about as long as an epoch without them; it is said once, in the note.
"""

from __future__ import annotations

import argparse
import csv
import pathlib
import tempfile
import time
from unittest import mock

import common
import pictures

from lightnets.config import keys as configs
from lightnets.run import loop, stored, training


def begin(dataset: pathlib.Path, out: pathlib.Path, size: int, epochs: int) -> loop.Loop:
    """Returns a run before its first epoch."""
    config = configs.from_dict(
        {
            "model": {"name": "mobilenet_v2", "image_size": size, "freeze": "backbone"},
            "data": {"dataset": str(dataset), "crop": "center", "flip": False},
            "optimizer": {"name": "adamw", "learning_rate": 0.001, "schedule": "constant"},
            "train": {"epochs": epochs, "batch_size": 32},
        }
    )
    run = loop.Loop(training.Training(config, out), out)
    run.began = time.monotonic()
    run._start()
    return run


def measure(images: int, size: int, seconds: float) -> common.Row:
    """One epoch of both, in turns."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        dataset = pictures.jpeg_folder(folder / "pictures", images)
        fast = begin(dataset, folder / "stored", size, 1000)
        with mock.patch.object(stored, "epochs", return_value=0):
            slow = begin(dataset, folder / "images", size, 1000)
        started = time.perf_counter()
        batches = {fast: fast.training.batches(), slow: slow.training.batches()}
        storing = time.perf_counter() - started

        def epoch(run: loop.Loop) -> None:
            run._train_epoch(batches[run])
            run._end_epoch()

        sides = {"stored features": lambda: epoch(fast), "whole network": lambda: epoch(slow)}
        turns = common.interleave(sides, seconds=seconds, warm_up=1, min_turns=3)
        parted = max(
            abs(float(one[key]) - float(other[key]))
            for one, other in zip(*map(_history, (fast, slow)), strict=True)
            for key in one
        )
    return common.compare(
        turns,
        *("stored features", "whole network"),
        case=f"epoch, head of mobilenet_v2-{size}, {images} images",
        target=20,
        note=f"storing took {storing:.1f} s once; histories differ by at most {parted:.1g}",
    )


def _history(run: loop.Loop) -> list[dict[str, str]]:
    with (run.out / "history.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def main(arguments: list[str] | None = None) -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, nargs="+", default=[400, 1000])
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--out", type=pathlib.Path, default=common.RESULTS)
    args = parser.parse_args(arguments)
    rows = [measure(images, args.size, args.seconds) for images in args.images]
    common.save("stored_features", rows, args.out)


if __name__ == "__main__":
    main()
