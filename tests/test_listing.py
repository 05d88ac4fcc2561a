"""What is a picture below a folder, and what is left out with which reason."""

import json
import os
import socket

import numpy as np
import pytest
from PIL import Image

import training.data
from training import cli
from training import config as configuration
from training.data import listing
from training.errors import UserError


def save(path, number=0, kind="PNG"):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(number).integers(0, 256, (20, 20, 3), np.uint8)
    with open(os.fsencode(path), "wb") as file:  # noqa: PTH123 (names that are not UTF-8)
        Image.fromarray(pixels).save(file, kind)
    return path


def test_only_regular_files_are_listed_and_the_rest_is_named(tmp_path):
    """Caught: 21 GB of /dev/zero, a pipe that nobody writes to, a traceback for a link."""
    cat = tmp_path / "cat"
    kept = [
        save(cat / "a.png"),
        save(cat / "deep" / "b.jpg", kind="JPEG"),
        save(cat / "gif", 1, "GIF"),
        save(cat / "photo", 1, "TIFF"),
    ]
    (cat / "linked.png").symlink_to(kept[0])
    expected = {}

    def skip(path, reason):
        expected[str(path)] = reason
        return path

    skip(cat / "zero.png", "a device").symlink_to("/dev/zero")
    os.mkfifo(skip(cat / "pipe.jpg", "a named pipe"))
    skip(cat / "self.png", "a link to itself").symlink_to(cat / "self.png")
    skip(cat / "gone.png", "a broken link").symlink_to(tmp_path / "nothing")
    skip(cat / "up", "a link to a folder that it lies in").symlink_to(tmp_path)
    skip(cat / "twice", "a link to a folder that is listed already").symlink_to(cat / "deep")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(skip(cat / "socket.png", "a socket")))
    skip(cat / "notes.txt", listing.NO_IMAGE).write_text("no image")
    skip(cat / "drawing.PSD", "Photoshop").write_bytes(b"")
    skip(cat / "drawing.psd", "Photoshop").write_bytes(b"")
    skip(cat / "next.jxl", "JPEG XL").write_bytes(b"")
    found = listing.find_images(cat)
    assert found.images == [
        str(path) for path in (kept[0], kept[2], cat / "linked.png", *kept[3:], kept[1])
    ]
    assert found.skipped == expected
    assert listing.counted(found.skipped).startswith("Photoshop (2), a ")


JUNK = ("__MACOSX", "@eaDir", ".ipynb_checkpoints", "$RECYCLE.BIN", "System Volume Information")


def test_what_other_programs_keep_there_is_no_class_and_no_picture(tmp_path, capsys):
    """Caught: `__MACOSX` as a class, thumbnails as pictures; `predict` by another rule."""
    root = tmp_path / "pictures"
    for name in ("cat", "dog"):
        for number in range(4):
            save(root / name / f"{number}.png", number)
        save(root / name / "@eaDir" / "0.png" / "THUMB.jpg", kind="JPEG")
        (root / name / "._0.png").write_bytes(b"\0\5\x16\7")
        (root / name / "Thumbs.db").write_bytes(b"")
    for name in JUNK:
        save(root / name / "cat" / "._1.png")
    config = configuration.from_dict({"data": {"dataset": str(root)}})
    splits = training.data.load(config, checked=True)
    assert splits.labels == ["cat", "dog"]
    assert splits.train_examples + splits.eval_examples == 8

    from training.commands import predict

    found = [str(path.relative_to(root)) for path in predict.find([str(root)])]
    assert found == [f"{name}/{number}.png" for name in ("cat", "dog") for number in range(4)]
    assert f"{root}: left out: {listing.FOREIGN} (11)\n" in capsys.readouterr().err


def test_names_that_are_not_utf8_are_read(tmp_path, capfd):
    """Caught: a traceback in training, and in the check of the data."""
    for name in ("cat", "dog"):
        for number in range(4):
            save(
                tmp_path / name / os.fsdecode(b"\xe9%d.png" % number), 10 * (name == "cat") + number
            )
    config = configuration.from_dict({"data": {"dataset": str(tmp_path)}})
    splits = training.data.load(config, checked=True)
    splits.save(tmp_path)
    again = training.data.load(config, saved=tmp_path)
    assert again.eval_source.name(0) == splits.eval_source.name(0)
    next(iter(again.train(global_batch=2)))
    assert cli.main(["data", "check", str(tmp_path), "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["splits"]["train"]["images"] == 8


def test_a_folder_that_cannot_be_read_is_an_error(tmp_path, monkeypatch):
    def scandir(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(UserError, match=f"Cannot read {tmp_path}: Permission denied"):
        listing.find_images(tmp_path)
