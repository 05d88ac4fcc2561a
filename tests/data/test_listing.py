"""What is a picture below a folder, and what is left out with which reason."""

import json
import os
import shutil
import socket
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import lightnets.data
from lightnets import cli
from lightnets.config import keys as configuration
from lightnets.data.sources import listing
from lightnets.support.errors import UserError


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
    splits = lightnets.data.load(config, checked=True)
    assert splits.labels == ["cat", "dog"]
    assert splits.train_examples + splits.eval_examples == 8

    from lightnets.commands import predict

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
    splits = lightnets.data.load(config, checked=True)
    splits.save(tmp_path)
    again = lightnets.data.load(config, saved=tmp_path)
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


LIMITED = """
import pathlib, resource, sys
from lightnets import cli
from lightnets.config import keys as config
from lightnets.commands import predict
from lightnets.data import load
from keras_lightnets.preprocessing import EvalTransform

(root,) = sys.argv[1:]
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 2**31, used + 2**31))
splits = load(config.from_dict({"data": {"dataset": root}}), checked=True)
print(splits.train_examples + splits.eval_examples)
assert cli.main(["data", "check", root]) == 0

class Model:
    transform = EvalTransform(image_size=(8, 8))
    predict = staticmethod(lambda images: images.mean(axis=(1, 2)))

for path, why in predict.predictions(Model, [pathlib.Path(root, "dog", "1.jpg")], 1):
    print(path.name, why)
"""


@pytest.mark.slow
def test_no_command_reads_a_file_that_is_too_large_for_a_picture(tmp_path):
    """Caught: 20 GB in memory. Beyond the 2 GiB that the child may add, it would end."""
    root = tmp_path / "pictures"
    for number in range(8):
        save(root / ("cat", "dog")[number % 2] / f"{number}.png", number)
    large = root / "dog" / "1.jpg"
    large.touch()
    os.truncate(large, 20 * 10**9)
    reason = "a file of 19074 MiB, more than 256 MiB"
    command = [sys.executable, "-c", LIMITED, str(root)]
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")}
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=300, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "8"
    assert any(str(large) in line and reason in line for line in lines)
    assert lines[-1] == f"1.jpg {reason}"


def test_a_class_of_nothing_but_files_that_are_too_large_is_named(tmp_path, capsys):
    for number in range(4):
        save(tmp_path / "cat" / f"{number}.png", number)
    large = tmp_path / "dog" / "1.jpg"
    large.parent.mkdir()
    large.touch()
    os.truncate(large, listing.MAX_BYTES + 1)
    config = configuration.from_dict({"data": {"dataset": str(tmp_path)}})
    with pytest.raises(UserError, match=r"dog \(a file of 257 MiB, more than 256 MiB\)"):
        lightnets.data.load(config)
    (tmp_path / "list.csv").write_text("path,label\ndog/1.jpg,dog\n")
    config = configuration.from_dict({"data": {"dataset": str(tmp_path / "list.csv")}})
    with pytest.raises(UserError, match=r"lists .*1\.jpg, which is a file of 257 MiB"):
        lightnets.data.load(config)
    shutil.rmtree(tmp_path / "cat")
    assert cli.main(["data", "check", str(tmp_path)]) == 1
    assert "holds no picture that can be read. Left out: a file of" in capsys.readouterr().err
