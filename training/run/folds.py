"""Trains once for each part of the pictures, which is held out then: an honest number of few.

OUT/config.yaml     what all of them share          OUT/fold-1, fold-2, ...  a run each
OUT/folds.csv       their numbers                   OUT/predictions.csv      of every picture
"""

from __future__ import annotations

import csv
import dataclasses
import json
import operator
import pathlib
from typing import Any

from keras_lightnets.intervals import interval
from lightnets.config import keys as configs
from lightnets.config.keys import Config
from lightnets.evaluation import report
from lightnets.run import directory
from lightnets.run.train import train
from lightnets.support import console
from lightnets.support.interrupts import Interrupted
from lightnets.support.words import command
from lightnets.support.writing import csv_text, write_json, write_text

_NUMBERS = ("images", "accuracy", "loss", "best_epoch")


def train_folds(config: Config, out: pathlib.Path) -> None:
    """Trains each fold of `config.data.folds`, or what is left of it, and sums them up in `out`.

    Raises:
        Interrupted: SIGTERM or SIGINT; the state is saved.
        UserError: Something outside the program is wrong.
    """
    if not directory.is_run(out):
        configs.save(config, out / "config.yaml")
    folds = config.data.folds
    runs = [out / f"fold-{number}" for number in range(1, folds + 1)]
    for number, run in enumerate(runs, 1):
        if _results(run).get("finished"):
            continue
        console.line(f"Fold {number} of {folds}")
        data = dataclasses.replace(config.data, fold=number)
        try:
            train(dataclasses.replace(config, data=data), run, resume=directory.is_run(run))
        except Interrupted:
            console.line(f"To go on with all folds: {command('train', '--resume', out)}")
            raise
    _sum_up(out, runs)


def _results(run: pathlib.Path) -> dict[str, Any]:
    file = run / "results.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


def _sum_up(out: pathlib.Path, runs: list[pathlib.Path]) -> None:
    numbers_of = operator.itemgetter(*_NUMBERS)
    rows = [[run.name, *numbers_of(_results(run))] for run in runs]
    write_text(out / "folds.csv", csv_text(("fold", *_NUMBERS), rows))
    answers: list[list[str]] = []
    for run in runs:
        with (run / report.PREDICTIONS).open(encoding="utf-8", newline="") as file:
            header, *own = csv.reader(file)
            answers += own
    write_text(out / report.PREDICTIONS, csv_text(header, answers))
    right = sum(true == said for _, true, said, *_ in answers)
    low, high = interval(right, len(answers))
    accuracy = right / len(answers)
    numbers = {"images": len(answers), "accuracy": accuracy, "interval": [low, high]}
    write_json(out / "results.json", numbers)
    shown = [
        [name, images, f"{score:.4f}", f"{loss:.4f}", best]
        for name, images, score, loss, best in rows
    ]
    console.table(("fold", *_NUMBERS), shown)
    console.line(
        f"All {len(answers)} images, each by a network that did not learn from it: accuracy "
        f"{accuracy:.4f}, for other images like these {low:.3f} to {high:.3f} (95 % interval). "
        "The images of a fold also chose its epoch: the number is a little too high."
    )
    console.line(f"Next: {command('evaluate', runs[0])}")
