"""What does a teacher give a small student that has 100 labelled digits?

    python benchmarks/distillation.py [--seeds 5]

The teacher is ShuffleNet v2 of half the width, trained on all 1,437 training digits; the student is
MobileNet v1 of a quarter of the width. For each seed it sees another 100 digits: with their labels
alone, with the teacher's answers to them, and with its answers to the other 1,337 as well, whose
labels it does not get. All three take as many steps. What counts is the accuracy of the last step,
which was not chosen, on 360 held-out digits: the mean over the seeds, with Student's 95 % interval,
also of the difference within each seed.
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
from lightnets.data.sources import tfds
from lightnets.run import training

# An epoch of 100 digits has 4 steps, one of all 1,437 has 57: 456 in all.
IMAGES, BATCH, EPOCHS_OF_SOME, EPOCHS_OF_ALL = 100, 25, 114, 8
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


def train_teacher(path: pathlib.Path) -> float:
    """Writes the teacher, trained on all digits; returns its accuracy."""
    known, run = trained(TEACHER, 10, 0)
    run.evaluator.model.save(path)
    return known


def of_seed(teacher: pathlib.Path, seed: int) -> list[float]:
    """Returns the accuracies of one seed: without the teacher, with it, and with more digits."""
    first = IMAGES * seed
    some = {"train_split": f"train[{first}:{first + IMAGES}]"}
    taught = {"distillation": {"teacher": str(teacher)}}
    with tempfile.TemporaryDirectory() as folder:
        write_others(pathlib.Path(folder), range(first, first + IMAGES))
        more = {**some, "unlabelled": folder}
        return [
            trained(STUDENT, EPOCHS_OF_SOME, seed, data=some)[0],
            trained(STUDENT, EPOCHS_OF_SOME, seed, data=some, **taught)[0],
            trained(STUDENT, EPOCHS_OF_ALL, seed, data=more, **taught)[0],
        ]


def write_others(folder: pathlib.Path, labelled: range) -> None:
    """Writes all training digits but those that have a label."""
    source = tfds.open_split(tfds.prepared_digits(), "train")
    for place in set(range(source.count)).difference(labelled):
        (folder / f"{place}.png").write_bytes(source.contents(place).numpy())


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
        known = train_teacher(teacher)
        found = []
        for seed in range(args.seeds):
            found.append(of_seed(teacher, seed))
            if seed:  # also of fewer seeds, should it be stopped
                save(known, np.array(found), args.out)


def save(known: float, found: np.ndarray, out: pathlib.Path) -> None:
    """Writes the result file.

    Args:
        known: Accuracy of the teacher.
        found: Accuracies of `of_seed`, `(seeds, 3)`.
        out: Folder.
    """
    of = f"labels of {IMAGES} digits"
    answers = f"{of}, and a teacher's answers to"
    cases = (of, f"{answers} them", f"{answers} all digits")
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
