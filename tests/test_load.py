"""`lightnets load` against a server that says what it is told to."""

from __future__ import annotations

import json
import math
import time

import pytest
import tensorflow as tf
from test_client import Script, server  # noqa: F401

from keras_lightnets.serving.load import LoadReport, noise_png
from training.cli import main


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "cat.png"
    path.write_bytes(b"cat")
    return str(path)


def load(*args) -> int:
    return main(["load", *map(str, args)])


def test_it_reports_throughput_and_percentiles(server, image, capsys):  # noqa: F811
    assert load(server.url, "--seconds", 0.3, "--clients", 2, "--image", image) == 0
    first, throughput, latency = capsys.readouterr().out.splitlines()
    assert " 0 failed" in first
    assert throughput.startswith("throughput")
    assert throughput.endswith("images/s")
    assert [part in latency for part in ("p50", "p95", "p99")] == [True] * 3


def test_a_batch_counts_every_image(server, image, capsys):  # noqa: F811
    args = ("--seconds", 0.2, "--clients", 1, "--batch", 3, "--image", image, "--json")
    assert load(server.url, *args) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["errors"] == {}
    images = report["images_per_second"] * report["seconds"]
    assert images == pytest.approx(3 * report["requests"], rel=0.01)
    assert len(server.requests[-1][2]["inputs"]["image_bytes"]) == 3


def test_failures_are_counted_and_fail_the_command(server, image, capsys):  # noqa: F811
    """Caught: a client that tries again hides what the server refused."""
    ok = (200, {}, {"models": ["m"]})
    probe = (200, {}, {"outputs": {"classes": [["cat"]], "scores": [[1.0]]}})
    server.script = [ok, probe] + [(503, {}, {"error": "busy"})] * 2
    assert load(server.url, "--seconds", 0.2, "--clients", 1, "--image", image) == 1
    out, err = capsys.readouterr()
    assert "2 failed" in out
    assert "2 x http://127.0.0.1" in out
    assert "answered 503: busy" in out
    assert err.startswith("lightnets: 2 of ")


def test_nothing_answered_is_no_number(server, image, capsys):  # noqa: F811
    """Caught: NaN, which is no JSON."""
    refusal = (400, {}, {"error": "no"})
    probe = (200, {}, {"outputs": {"classes": [["cat"]], "scores": [[1.0]]}})
    for flags in ([], ["--json"]):
        server.script = [probe] + [refusal] * 100_000
        arguments = (f"{server.url}/m", "--seconds", 0.05, "--clients", 1, "--image", image, *flags)
        assert load(*arguments) == 1
        text = capsys.readouterr().out
        assert "nan" not in text.lower()
    assert json.loads(text)["p50_ms"] is None
    server.script = []


def test_it_ends_when_the_time_is_over(server, image):  # noqa: F811
    start = time.monotonic()
    load(server.url, "--seconds", 0.2, "--clients", 4, "--image", image)
    assert time.monotonic() - start < 20


def test_no_server_is_one_line(image, capsys):
    closed = Script()
    closed.server_close()
    assert load(f"{closed.url}/v1/models/m", "--image", image) == 1
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert "Cannot reach" in err


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["http://x", "--clients", "0"], 2, "--clients must be 1 to 256"),
        (["http://x", "--clients", "9999"], 2, "--clients must be 1 to 256"),
        (["http://x", "--seconds", "0"], 2, "--seconds"),
        (["http://x", "--seconds", "nan"], 2, "--seconds"),
        (["http://x", "--batch", "0"], 2, "--batch"),
        (["x"], 2, "must look like"),
        (["http://x", "--image", "none.png"], 1, "none.png"),
    ],
)
def test_bad_arguments(arguments, code, text, capsys):
    assert load(*arguments) == code
    assert text in capsys.readouterr().err


def test_percentiles_are_nearest_ranks():
    report = LoadReport(2.0, 10, tuple(map(float, range(1, 101))), {})
    assert [report.percentile_ms(p) for p in (0, 50, 95, 99, 100)] == [1, 50, 95, 99, 100]
    assert report.images_per_second == 5
    assert math.isnan(LoadReport(1.0, 0, (), {}).percentile_ms(50))


def test_the_picture_sent_for_want_of_another_is_one():
    image = tf.io.decode_png(noise_png(40))
    assert image.shape == (40, 40, 3)
    assert len(noise_png()) > 100_000
