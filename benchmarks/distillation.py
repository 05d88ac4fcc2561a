"""What does a teacher give a small student that has 100 labelled digits?

    python benchmarks/distillation.py [--seeds 5]

The teacher is ShuffleNet v2 of half the width, trained on all 1,437 training digits; the student is
MobileNet v1 of a quarter of the width. For each seed it sees another 100 digits, with their labels
alone and with the teacher's answers to them. What counts is the accuracy of the last step, which
was not chosen, on 360 held-out digits: the mean over the seeds, with Student's 95 % interval, also
of the difference within each seed.
"""

from __future__ import annotations

import argparse
import datetime
import math
import pathlib
import tempfile

import common
import numpy as np

from lightnets.config import keys as configs
from lightnets.config.recipes import RECIPES
from lightnets.run import training

IMAGES, BATCH, EPOCHS = 100, 20, 40
TEACHER, STUDENT = "shufflenet_v2_x0_5", "mobilenet_v1_x0_25"
COLUMNS = ["case", "seeds", "mean", "low", "high", "gain", "gain_low", "gain_high"]
COLUMNS += ["teacher", "date", "versions"]


def trained(network: str, epochs: int, seed: int, **keys: dict) -> tuple[float, training.Training]:
    """Trains on digits; returns the accuracy at the end, and the training."""
    config = configs.from_dict(RECIPES["digits"].config)
    values: dict = {
        "model": {"name": network},
        "data": {"dataset": "digits", "eval_split": "test"},
        "train": {"epochs": epochs, "seed": seed, "batch_size": BATCH, "eval_batch_size": 120},
    }
    config = configs.update(config, values, where="the benchmark")
    run = training.Training(configs.update(config, keys, where="the benchmark"), None)
    batches = run.batches()
    for _ in range(epochs * run.steps_per_epoch):
        run.take_steps(batches, 1, [0.0, 0.0])
    true, probabilities = run.evaluate(lambda: None)
    accuracy = float(np.mean(true == probabilities.argmax(-1)))
    print(f"{network}, seed {seed}, {keys}: {accuracy:.4f}", flush=True)
    return accuracy, run


def of_seed(teacher: pathlib.Path, seed: int) -> list[float]:
    """Returns the accuracies without the teacher and with it for one seed."""
    first = IMAGES * seed
    some = {"train_split": f"train[{first}:{first + IMAGES}]"}
    ways: tuple[dict, ...] = ({}, {"distillation": {"teacher": str(teacher)}})
    return [trained(STUDENT, EPOCHS, seed, data=some, **keys)[0] for keys in ways]


def interval(values: np.ndarray) -> tuple[float, float, float]:
    """Returns the mean, and between what the true one lies with 95 % (Student's t)."""
    from scipy import stats

    mean = float(values.mean())
    half = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values))
    return mean, mean - float(half), mean + float(half)


def main(arguments: list[str] | None = None) -> None:
    """Trains and writes `distillation-<machine>.csv`."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=pathlib.Path, default=common.RESULTS)
    args = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as temporary:
        teacher = pathlib.Path(temporary) / "teacher.keras"
        known, run = trained(TEACHER, 10, 0)
        run.evaluator.model.save(teacher)
        found = [of_seed(teacher, seed) for seed in range(args.seeds)]
    save(known, np.array(found), args.out)


def save(known: float, found: np.ndarray, out: pathlib.Path) -> None:
    """Writes the result file.

    Args:
        known: Accuracy of the teacher.
        found: Accuracies without it and with it, `(seeds, 2)`.
        out: Folder.
    """
    of = f"labels of {IMAGES} digits"
    cases = (of, f"{of}, and a teacher's answers to them")
    today = datetime.datetime.now(tz=datetime.UTC).date().isoformat()
    rows = []
    for case, accuracies in zip(cases, found.T, strict=True):
        numbers = (*interval(accuracies), *interval(accuracies - found[:, 0]))
        values = (case, len(found), *(f"{n:.4f}" for n in numbers), f"{known:.4f}", today)
        rows.append(dict(zip(COLUMNS, values, strict=False)) | {"versions": common.versions()})
        print(f"{case}: {numbers[0]:.4f} ({numbers[1]:.4f} to {numbers[2]:.4f})")
    common.write(common.result_file("distillation", out), COLUMNS, rows)


if __name__ == "__main__":
    main()
