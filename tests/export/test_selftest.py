"""The script that goes with every version: right servers pass it, wrong ones do not."""

from __future__ import annotations

import http.server
import json
import shutil
import threading

import numpy as np
import pytest

import keras_lightnets
from keras_lightnets.export import known_answers, selftest
from keras_lightnets.export.answers import Answer
from keras_lightnets.export.parity import HeldOut, Reference
from tests.bundles import selftest as run
from tests.exports import LABELS, small_net
from tests.serving_models import serving

FAST = ("--requests", 2)


def failures(lines):
    return [line.removeprefix("FAIL").strip() for line in lines if line.startswith("FAIL")]


def test_a_right_server_passes(small_export, small_server):
    extra = small_export[1] / "assets.extra"
    code, lines, err = run(extra, small_server.url, *FAST)
    assert (code, err) == (0, "")
    assert [line.split()[0] for line in lines] == ["ok"] * 7
    assert [line.split(",")[0] for line in lines[1:3]] == [
        f"ok     {name}: 8 images get the known answers"
        for name in ("serve_bytes", selftest.IMAGES)
    ]
    assert all("p50 " in line and "of 2 requests" in line for line in lines[-2:])
    # An address may name the model itself, under whatever name it is served.
    assert run(extra, f"{small_server.url}/v1/models/small", "--requests", 0)[0] == 0


def test_without_images_shape_and_broken_files_are_still_checked(
    small_export, small_server, tmp_path
):
    extra = tmp_path / "assets.extra"
    ignored = shutil.ignore_patterns("selftest")
    shutil.copytree(small_export[1] / "assets.extra", extra, ignore=ignored)
    code, lines, err = run(extra, small_server.url, *FAST)
    assert (code, err) == (0, "")
    assert [line.split()[0] for line in lines] == ["ok", "note", *["ok"] * 4]


@pytest.mark.slow
@pytest.mark.usefixtures("no_gate")
def test_permuted_classes_are_wrong_answers(tmp_path):
    """Names in another order, and the same network with its outputs in another order."""
    options = keras_lightnets.ExportOptions(warmup_batch_sizes=(1,))

    def export(name, model, labels):
        return keras_lightnets.export_saved_model(
            model, tmp_path, labels, name=name, options=options
        )

    extra = export("right", small_net(), LABELS) / "assets.extra"
    export("names", small_net(), [LABELS[1], LABELS[0], *LABELS[2:]])
    permuted = small_net()
    head = permuted.get_layer("logits")
    head.set_weights([np.roll(weight, 1, axis=-1) for weight in head.get_weights()])
    export("outputs", permuted, LABELS)
    with serving(tmp_path, forked=True) as server:
        assert run(extra, server.url, *FAST)[0] == 0
        for name in ("names", "outputs"):
            code, lines, _ = run(extra, f"{server.url}/v1/models/{name}", *FAST)
            assert code == 1
            wrong = failures(lines)
            assert [line.split(":")[0] for line in wrong] == ["serve_bytes", "serving_default"]
            assert all(".png is '" in line and "must be '" in line for line in wrong)


class Bad(http.server.BaseHTTPRequestHandler):
    """Answers everything, wrongly."""

    number = 1.0  # in place of each probability

    def do_GET(self):
        self._answer({"model_version_status": [{"state": self.state}]})

    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        count = len(request["inputs"].get("image_bytes", [1]))
        outputs = {"classes": [LABELS], "valid": [True] * count}
        outputs |= {key: [[self.number] * 6] for key in ("scores", "probabilities")}
        self._answer({"outputs": outputs} if self.number else {})

    def _answer(self, document):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(document).encode() if self.state else b"<html>")

    def log_message(self, *_):
        pass


@pytest.fixture
def bad():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Bad) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        Bad.state, Bad.number = "AVAILABLE", 1.0
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("number", [1.0, float("nan"), None])
def test_a_server_that_does_everything_wrong_fails_every_check(small_export, bad, number):
    # Mutations: `any` instead of `all`; NaN taken for equal; a check that is left out.
    Bad.number = number
    code, lines, _ = run(small_export[1] / "assets.extra", bad, "--requests", 0)
    assert code == 1
    checked = ["serve_bytes", "serving_default", "serving_default", "serve_bytes"]
    assert [line.split(":")[0] for line in failures(lines)] == checked
    assert "an image of another shape got HTTP 200" in lines[3]
    assert ("another form" if number is None else "'valid' of an image") in lines[4]


@pytest.mark.parametrize(
    ("url", "state", "code", "words"),
    [
        ("http://127.0.0.1:1", "", 1, "cannot reach http://127.0.0.1:1/v1/models/small/versions/1"),
        ("http://127.0.0.1:port", "", 1, "cannot reach http://127.0.0.1:port/"),
        ("127.0.0.1:8501", "", 2, "must begin with http:// or https://"),
        (None, "LOADING", 1, "is not available: HTTP 200, {'model_version_status': "),
        (None, "", 1, "is no TensorFlow Serving: its answer is no JSON"),
    ],
)
def test_no_server_is_one_line(small_export, bad, url, state, code, words):
    Bad.state = state
    answer = run(small_export[1] / "assets.extra", url or bad)
    assert answer[:2] == (code, [])
    assert words in answer[2].splitlines()[-1]


def test_images_are_small_and_of_many_classes(tmp_path):
    """Of the smaller half the surest one of each class comes first."""
    images = np.arange(6 * 12, dtype=np.uint8).reshape(6, 2, 2, 3)
    rows = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.4, 0.6], [0.0, 1.0], [1.0, 0.0]])
    files = [b"\xff\xd8", b"\x89P", b"GI", b"large", b"larger", b"larger"]
    answers = dict.fromkeys(("serve_bytes", "serving_default"), Answer(rows))
    reference = Reference(HeldOut(images), files, answers)
    known_answers.write(tmp_path, reference, ["a", "b"], False, 3)
    known = json.loads((tmp_path / "selftest" / "answers.json").read_text())
    assert [image["file"] for image in known["images"]] == ["0.jpg", "1.gif", "2.png"]
    for number, place in enumerate((0, 2, 1)):
        assert known["images"][number]["probabilities"]["serve_bytes"] == rows[place].tolist()
        written = selftest.read_ppm(tmp_path / "selftest" / f"{number}.ppm")
        assert written == images[place].tolist()
    known_answers.write(tmp_path / "none", reference, ["a", "b"], False, 0)
    assert [path.name for path in (tmp_path / "none").iterdir()] == ["selftest.py"]
