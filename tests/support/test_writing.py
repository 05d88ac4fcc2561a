"""Outputs: places are tested before the work, files come whole, and CSV is never run."""

import csv
import io
import os

import pytest

from lightnets import cli
from lightnets.doctor import examine as doctor
from lightnets.doctor import show
from lightnets.run import artifacts
from lightnets.run import directory as runs
from lightnets.support.errors import UserError
from lightnets.support.writing import check_file, check_folder, csv_text, write_text


def read(text):
    return list(csv.reader(io.StringIO(text, newline="")))


@pytest.mark.parametrize("first", ["=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", " ="])
def test_a_name_is_no_formula(first):
    name = f'{first}1+1|cmd,"x"'
    assert read(csv_text(["class"], [[name]])) == [["class"], [f"'{name}"]]


def test_other_fields_stay_as_they_are():
    row = ["cat", "a=b", "猫", 'two\nlines, "quoted"', "", "-1", "-0.5", "+1e-05"]
    assert read(csv_text(row, [row])) == [row, row]
    assert csv_text(["loss"], [[-0.25], [1e-17]]) == "loss\n-0.25\n1e-17\n"
    assert csv_text(["file"], [[os.fsdecode(b"caf\xe9.png")]]) == "file\ncaf\\xe9.png\n"


def test_the_longest_name_that_a_file_may_have(tmp_path):
    path = tmp_path / ("n" * 255)
    check_file(path, "--out")
    write_text(path, "text")
    assert path.read_text() == "text"


def test_places_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    check_folder(tmp_path / "new" / "folder", "--out")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    for check, name, message in (
        (check_file, "none/x", f"--out: there is no folder {tmp_path}/none."),
        (check_file, "", f"--out: {tmp_path} is a folder."),
        (check_file, "file/x", f"--out: {tmp_path}/file is no folder."),
        (check_folder, "file/x/y", f"--out: {tmp_path}/file is no folder."),
        (check_folder, "../../../../../../proc/x", "--out: cannot write to "),
    ):
        with pytest.raises(UserError) as error:
            check(tmp_path / name, "--out")
        assert str(error.value).startswith(message)


@pytest.mark.parametrize(
    "command",
    [
        ["predict", ".", ".", "--out", "file/x.csv"],
        ["predict", ".", ".", "--out", "none/x.csv"],
        ["evaluate", ".", "--out", "file/folder"],
        ["evaluate", ".", "--predictions", "none/x.csv"],
        ["data", "check", ".", "--fix-list", "none/x"],
        ["data", "check", ".", "--page", "file/x.html"],
        ["data", "show", ".", "--out", "none/x.png"],
        ["export", "run", "--out", "file/x"],
        ["train", "--dataset", "digits", "--out", "file/x"],
    ],
    ids=" ".join,
)
def test_no_command_begins_its_work_without_a_place_for_the_result(
    command, tmp_path, monkeypatch, capsys
):
    def work(*_, **__):
        raise AssertionError("the work has begun")

    for module, name in (
        (artifacts, "open"),
        (doctor, "examine"),
        (show, "views"),
        (runs.Run, "open"),
        (runs.Run, "create"),
    ):
        monkeypatch.setattr(module, name, work)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text("{}")
    assert cli.main(command) in (1, 2)
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert "file" in message or "none" in message
