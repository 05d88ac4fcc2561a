"""The table of epochs that a person reads."""

import itertools
import types

import pytest

from lightnets.support import progress
from lightnets.support.progress import Progress

ROW = {"epoch": 1, "step": 22, "loss": 2.04612, "accuracy": 0.30256, "learning_rate": 0.004}
ROW |= {"val_accuracy": 0.36111, "val_loss": 2.28801, "val_top_5_accuracy": 0.9306}


@pytest.fixture(autouse=True)
def _a_second_a_look(monkeypatch):
    clock = types.SimpleNamespace(monotonic=itertools.count().__next__)
    monkeypatch.setattr(progress, "time", clock)


def table(capsys, epochs, *changes):
    """The header, and a row for each epoch with these changes of ROW."""
    shown = Progress(epochs=epochs, steps_per_epoch=22, batch=64)
    for change in changes:
        row = {**ROW, **change}
        shown.start_epoch(row["epoch"], 0)
        shown.end_training(22)
        shown.end_epoch(row, best=row["epoch"] == 1)
    return capsys.readouterr().out.splitlines()


def test_the_columns_stand_below_their_titles(capsys):
    # Mutation: a column without a width; the header printed at every epoch.
    header, first, last = table(capsys, 10, {}, {"epoch": 10})
    titles = ("loss", "acc", "val_loss", "val_acc", "rate")
    values = ("2.046", "0.3026", "2.288", "0.3611", "0.004")
    end = 0
    for title, value in zip(titles, values, strict=True):
        end = header.index(f" {title}", end) + len(title) + 1
        assert first[:end].endswith(f" {value}"), (title, first)
    assert header.startswith("epoch ")
    assert first.startswith("1/10 ")
    assert first.endswith("  best")
    assert last.startswith("10/10 ")


@pytest.mark.parametrize("rate", [0.0004679, 0.00012345, 1.234e-05, 0.04679])
def test_the_widest_row_fits_80_columns_and_no_two_numbers_touch(rate, capsys, monkeypatch):
    # Mutation: four digits of 0.0004679.
    monkeypatch.setattr(progress, "duration", lambda seconds: "99 h 59 min")
    wide = {"loss": 0.00012345, "accuracy": 0.99438, "val_loss": 0.00012345, "val_accuracy": 0.5556}
    header, row = table(capsys, 999, {"epoch": 1, **wide, "learning_rate": rate})
    numbers = row.partition("99 h 59 min")[0].split()
    assert len(numbers) == 7  # epoch, five values, images/s
    assert float(numbers[5]) == pytest.approx(rate, rel=0.01)
    assert max(len(header), len(row)) <= 80


def test_what_is_left_of_a_rate_is_0_and_what_was_skipped_is_said(capsys):
    # Mutation: printing 7.6e-18.
    _, row = table(capsys, 10, {"epoch": 10, "learning_rate": 7.6e-18, "skipped_steps": 2.0})
    assert "e-18" not in row
    assert row.split()[5] == "0"
    assert row.endswith("2 steps skipped so far")
