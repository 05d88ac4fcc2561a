"""Lists of several labels or numbers an image: what is read, and what is wrong with its line."""

import json

import numpy as np
import pytest

from lightnets.config import keys as configs
from lightnets.data import held_out
from lightnets.data.dataset import find, relabelled
from lightnets.data.load import load
from lightnets.data.sources import lists
from lightnets.support.errors import UserError

NAN = np.nan


def read(folder, lines, task, targets=None, suffix="csv"):
    """Returns the training split of a list."""
    path = folder / f"list.{suffix}"
    text = lines if isinstance(lines, str) else "\n".join(map(json.dumps, lines))
    path.write_text(text.replace(" ", "") if suffix == "csv" else text)
    return lists.read_list(path, task, targets).parts["train"]


@pytest.mark.parametrize(
    ("suffix", "lines"),
    [
        ("csv", "path,labels\na.png,cat;dog\nb.png,\nc.png,dog\n"),
        ("csv", "path,cat,dog\na.png,1,1\nb.png,0,0\nc.png,0,1\n"),
        # As pandas writes what was read as boolean, or lacks a value elsewhere.
        ("csv", "path,cat,dog\na.png,True,1.0\nb.png,False,0.0\nc.png,False,1.0\n"),
        (
            "csv",
            "\ufeffpath;labels\r\na.png;'cat;dog'\r\nb.png;\r\nc.png;dog\r\n".replace("'", '"'),
        ),
        ("csv", "path\tcat\tdog\na.png\t1\t1\nb.png\t0\t0\nc.png\t0\t1\n"),
        (
            "jsonl",
            [
                {"path": "a.png", "labels": ["dog", "cat"]},
                {"path": "b.png", "labels": []},
                {"path": "c.png", "labels": ["dog"]},
            ],
        ),
        (
            "jsonl",
            [
                {"path": "a.png", "cat": 1, "dog": True},
                {"path": "b.png", "cat": False, "dog": 0},
                {"path": "c.png", "cat": 0, "dog": 1},
            ],
        ),
    ],
)
def test_several_labels_are_read_alike_from_each_form(tmp_path, suffix, lines):
    part = read(tmp_path, lines, "multi-label", suffix=suffix)
    assert part.classes == ["cat", "dog"]
    assert part.source.read_labels().tolist() == [[1, 1], [0, 0], [0, 1]]
    assert lists.guess_task(tmp_path / f"list.{suffix}") == "multi-label"


def test_an_empty_cell_of_a_table_is_not_known(tmp_path):
    # Mutation: 0 in its place.
    part = read(tmp_path, "path,cat,dog\na.png,1,\nb.png,,0\n", "multi-label")
    np.testing.assert_array_equal(part.source.read_labels(), [[1, NAN], [NAN, 0]])


def test_numbers_are_all_other_columns_or_those_that_are_named(tmp_path):
    text = "path,age,height,split\na.png,3,1.5,train\nb.png,-2e1,0,val\n"
    part = read(tmp_path, text, "regression")
    assert part.classes == ["age", "height"]
    assert part.source.read_labels().tolist() == [[3, 1.5]]
    assert lists.guess_task(tmp_path / "list.csv") == "regression"
    assert read(tmp_path, text, "regression", "height").classes == ["height"]


@pytest.mark.parametrize(
    ("task", "text", "message"),
    [
        (
            "regression",
            "path,age\na.png,3\nb.png,old\n",
            r"Line 3 of .* says 'old' of 'age', which",
        ),
        ("regression", "path,age\na.png,nan\n", r"Line 2 of .* says 'nan' of 'age', which is no"),
        ("regression", "path,age\na.png,1e39\n", r"says '1e39' of 'age', which is no number"),
        ("regression", "path;m\na.png;1,7\n", r"says '1,7' .* Write decimals with a point"),
        ("regression", "path,age\na.png,\n", r"Line 2 of .* says '' of 'age', which is no number"),
        ("regression", "path\na.png\n", r"list.csv has no column for --task regression beside"),
        ("multi-label", "path,cat\na.png,yes\n", r"Line 2 of .* says 'yes' of 'cat': 1, 0, or not"),
        ("multi-label", "path,cat\na.png,0\n", r"list.csv gives no image a label"),
        ("multi-label", "path,cat\na.png,\n", r"list.csv gives no image a label"),
        ("multi-label", "path,labels\na.png,\n", r"list.csv gives no image a label"),
        (
            "multi-label",
            "path,labels,cat\na.png,cat,1\n",
            r"in the column 'labels' and columns bes",
        ),
        ("classification", "path,age\na.png,3\n", r"columns `path` and `label`.* train --task"),
        ("multi-label", "path,cat\na.png\n", r"Line 2 of .* lacks a column"),
        (
            "multi-label",
            "path;labels\na.png;cat;dog\n",
            r"Line 2 of .* has more columns than the first line: put quotes .* a ';'",
        ),
    ],
)
def test_what_is_wrong_is_named(tmp_path, task, text, message):
    with pytest.raises(UserError, match=message):
        read(tmp_path, text, task)


def test_wrong_columns_and_wrong_lists_are_named(tmp_path):
    with pytest.raises(UserError, match=r"has no column 'weight'. It has: age"):
        read(tmp_path, "path,age\na.png,3\n", "regression", "age,weight")
    rows = [{"path": "a.png", "labels": ["cat"]}, {"path": "b.png", "labels": 7}]
    with pytest.raises(UserError, match=r"Line 2 of .* has labels that are no list. Received: '7'"):
        read(tmp_path, rows, "multi-label", suffix="jsonl")


def test_spaces_before_quotes_and_empty_cells_at_the_end_do_not_count(tmp_path):
    path = tmp_path / "list.csv"
    path.write_text('path, label\na.png, "cat, dog"\nb.png,cat,,\n')
    assert lists.read_list(path).parts["train"].classes == ["cat", "cat, dog"]
    path.write_text("path\na.png\n")
    assert lists.guess_task(path) == "classification"


def test_one_class_that_looks_like_several_is_said(tmp_path):
    path = tmp_path / "list.csv"
    path.write_text("path,label\na.png,cat;dog\nb.png,dog\n")
    data = configs.DataConfig(dataset=str(path))
    assert "train --task multi-label makes several labels" in find(data).describe()
    assert "2 labels" in find(data, "multi-label").describe()
    assert "makes several" not in find(data, "multi-label").describe()


def test_a_folder_of_classes_has_no_numbers(tmp_path):
    (tmp_path / "cat").mkdir()
    with pytest.raises(UserError, match=r"--task regression takes a CSV or JSONL list"):
        find(configs.DataConfig(dataset=str(tmp_path)), "regression")


def test_labels_of_other_data_are_mapped_by_name(tmp_path):
    # Mutation: columns taken by number.
    part = read(tmp_path, "path,dog,cat\na.png,1,0\n", "multi-label")
    moved = relabelled(part.source, part.classes, ["cat", "cow", "dog"], "It", "the network")
    np.testing.assert_array_equal(moved.read_labels(), [[0, NAN, 1]])
    (tmp_path / "a.png").write_bytes(b"x")
    reference = next(iter(moved.references(1)))[0]
    np.testing.assert_array_equal(moved.open([part[0] for part in reference])[1], [0, NAN, 1])
    with pytest.raises(UserError, match=r"It has classes that the network lacks: dog"):
        relabelled(part.source, part.classes, ["cat"], "It", "the network")


def test_where_nothing_is_known_nothing_is_measured(tmp_path):
    """A template of which only the first rows are filled in, or a test split without answers."""
    known = [f"{k}.png,{k % 2},{'train' if k else 'val'}\n" for k in range(2)]
    blank = [f"{k}.png,,test\n" for k in range(2, 40)]
    (tmp_path / "list.csv").write_text("".join(["path,cat,split\n", *known, *blank]))
    settings = {"data": {"dataset": str(tmp_path / "list.csv")}, "train": {"task": "multi-label"}}
    splits = load(configs.from_dict(settings))
    assert held_out.of_run(splits).left_out == {"test": "no labels"}
    settings["data"]["eval_split"] = "test"
    with pytest.raises(UserError, match=r"2.png has no label, so this split can be neither"):
        load(configs.from_dict(settings))
    text = "".join(["path,cat\n", *(row.rpartition(",")[0] + "\n" for row in known + blank)])
    (tmp_path / "list.csv").write_text(text)
    del settings["data"]["eval_split"]
    splits = load(configs.from_dict(settings))
    # Mutation: of which nothing is known counted as the others, whose held-out part then has none.
    assert not np.isnan(splits.eval_source.read_labels()).all()


def test_numbers_that_other_data_lacks_are_named(tmp_path):
    path = tmp_path / "list.csv"
    path.write_text("path,age\na.png,3\n")
    dataset = find(configs.DataConfig(dataset=str(path)), "regression")
    with pytest.raises(UserError, match=r"lacks the column height, which the network has"):
        dataset.labelled("train", ["age", "height"], "the network")
