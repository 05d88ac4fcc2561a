"""`lightnets predict URL FILES` against a server that says what it is told to."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from lightnets.cli import main
from tests.scripted_server import Script


@pytest.fixture
def images(tmp_path):
    paths = []
    for name in ("cat", "dog"):
        paths.append(tmp_path / f"{name}.png")
        paths[-1].write_bytes(name.encode())
    return [str(path) for path in paths]


def records(capsys):
    out, err = capsys.readouterr()
    answers = [json.loads(line) for line in out.splitlines()]
    return [(answer["file"], answer["predictions"]) for answer in answers], err


def test_it_prints_label_and_probability(server, images, capsys):
    assert main(["predict", server.url, *images, "--top", "1", "--format", "csv"]) == 0
    rows = [f"{images[0]},1,cat,0.750000", f"{images[1]},1,dog,0.750000"]
    assert capsys.readouterr().out.splitlines() == ["file,rank,label,probability", *rows]


def test_a_bad_image_does_not_hide_the_others(server, images, capsys):
    ok = (200, {}, {"models": ["m"]})
    server.script = [ok, (400, {}, {"error": "cannot decode"})]
    assert main(["predict", server.url, *images, "--format", "jsonl"]) == 1
    answers, err = records(capsys)
    assert [file for file, _ in answers] == [images[1]]
    assert answers[0][1][0] == {"label": "dog", "probability": 0.75}
    assert err.endswith("1 of 2 files failed\n")
    assert err.count("\n") == 2
    assert err.startswith(f"lightnets: {images[0]}: ")
    assert "cannot decode" in err


def test_a_server_that_does_not_name_its_model_is_one_line(server, images, capsys):
    """Caught: the same complaint for every image."""
    server.script = [(404, {}, {"error": "Not found"})]
    assert main(["predict", server.url, *images]) == 1
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert "does not list its models: add /v1/models/NAME to the URL" in err


def test_a_model_that_is_not_there_is_one_line(server, images, capsys):
    server.script = [(404, {}, {"error": "Servable not found for request: Latest(x)"})]
    assert main(["predict", f"{server.url}/v1/models/x", *images]) == 1
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith(f"lightnets: {server.url} answered 404: Servable not found")


def test_no_server_is_one_line(images, capsys):
    closed = Script()
    closed.server_close()
    assert main(["predict", f"{closed.url}/v1/models/m", images[0]]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert "Cannot reach http://127.0.0.1" in err


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["http://", "IMAGE"], "must look like http://HOST:PORT"),
        (["http://x", "IMAGE", "--timeout", "-1"], "must be positive"),
        (["http://x"], "Which images?"),
    ],
)
def test_usage_errors(arguments, text, images, capsys):
    assert main(["predict", *(images[0] if word == "IMAGE" else word for word in arguments)]) == 2
    assert text in capsys.readouterr().err


def test_it_needs_no_tensorflow(server, images):
    code = f"""
import sys
from lightnets.cli import main
assert main(["predict", "{server.url}", "{images[0]}"]) == 0
assert "tensorflow" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
