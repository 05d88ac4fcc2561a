"""Runs side by side: the test, the intervals, what was set otherwise; table, CSV and page."""

import csv
import io
import json
import pathlib
import re
import sys

import numpy as np
import pytest

from keras_lightnets.intervals import interval
from lightnets.cli import main
from lightnets.config import keys as configs
from lightnets.evaluation import compare, report
from lightnets.support import console
from tests import pages

HOSTILE = "<b>run</b>"


def write_run(path, right, *, keep=True, images=None, **settings):
    """Writes what a finished run leaves, whose answers were `right` or not."""
    (path / "weights").mkdir(parents=True)
    (path / "weights" / "best.keras").write_bytes(b"x" * 2_500_000)
    config = {"data": {"dataset": "pictures"}, **settings}
    configs.save(configs.from_dict(config), path / "config.yaml")
    results = {"accuracy": float(np.mean(right)), "images": len(right), "parameters": 1_234_000}
    (path / "results.json").write_text(json.dumps(results))
    history = [{"epoch": epoch, "val_accuracy": epoch / 10} for epoch in (1, 2, 3)]
    (path / "history.json").write_text(json.dumps(history))
    if keep:
        names = images or [f"pictures/{number}.png" for number in range(len(right))]
        rows = [
            [name, "cat", "cat" if one else "dog"] for name, one in zip(names, right, strict=True)
        ]
        lines = [["image", "true", "predicted"], *rows]
        with (path / report.PREDICTIONS).open("w", newline="") as file:
            csv.writer(file).writerows(lines)
    return path


@pytest.fixture
def runs(tmp_path):
    right = np.ones(100, bool)
    worse, other = right.copy(), right.copy()
    right[:2], worse[2:14] = False, False  # 2 and 12 mistakes, none of them shared
    other[:5] = False
    return [
        write_run(tmp_path / "worse", worse, train={"epochs": 7}),
        write_run(tmp_path / HOSTILE.replace("/", "\u2044"), right),
        write_run(tmp_path / "elsewhere", other, images=[f"other/{n}.png" for n in range(100)]),
        write_run(tmp_path / "old", right, keep=False),
    ]


def test_the_numbers_are_those_of_the_definitions(runs, tmp_path, capsys):
    table = tmp_path / "table.csv"
    assert main(["compare", *map(str, runs), "--csv", str(table)]) == 0
    rows = list(csv.DictReader(table.read_text().splitlines()))
    assert [row["run"] for row in rows] == list(map(str, runs))
    assert [float(row["accuracy"]) for row in rows] == [0.88, 0.98, 0.95, 0.98]
    assert float(rows[0]["low"]) == pytest.approx(interval(88, 100)[0])
    # Of 14 images that one alone got right, 2 or fewer, or 12 or more: 2 (1 + 14 + 91) / 2^14.
    assert float(rows[0]["p"]) == pytest.approx(212 / 2**14)
    assert [row["p"] for row in rows[1:]] == ["1.0", "", ""], "others judged other images, or none"
    assert [row["train.epochs"] for row in rows] == ["7", "90", "90", "90"]
    assert "model.name" not in rows[0], "all alike"
    assert (rows[0]["parameters"], rows[0]["macs"], rows[0]["bytes"]) == ("1234000", "", "2500000")
    out = capsys.readouterr().out
    assert f"\nWrote {table}\n" in out
    assert "0.802-0.930" in out
    assert "0.013" in out


@pytest.mark.slow
def test_milliseconds_are_measured_when_asked(runs, tmp_path, capsys):
    # Mutation: measured once, and shown for all runs.
    from tests import toy

    for run in runs[:2]:
        toy.pooled_network(2).save(run / "weights" / "best.keras")
    table, page = tmp_path / "table.csv", tmp_path / "page.html"
    arguments = ["--measure", "--csv", str(table), "--page", str(page)]
    assert main(["compare", *map(str, runs[:2]), *arguments]) == 0
    times = [float(row["milliseconds"]) for row in csv.DictReader(table.read_text().splitlines())]
    assert all(0 < time < 1000 for time in times)
    assert times[0] != times[1]
    out = capsys.readouterr().out
    assert re.search(r"size \(MB\) +ms", out)
    assert all(f"{time:.1f}" in out for time in times)
    assert "<th>ms</th>" in page.read_text()


def test_no_table_is_cut_on_a_terminal(runs, monkeypatch):
    """Caught: an ellipsis in place of the end of a path."""

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setenv("TERM", "dumb")  # 80 columns, no colours
    monkeypatch.setattr(sys, "stdout", terminal := Terminal())
    assert main(["compare", *map(str, runs)]) == 0
    console.table(("name",), [["long" * 50]])
    shown = terminal.getvalue()
    lines = [line for line in shown.splitlines() if not line.startswith("Next: ")]
    assert max(map(len, lines)) <= 80
    assert "…" not in shown
    assert "".join(shown[shown.rindex("name") + 4 :].split()) == "long" * 50


def test_the_page_shows_them_and_nothing_becomes_markup(browser, runs, tmp_path):
    page = tmp_path / "page.html"
    assert main(["compare", *map(str, runs[:2]), "--page", str(page)]) == 0
    text = page.read_text()
    assert text.count("data:image/png") == 1
    assert "train.epochs" in text
    assert "<b>run" not in text
    assert len(text) < 200_000
    assert all(found["images"] == 1 for found in pages.check(browser, page))


@pytest.mark.parametrize("right", [0, 10, 45])
def test_the_interval_is_wilsons(right):
    """E. B. Wilson, 1927: the shares p with |right/n - p| = 1.96 sqrt(p (1 - p) / n)."""
    images = 50
    low, high = interval(right, images)
    for share in {low, high} - {0.0, 1.0}:
        distance = abs(right / images - share)
        assert distance == pytest.approx(1.959964 * np.sqrt(share * (1 - share) / images), abs=1e-6)
    assert low <= right / images <= high


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda run: (run / "results.json").unlink(), "lacks results.json. Finish it first: "),
        (lambda run: (run / "results.json").write_text("{"), "is damaged: "),
        (lambda run: (run / "results.json").write_text("{}"), "is damaged: 'accuracy'"),
        (lambda run: (run / report.PREDICTIONS).write_text("a,b\n1,2\n"), "is damaged: 'image'"),
        (lambda run: (run / "config.yaml").write_text("model: 3"), "is damaged: model in"),
        (lambda run: (run / "config.yaml").unlink(), "is not a run directory"),
    ],
)
def test_a_run_that_cannot_be_compared_is_one_line(runs, damage, message, capsys):
    damage(pathlib.Path(runs[0]))
    assert main(["compare", *map(str, runs)]) == 1
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1


def test_folds_are_compared_one_by_one(runs, tmp_path, capsys):
    folds = write_run(tmp_path / "folds", [True], data={"dataset": "pictures", "folds": 3})
    (folds / "history.json").unlink()
    assert main(["compare", str(runs[0]), str(folds)]) == 1
    expected = f"{folds} holds a run for each fold. Name one of them: {folds}/fold-1\n"
    assert capsys.readouterr().err.endswith(expected)


def test_one_run_alone_is_refused(runs, capsys):
    assert main(["compare", str(runs[0])]) == 2
    assert "Name two runs or more." in capsys.readouterr().err


def test_equal_answers_are_no_difference(runs):
    run = compare.read(runs[0])
    assert compare.mcnemar(run, run) == 1.0
