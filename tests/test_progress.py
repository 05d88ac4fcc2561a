"""The table of epochs that a person reads."""

import pytest

from lightnets.support.progress import Progress

ROW = {"epoch": 1, "step": 22, "loss": 2.04612, "accuracy": 0.30256, "learning_rate": 0.004}
ROW |= {"val_accuracy": 0.36111, "val_loss": 2.28801, "val_top_5_accuracy": 0.9306}


@pytest.fixture
def lines(capsys):
    """The lines of two epochs of which each fits the header."""
    progress = Progress(epochs=10, steps_per_epoch=22, batch=64)
    for epoch, changed in ((1, {}), (10, {"learning_rate": 7.6e-18, "skipped_steps": 2.0})):
        progress.start_epoch(epoch, 0)
        progress.end_training(22)
        progress.end_epoch({**ROW, **changed, "epoch": epoch}, best=epoch == 1)
    return capsys.readouterr().out.splitlines()


def test_the_columns_stand_below_their_titles_and_fit_a_terminal(lines):
    # Mutation: a column without a width; the header printed at every epoch.
    header, first, last = lines
    titles = ("loss", "accuracy", "val_loss", "val_accuracy", "rate")
    values = ("2.046", "0.3026", "2.288", "0.3611", "0.004")
    end = 0
    for title, value in zip(titles, values, strict=True):
        end = header.index(f" {title}", end) + len(title) + 1
        assert first[:end].endswith(f" {value}"), (title, first)
    assert first.startswith("epoch 1/10 ")
    assert first.endswith("  best")
    assert last.startswith("epoch 10/10 ")
    assert max(map(len, (header, first))) <= 100


def test_what_is_left_of_a_rate_is_0_and_what_was_skipped_is_said(lines):
    # Mutation: printing 7.6e-18.
    assert "e-18" not in lines[2]
    assert lines[2].split()[6] == "0"
    assert lines[2].endswith("2 steps skipped so far")
