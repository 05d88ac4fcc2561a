"""`lightnets ping` against a server that says what it is told to."""

from __future__ import annotations

import pytest
from test_client import Script, server  # noqa: F401

from lightnets.cli import main


@pytest.fixture
def images(tmp_path):
    paths = []
    for name in ("cat", "dog"):
        paths.append(tmp_path / f"{name}.png")
        paths[-1].write_bytes(name.encode())
    return [str(path) for path in paths]


def test_it_prints_label_and_probability(server, images, capsys):  # noqa: F811
    assert main(["ping", server.url, *images]) == 0
    assert capsys.readouterr().out == f"{images[0]}\tcat 0.7500\n{images[1]}\tdog 0.7500\n"
    assert main(["ping", server.url, images[0], "--top", "2"]) == 0
    assert capsys.readouterr().out == f"{images[0]}\tcat 0.7500\tother 0.2500\n"


def test_a_bad_image_does_not_hide_the_others(server, images, tmp_path, capsys):  # noqa: F811
    missing = str(tmp_path / "none.png")
    ok = (200, {}, {"models": ["m"]})
    server.script = [ok, (400, {}, {"error": "cannot decode"})]
    assert main(["ping", server.url, images[0], missing, images[1]]) == 1
    out, err = capsys.readouterr()
    first, second, third = out.splitlines()
    assert "error" in first
    assert "cannot decode" in first
    assert "No such file" in second
    assert third == f"{images[1]}\tdog 0.7500"
    assert err == "lightnets: 2 of 3 images failed\n"


def test_a_server_that_does_not_name_its_model_is_one_line(server, images, capsys):  # noqa: F811
    """Caught: the same complaint for every image."""
    server.script = [(404, {}, {"error": "Not found"})]
    assert main(["ping", server.url, *images]) == 1
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert "does not list its models: add /v1/models/NAME to the URL" in err


def test_no_server_is_one_line(images, capsys):
    closed = Script()
    closed.server_close()
    assert main(["ping", f"{closed.url}/v1/models/m", images[0]]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert "Cannot reach http://127.0.0.1" in err


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["ftp://x", "a.png"], "must look like http://HOST:PORT"),
        (["http://x", "a.png", "--top", "0"], "--top"),
        (["http://x", "a.png", "--timeout", "-1"], "must be positive"),
        (["http://x"], "IMAGE"),
    ],
)
def test_usage_errors(arguments, text, capsys):
    assert main(["ping", *arguments]) == 2
    assert text in capsys.readouterr().err
