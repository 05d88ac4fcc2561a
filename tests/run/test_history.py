"""Which epoch is the best one."""

import math

import pytest

from lightnets.run.history import History


def test_of_equal_accuracies_the_lower_loss_is_better():
    # Mutations: the first of equals stays the best; a higher loss is better; 0.999...9 is not 1.
    history = History("val_accuracy")
    rows = [(0.5, 1.0), (1.0, 1.1), (1 - 1e-15, 0.3), (1.0, 0.3), (1.0, 0.4), (0.9, 0.1)]
    better = [
        history.add({"epoch": n, "val_accuracy": accuracy, "val_loss": loss})
        for n, (accuracy, loss) in enumerate(rows)
    ]
    assert better == [True, True, True, False, False, False]
    assert history.best
    assert history.best["epoch"] == 2
    assert history.epochs_since_best == 3


@pytest.mark.parametrize(
    ("monitor", "values", "best"),
    [
        ("val_accuracy", [0.5, 0.7, 0.6, 0.7], 1),  # the earlier one of two equals
        ("val_loss", [2.0, 1.0, 3.0], 1),
        ("val_accuracy", [math.nan, 0.1, math.nan], 1),
        ("val_loss", [math.nan], None),
    ],
)
def test_the_best_epoch_follows_from_the_rows(monitor, values, best):
    # Mutation: a higher loss is better; NaN is the best of all.
    history = History(monitor)
    better = [history.add({"epoch": n, monitor: value}) for n, value in enumerate(values)]
    assert (history.best and history.best["epoch"]) == best
    assert history.epochs_since_best == (0 if best is None else len(values) - 1 - best)
    assert [n for n, is_best in enumerate(better) if is_best][-1:] == [best][: best is not None]


def test_what_was_before_the_first_step_may_be_the_best():
    # Mutations: epoch 0 is no candidate; it is a row; an equal row beats it.
    history = History("val_accuracy")
    history.begin({"epoch": 0, "val_accuracy": 0.5, "val_loss": 1.0})
    rows = [{"epoch": n, "val_accuracy": n / 5, "val_loss": 1.0} for n in (1, 2, 2.5)]
    assert [history.add(row) for row in rows] == [False, False, False]
    assert history.best
    assert history.best["epoch"] == 0
    assert history.epochs_since_best == len(history.rows) == 3
    assert history.add({"epoch": 4, "val_accuracy": 0.6})
    assert history.epochs_since_best == 0
