"""What is a split, what a class and what is left over: one answer for every command."""

import io
import json
import os

import numpy as np
import pytest
from PIL import Image

import lightnets.data
from lightnets import cli
from lightnets.config import keys as configuration
from lightnets.data.dataset import find
from lightnets.data.sources import layout
from lightnets.support.errors import UserError


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def png():
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)).save(
        file, "PNG"
    )
    return file.getvalue()


PNG = png()


def make(root, *folders, each=2):
    """Writes a few pictures into each of the folders."""
    for folder in folders:
        (root / folder).mkdir(parents=True, exist_ok=True)
        for number in range(each):
            (root / folder / f"{number}.png").write_bytes(PNG)
    return root


def found(dataset, **data):
    return find(configuration.from_dict({"data": {"dataset": str(dataset)} | data}).data)


def load(dataset, **data):
    values = {"data": {"dataset": str(dataset)} | data, "model": {"image_size": 32}}
    return lightnets.data.load(configuration.from_dict(values), checked=True)


@pytest.mark.parametrize(
    ("name", "role"),
    [
        *(
            ("Training", "train"),
            ("TRAIN_SET", "train"),
            ("trainset", "train"),
            (" train", "train"),
        ),
        *(("valid", "val"), ("Validation set", "val"), ("dev", "val"), ("dev-set", "val")),
        *(("testing", "test"), ("Test_Set", "test"), ("trains", None), ("contest", None)),
    ],
)
def test_names_of_splits_in_every_form(name, role):
    assert layout.role(name) == role


BOTH = ("cat", "dog")


@pytest.mark.parametrize(
    ("folders", "splits", "classes", "left_over"),
    [
        # A class may be called train.
        (("bus", "car", "train"), {"train": 6}, ["bus", "car", "train"], {}),
        (
            ("training_set/cat", "training_set/dog", "Test_Set/cat", "Test_Set/dog"),
            {"training_set": 4, "test_set": 4},
            ["cat", "dog"],
            {},
        ),
        (
            ("train/cat", "train/dog", "val/cat", "val/dog", "test"),
            {"train": 4, "val": 4},
            ["cat", "dog"],
            {"test": "a split without class folders"},
        ),
        (
            ("train/cat", "train/dog", "dev/cat", "dev/dog", "extra/cat", "notes"),
            {"dev": 4, "train": 4},
            ["cat", "dog"],
            {"extra": "a folder that is no split", "notes": "a folder that is no split"},
        ),
        (("test/cat", "test/dog"), {"test": 4}, ["cat", "dog"], {}),
        (("cat", "dog", "__MACOSX/cat"), {"train": 4}, ["cat", "dog"], None),
    ],
)
def test_folders_are_splits_or_classes(tmp_path, folders, splits, classes, left_over):
    dataset = found(make(tmp_path / "set", *folders))
    assert (dict(dataset.sizes), dataset.classes) == (splits, classes)
    if left_over is not None:
        names = {
            os.path.relpath(path, tmp_path / "set"): why for path, why in dataset.left_over.items()
        }
        assert names == left_over


def test_empty_folders_are_no_classes_and_said(tmp_path):
    root = make(tmp_path / "set", "cat", "dog")
    (root / "new folder").mkdir()
    (root / "texts").mkdir()
    (root / "texts" / "a.txt").write_text("no image")
    splits = load(root, skip_corrupt=True)
    assert splits.labels == ["cat", "dog"]
    assert "left out: a folder without pictures (2)" in splits.dataset.describe()


@pytest.mark.parametrize("where", ["alone", "beside"])
def test_what_cannot_be_decided_is_asked_for(tmp_path, where):
    """Caught: only `steam` and `electric` were trained, and the others vanished."""
    root = tmp_path / "set"
    if where == "alone":
        make(root, "train", "test")
        message = "no class folders in test, train. .*--layout classes"
    else:
        make(root, "bus", "car", "train/steam", "train/electric")
        message = "train may be a split, or a class as bus, car.*--layout splits reads train alone"
        assert found(root, layout="splits").classes == ["electric", "steam"]
    with pytest.raises(UserError, match=message):
        found(root)
    classes = found(root, layout="classes")
    assert set(classes.classes) == {path.name for path in root.iterdir()}
    assert sum(classes.sizes.values()) == (4 if where == "alone" else 8)


def test_a_command_asks_and_takes_the_flag(tmp_path, capfd):
    root = make(tmp_path / "set", "bus", "car", "train/steam", "train/electric")
    command = ["data", "check", str(root)]
    assert cli.main(command) == 1
    assert "--layout splits" in capfd.readouterr().err
    cli.main([*command, "--layout", "classes"])
    assert "8 images; 3 classes: bus, car, train" in capfd.readouterr().out


def test_one_class_is_too_few(tmp_path, capfd):
    """Caught: one level too high, and a loss of 0 after the first epoch."""
    root = make(tmp_path / "set", "dataset/cat", "dataset/dog")
    with pytest.raises(UserError, match=r"one class only .dataset.*name .*/set/dataset instead"):
        load(root)
    assert cli.main(["data", "check", str(root)]) == 1
    assert "There is one class only (dataset)" in capfd.readouterr().out


def test_a_class_without_a_readable_picture_is_an_error(tmp_path):
    """Caught: two outputs trained on dogs alone, accuracy 1.0."""
    root = make(tmp_path / "set", "dog", "cat", each=4)
    for path in (root / "cat").iterdir():
        path.rename(path.with_suffix(".JXL"))
    with pytest.raises(UserError, match=r"can be read of the class cat \(JPEG XL \(4\)\)"):
        load(root)
    for path in (root / "cat").iterdir():
        path.rename(path.with_suffix(".png"))
        path.with_suffix(".png").write_bytes(b"no picture")
    with pytest.raises(UserError, match="all pictures of the class cat are damaged"):
        load(root, skip_corrupt=True)


def test_unknown_splits_are_named(tmp_path):
    root = make(tmp_path / "set", "train/cat", "train/dog", "dev/cat", "dev/dog")
    assert load(root).eval_examples == 4
    with pytest.raises(UserError, match=r"no split 'nonsense'. It has: dev, train"):
        load(root, eval_split="nonsense")
    with pytest.raises(UserError, match=r"no split 'nonsense'. It has: train"):
        load(make(tmp_path / "flat", "cat", "dog"), eval_split="nonsense")
    make(root, "training/cat", "training/dog")
    (root / "train").rename(root / "trainset")
    with pytest.raises(UserError, match="several splits to train on: training, trainset"):
        load(root)


def write_list(tmp_path, rows, name="list.csv", header="path,label,split"):
    make(tmp_path, "p", each=30)
    (tmp_path / name).write_text("".join(f"{row}\n" for row in ([header] * bool(header) + rows)))
    return tmp_path / name


def rows_of(count, label="{label}", split="{split}"):
    text = f"p/{{number}}.png,{label},{split}"
    return [
        text.format(number=n, label=BOTH[n % 2], split="train" if n < 16 else "dev")
        for n in range(count)
    ]


def test_splits_of_a_list_are_found_as_those_of_a_folder(tmp_path):
    rows = rows_of(24, split=" {split} ")
    assert dict(found(write_list(tmp_path, rows)).sizes) == {"train": 16, "dev": 8}
    with pytest.raises(UserError, match="split dev has classes that the split train lacks: bird"):
        load(write_list(tmp_path, [*rows[:16], "p/1.png,bird,dev"]))
    with pytest.raises(UserError, match="a split for some images only; see line 18"):
        load(write_list(tmp_path, [*rows[:16], "p/1.png,cat,"]))


def test_classes_of_nearly_the_same_name_are_remarked(tmp_path, capfd):
    rows = [f"p/{n}.png,{(' cat', 'cat', 'Cat', 'dog')[n % 4]}" for n in range(24)]
    path = write_list(tmp_path, rows, header="path,label")
    assert found(path).classes == ["Cat", "cat", "dog"]
    assert "nearly the same: Cat and cat" in found(path).describe()
    cli.main(["data", "check", str(path)])
    assert "Classes of nearly the same name: Cat, cat" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("number", "row", "message"),
    [
        (10, '"p/10.png,cat,train', "Line 12 of .*list.csv holds a quote that is not closed"),
        (10, 'p/10.png,"cat,train', "Line 12 of .*list.csv holds a quote that is not closed"),
        (
            3,
            "p\\3.png,cat,train",
            r"Line 5 of .* names p.3.png, which is not there. Separate",
        ),
        (2, "p/2.png, ,train", "Line 4 of .*list.csv has an empty path or label"),
        (5, '"p/5.png","cat\np/6.png,dog",train', "Line 7 .*goes on in the next line"),
    ],
)
def test_what_is_wrong_in_a_csv_list_is_named_with_its_line(tmp_path, number, row, message):
    rows = rows_of(24)
    rows[number] = row
    with pytest.raises(UserError, match=message):
        found(write_list(tmp_path, rows))


def test_a_device_or_a_pipe_in_a_list_is_named(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    for name, what in (("/dev/zero", "a device"), ("pipe.png", "a named pipe")):
        path = write_list(tmp_path, [f"{name},cat,train"])
        with pytest.raises(UserError, match=f"lists .*{name}, which is {what}"):
            found(path)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ('""', "Line 2 of .* has an empty path or label"),
        ('["cat", "dog"]', r'Line 2 of .* is no text .*Received: \["cat", "dog"\]'),
        ("true", "Line 2 of .* is no text .*Received: true"),
        ("1.5", "Line 2 of .* is no text .*Received: 1.5"),
        ("null", 'Line 2 of .* needs the keys "path" and "label"'),
    ],
)
def test_labels_of_a_jsonl_list_are_texts(tmp_path, value, message):
    rows = [f'{{"path": "p/1.png", "label": {label}}}' for label in ('"cat"', value)]
    with pytest.raises(UserError, match=message):
        found(write_list(tmp_path, rows, "list.jsonl", header=""))


def test_a_byte_order_mark_is_taken_in_both_kinds_of_lists(tmp_path):
    rows = [json.dumps({"path": f"p/{n}.png", "label": n % 2}) for n in range(4)]
    for path in (
        write_list(tmp_path, rows, "list.jsonl", header=""),
        write_list(tmp_path, [f"p/{n}.png,{n % 2}" for n in range(4)], header="path,label"),
    ):
        path.write_text("\ufeff" + path.read_text())
        assert found(path).classes == ["0", "1"]
    path.write_bytes("path,label\nä.png,ö\n".encode("utf-16"))
    with pytest.raises(UserError, match=r"list.csv is not UTF-8 .*Save it as UTF-8"):
        found(path)


def test_a_folder_called_as_a_data_set_says_so(tmp_path, capfd):
    make(tmp_path, "digits/cat", "digits/dog")
    assert found("digits").classes == ["cat", "dog"]
    assert "digits is read as the folder" in capfd.readouterr().out
    found(make(tmp_path / "deeper", "digits/cat", "digits/dog") / "digits")
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize("name", ["my pics/cats", "pics (1)", "holiday,2024", "./gone", "gone.csv"])
def test_a_mistyped_path_is_no_builder_name(name):
    with pytest.raises(UserError) as error:
        found(name)
    assert str(error.value) == f"There is no file or folder {name}."
