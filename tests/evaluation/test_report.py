import csv

import numpy as np
import pytest
from matplotlib import font_manager
from matplotlib import image as mpl_image
from matplotlib.text import Text

from lightnets import tasks
from lightnets.evaluation import report

LABELS = ["cat", "dog", "eel"]
DEJAVU, STIX = "DejaVu Sans", "STIXGeneral"
TRUE = np.array([0, 0, 1, 1, 2])
PROBABILITIES = np.eye(3, dtype="float32")[[0, 1, 1, 1, 0]]


def has(family, character):
    font = font_manager.get_font(font_manager.findfont(family))
    return ord(character) in font.get_charmap()


def test_per_class_scores_follow_their_definitions(tmp_path):
    rows = report.per_class(TRUE, PROBABILITIES, LABELS)
    assert [row["images"] for row in rows] == [2, 2, 1]
    # cat: one of two predictions right, one of two images found; dog: 2 of 3, 2 of 2; eel: none.
    assert [row["precision"] for row in rows] == pytest.approx([1 / 2, 2 / 3, 0])
    assert [row["recall"] for row in rows] == pytest.approx([1 / 2, 1, 0])
    tasks.of(None).write_rows(rows, tmp_path)
    with (tmp_path / "per_class.csv").open() as file:
        saved = list(csv.DictReader(file))
    assert [row["class"] for row in saved] == LABELS
    assert float(saved[1]["f1"]) == pytest.approx(0.8)


def test_pictures_are_drawn_and_leave_no_temporary_file(tmp_path):
    history = [{"epoch": 1, "loss": 2.0, "val_loss": 2.1}, {"epoch": 2, "loss": 1.0, "val_loss": 1}]
    report.write_curves(history, tmp_path / "curves.png")
    report.write_confusion_matrix(TRUE, PROBABILITIES, LABELS, tmp_path / "confusion_matrix.png")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["confusion_matrix.png", "curves.png"]
    for path in tmp_path.iterdir():
        pixels = mpl_image.imread(path)
        assert pixels.shape[0] > 200
        assert pixels.std() > 0.01


@pytest.fixture
def drawn(monkeypatch):
    """The texts of every picture, and the names of the fonts that were looked for."""
    texts = []
    save = report.save_figure

    def keep(figure, path):
        save(figure, path)  # raises for a glyph that is missing: warnings are errors
        texts.append({text.get_text() for text in figure.findobj(Text)})

    monkeypatch.setattr(report, "save_figure", keep)
    return texts


def matrix(labels, path):
    true = np.arange(len(labels))
    report.write_confusion_matrix(true, np.eye(len(labels), dtype="float32"), labels, path)


def test_names_are_drawn_as_they_are_not_as_formulas(tmp_path, drawn, capsys):
    labels = ["$5_$ note", "a\nb", "c\u2028d", "\x1b[31m", "é", "n" * 200]
    matrix(labels, tmp_path / "matrix.png")
    assert capsys.readouterr().out == ""
    shown = {"$5_$ note", r"a\nb", r"c\u2028d", r"\x1b[31m", "é", "n" * 39 + "…"}
    assert shown <= drawn[0]


def test_a_font_that_has_the_characters_is_found(tmp_path, drawn, capsys):
    # Of the fonts that come with matplotlib only one other than the usual has this letter.
    letter = next(c for c in map(chr, range(0x1D400)) if has(STIX, c) and not has(DEJAVU, c))
    matrix(["a", letter], tmp_path / "matrix.png")
    assert capsys.readouterr().out == ""
    assert {"a", letter} <= drawn[0]


def test_without_a_font_the_classes_have_numbers(tmp_path, drawn, capsys):
    matrix(["cat", "\U000f0000"], tmp_path / "matrix.png")  # for private use: no font has it
    assert capsys.readouterr().out == ""
    assert {"class 0", "class 1"} <= drawn[0]
    assert "cat" not in drawn[0]


def test_a_picture_that_cannot_be_drawn_is_one_line(tmp_path, monkeypatch, capsys):
    def fail(*_):
        raise ValueError("\n no fonts at all\nmore")

    monkeypatch.setattr(report, "new_figure", fail)
    matrix(LABELS, tmp_path / "matrix.png")
    report.write_curves([{"epoch": 1, "loss": 2.0}], tmp_path / "curves.png")
    assert capsys.readouterr().out == "".join(
        f"Warning: {tmp_path}/{name}.png was not drawn (no fonts at all).\n"
        for name in ("matrix", "curves")
    )
    assert list(tmp_path.iterdir()) == []


def test_a_thousand_classes_still_give_a_picture(tmp_path):
    true = np.arange(1000)
    report.write_confusion_matrix(
        true, np.eye(1000, dtype="float32"), [str(i) for i in true], tmp_path / "matrix.png"
    )
    assert mpl_image.imread(tmp_path / "matrix.png").shape[0] < 2000
