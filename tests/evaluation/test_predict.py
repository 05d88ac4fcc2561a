"""`lightnets predict` and `lightnets data check` on real files."""

import io
import json
import pathlib
import shutil
import sys
import time
import types

import numpy as np
import pytest
from PIL import Image

from keras_lightnets.export.answers import Answer
from keras_lightnets.preprocessing import EvalTransform
from keras_lightnets.serving.client import Classes
from lightnets import cli
from lightnets.commands import predict
from lightnets.run import artifacts


@pytest.fixture
def pictures(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    root = tmp_path / "pictures"
    for number in range(6):
        path = root / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((20, 30, 3), number * 40, np.uint8)).save(path)
    return root


@pytest.fixture
def model(tmp_path, monkeypatch):
    """A model whose answer is the brightness of the image."""

    def predict(images):
        bright = np.asarray(images, np.float32).mean((1, 2, 3)) / 255
        return Answer(np.stack([1 - bright, bright], 1))

    artifact = types.SimpleNamespace(
        labels=["dark", "bright"],
        transform=EvalTransform((16, 16), 16),
        answer=predict,
        task=None,
    )
    monkeypatch.setattr(artifacts, "open", lambda *target, **options: artifact)
    return str(tmp_path)


def test_files_are_classified_and_what_is_no_image_is_named(model, pictures, capsys):
    (pictures / "b" / "broken.jpg").write_bytes(b"\xff\xd8\xffno")
    assert cli.main(["predict", model, str(pictures), "--format", "jsonl", "--top", "1"]) == 1
    output = capsys.readouterr()
    rows = [json.loads(line) for line in output.out.splitlines()]
    assert [row["file"][-5:] for row in rows] == [f"{n}.png" for n in (0, 2, 4, 1, 3, 5)]
    assert rows[0]["predictions"] == [{"label": "dark", "probability": 1.0}]
    assert rows[2]["predictions"][0]["label"] == "bright"
    assert "broken.jpg: it is damaged or cut off" in output.err


def test_a_name_of_nothing_is_one_line_and_the_others_go_on(model, pictures, capsys, monkeypatch):
    names = [str(pictures / "*.gif"), str(pictures / "a" / "0.png"), str(pictures / "gone.png")]
    assert cli.main(["predict", model, *names]) == 1
    listed = capsys.readouterr()
    assert listed.out.splitlines()[1].split() == [names[1], "dark", "1.0000"]
    assert len(listed.out.splitlines()) == 2
    assert f"{names[0]}: there is no such file" in listed.err
    assert f"{names[2]}: there is no such file" in listed.err
    assert listed.err.endswith("2 of 3 files failed\n")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(f"\r\n{names[1]}\r\n".encode())))
    assert cli.main(["predict", model, "-"]) == 0
    assert capsys.readouterr().out == listed.out
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"caf\xe9.png\n"), "utf-8"))
    assert cli.main(["predict", model, "-"]) == 1
    assert "there is no such file" in capsys.readouterr().err


def test_more_classes_an_image_are_ranked(model, pictures, capsys):
    assert cli.main(["predict", model, str(pictures / "b" / "5.png"), "--top-k", "2"]) == 0
    header, first, second = (line.split() for line in capsys.readouterr().out.splitlines())
    assert header == ["file", "rank", "label", "probability"]
    assert (first[1:3], second[1:3]) == (["1", "bright"], ["2", "dark"])


def test_what_exists_is_no_pattern(model, pictures, capsys):
    folder = pictures.rename(pictures.parent / "a[1]*")
    shutil.copytree(folder, pictures.parent / "a1b")
    shutil.copy(folder / "a" / "0.png", folder / "a" / ".0.png")
    for name, number in ((folder, 6), (folder / "a", 3), (folder / "?" / "[0-3].png", 4)):
        assert cli.main(["predict", model, str(name), "--format", "jsonl"]) == 0
        files = [json.loads(line)["file"] for line in capsys.readouterr().out.splitlines()]
        assert len(files) == number
        assert all(file.startswith(f"{folder}/") for file in files)


def test_one_batch_is_read_while_the_network_is_busy_with_another():
    """Caught: reading in turns with the network, and reading everything at once."""
    paths = [pathlib.Path(f"{number}.png") for number in range(8)]
    read, done = [], []

    def contents(path):
        read.append(path)
        return path

    for batch in predict._read_ahead(contents, paths, 2):
        deadline = time.monotonic() + 20
        while len(read) < min(2 * len(done) + 4, 8) and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.05)
        assert len(read) == min(2 * len(done) + 4, 8)
        done.append(batch)
    assert [path for batch in done for path, _ in batch] == paths


def test_pictures_are_written_with_their_class(model, pictures, tmp_path, capsys):
    out, again = tmp_path / "out", pictures / "a" / "0.png"
    assert cli.main(["predict", model, str(pictures), str(again), "--save-images", str(out)]) == 0
    expected = [*(f"{number}.png.jpg" for number in range(6)), "0.png-2.jpg"]
    assert sorted(path.name for path in out.iterdir()) == sorted(expected)
    with Image.open(out / "5.png.jpg") as written:
        pixels = np.asarray(written, np.float32)
    bar = len(pixels) - 20
    assert abs(pixels[bar + 2 :].mean() - 200) < 5, "the picture is whole"
    assert pixels[:bar].min() < 120, "something is written above it"
    (tmp_path / "file").touch()
    taken = ["--save-images", str(tmp_path / "file")]
    assert cli.main(["predict", model, str(pictures), *taken]) == 1
    assert f"--save-images: {tmp_path}/file is no folder." in capsys.readouterr().err


def test_the_next_step_is_for_a_person_who_has_a_run(pictures, tmp_path, monkeypatch, capsys):
    # Mutations: after what a program reads; after other models than runs.
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").touch()
    monkeypatch.setattr(
        predict, "_by_network", lambda args, paths: [(paths[0], Classes([("cat", 0.9)]))]
    )
    command = ["predict", str(run), str(pictures / "a" / "0.png")]
    for terminal, target, more in ((False, run, []), (True, run, ["--format", "csv"])):
        monkeypatch.setattr(sys.stdout, "isatty", lambda terminal=terminal: terminal)
        assert cli.main(["predict", str(target), command[2], *more]) == 0
        assert "Next" not in capsys.readouterr().out
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert cli.main(["predict", str(pictures), command[2]]) == 0
    assert "Next" not in capsys.readouterr().out
    assert cli.main(command) == 0
    assert capsys.readouterr().out.endswith(f"Next: lightnets export {run} --out served\n")
