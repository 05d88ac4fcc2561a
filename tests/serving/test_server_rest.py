"""The embedded server's REST API: TF Serving's formats, statuses and errors, over real sockets."""

from __future__ import annotations

import base64
import contextlib
import gzip
import http.client
import json
import math
import socket
import threading
import time
import urllib.parse

import numpy as np
import pytest

from keras_lightnets.serving import Client, ClientError
from tests.serving_models import (
    JSON,
    LABELS,
    SIZE,
    ask,
    colour_png,
    resident_mib,
    serving,
    write_version,
)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    bundle = tmp_path_factory.mktemp("bundle")
    write_version(bundle / "colour", 2, scale=10.0)
    (bundle / "models.config").write_text(
        """
        model_config_list { config {
          name: "colour" base_path: "/models/colour" model_platform: "tensorflow"
          model_version_policy { specific { versions: 2 } } version_labels { key: "new" value: 2 }
        } }
        """
    )
    limits = ("--max-body-mib", 2, "--client-seconds", 3, "--request-seconds", 60)
    limits += ("--max-requests", 8)
    with serving(bundle, *limits, forked=True) as process:
        yield process


def predict(server, document, path="/v1/models/colour:predict"):
    return ask(server, path, document)


def b64(content: bytes) -> dict[str, str]:
    return {"b64": base64.b64encode(content).decode()}


def pixels(colour: str) -> list:
    image = np.zeros((SIZE, SIZE, 3), int)
    image[..., LABELS.index(colour)] = 255
    return image.tolist()


def test_it_says_that_it_is_a_stand_in(server):
    assert "stand-in for TensorFlow Serving" in server.output


def test_it_listens_on_loopback_alone(server):
    """Every address in 127.0.0.0/8 is this machine's: one that it is not bound to must refuse."""
    for port in (server.address[1], int(server.grpc_url.rpartition(":")[2])):
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.2", port), timeout=5)


def test_status_lists_the_versions_newest_first(server):
    status, answer = ask(server, "/v1/models/colour")
    assert status == 200
    ok = {"error_code": "OK", "error_message": ""}
    assert answer == {
        "model_version_status": [
            {"version": "2", "state": "AVAILABLE", "status": ok},
        ]
    }
    assert ask(server, "/V1/Models/colour/versions/002") == (200, answer)


def test_metadata_describes_the_signatures(server):
    status, answer = ask(server, "/v1/models/colour/metadata")
    assert status == 200
    assert answer["model_spec"] == {"name": "colour", "signature_name": "", "version": "2"}
    signatures = answer["metadata"]["signature_def"]["signature_def"]
    images = signatures["serving_default"]["inputs"]["images"]
    assert images["dtype"] == "DT_UINT8"
    assert [d["size"] for d in images["tensor_shape"]["dim"]] == ["-1", "8", "8", "3"]
    assert signatures["serve_bytes"]["method_name"] == "tensorflow/serving/predict"


def test_rows_give_rows_and_columns_give_columns(server):
    images = [pixels("green"), pixels("red")]
    for rows in (images, [{"images": image} for image in images]):
        status, answer = predict(server, {"instances": rows})
        assert status == 200
        assert [row["classes"][0] for row in answer["predictions"]] == ["green", "red"]
        assert sorted(answer["predictions"][0]) == ["classes", "probabilities", "scores"]
    for columns in (images, {"images": images}):
        status, answer = predict(server, {"inputs": columns})
        assert status == 200
        assert [row[0] for row in answer["outputs"]["classes"]] == ["green", "red"]
        assert np.shape(answer["outputs"]["probabilities"]) == (2, 3)


def test_images_of_different_sizes_as_base64(server):
    contents = [colour_png("blue", 9), colour_png("green", 33)]
    document = {"signature_name": "serve_bytes", "instances": [b64(c) for c in contents]}
    status, answer = predict(server, document)
    assert status == 200
    assert [row["classes"][0] for row in answer["predictions"]] == ["blue", "green"]


def test_a_single_output_has_no_name(server):
    status, answer = predict(server, {"signature_name": "rows", "instances": [1, 2]})
    assert (status, answer) == (200, {"predictions": [2.0, 2.0]})
    status, answer = predict(server, {"signature_name": "rows", "inputs": {"x": [1]}})
    assert (status, answer) == (200, {"outputs": [1.0]})


def test_outputs_named_bytes_are_base64_and_floats_are_short(server):
    status, answer = predict(server, {"signature_name": "echo", "instances": [0.1]})
    assert status == 200
    assert answer["predictions"] == [{"text_bytes": b64(b"0.100000"), "x": 0.1}]


def test_nan_and_infinity_are_bare_words(server):
    """Caught: the fast encoder writes null for them."""
    body = b'{"signature_name": "echo", "inputs": [NaN, Infinity, -Infinity, 1]}'
    status, answer = ask(server, "/v1/models/colour:predict", body=body)
    assert status == 200
    first, *rest = answer["outputs"]["x"]
    assert math.isnan(first)
    assert rest == [math.inf, -math.inf, 1.0]


@pytest.mark.parametrize("path", ["", "/versions/2", "/versions/" + "0" * 5000 + "2"])
def test_the_newest_version_and_the_one_asked_for(server, path):
    document = {"instances": [pixels("red")]}
    _, answer = predict(server, document, f"/v1/models/colour{path}:predict")
    logits = 10.0 * np.array([1.0, 0.0, 0.0])
    expected = np.exp(logits) / np.exp(logits).sum()
    np.testing.assert_allclose(
        answer["predictions"][0]["probabilities"], expected, rtol=1e-5, atol=1e-7
    )


# What TF Serving's http_rest_api_handler_test.cc and the regular expressions of its paths expect;
# "GET" and "POST" stand for a body of one number.
EXPECTED = [
    ("GET /v1/foo", 400, "Malformed request: GET /v1/foo"),
    ("POST /v1/foo", 400, "Malformed request: POST /v1/foo"),
    ("GET /v1/models/debug/model_name", 400, "Malformed request"),
    ("POST /v1/models", 400, "Malformed request"),
    ("GET /v1/models/colour:predict", 400, "Malformed request"),
    ("GET /v1/models/colour/version/50:predict", 400, "Malformed request"),
    ("POST /v1/models/colour/version/50:predict", 400, "Malformed request"),
    ("POST /v1/models/colour/versions/HELLO:predict", 400, "Malformed request"),
    ("POST /v1/models/colour/versions/\u0663:predict", 400, "Malformed request"),
    (f"POST /v1/models/colour/versions/{2**64 - 1}:predict", 400, "Failed to convert version"),
    (f"POST /v1/models/colour/versions/{2**63}:predict", 400, "Failed to convert version"),
    (f"GET /v1/models/colour/versions/{'9' * 5000}", 400, "Failed to convert version: 9999"),
    ("POST /v1/models/colour/metadata", 400, "Malformed request"),
    ("POST /v1/models/colour/label/some:predict", 400, "Malformed request"),
    ("POST /v1/models/colour/versions/5/labels/some:predict", 400, "Malformed request"),
    ("POST /v1/models/colour/labels/new:predict", 400, "Wrong shape"),
    ("POST /v1/models/none:predict", 404, "Servable not found for request: Latest(none)"),
    ("POST /v1/models/none/versions/5:predict", 404, "Specific(none, 5)"),
    ("POST /v1/models/colour/versions/99:predict", 404, "Specific(colour, 99)"),
    ("POST /v1/models/colour/versions/0:predict", 404, "Specific(colour, 0)"),
    ("GET /v1/models/none", 404, "Could not find any versions of model none"),
    ("GET /v1/models/none/metadata", 404, "Servable not found"),
    ("GET /v1/models/colour/versions/9", 404, "version 9 of model colour"),
    ("POST /v1/models/colour/labels/old:predict", 400, "Unrecognized servable version label: old"),
    ("POST /v1/models/colour:PREDICT", 400, "Malformed request"),
    ("POST /v1/models/colour:predict?x=1", 400, "Malformed request"),
    ("GET /v1/models/colour?x=1", 404, "Could not find any versions of model colour?x=1"),
    ("GET /v1/models/colour/metadata?x=1", 400, "Malformed request"),
    ("GET /v1/models/a%0ab", 404, "model a\nb"),
    ("POST /v1/models/colour:classify", 501, ":predict"),
    ("POST /v1/models/colour:regress", 501, ":predict"),
    ("PUT /v1/models/colour", 400, "Malformed request: PUT"),
    ("DELETE /v1/models/colour", 400, "Malformed request: DELETE"),
    ("PATCH /v1/models/colour:predict", 400, "Malformed request: PATCH"),
    ("OPTIONS /v1/models/colour", 400, "Malformed request: OPTIONS"),
    ("HEAD /v1/models/colour", 400, ""),
    ("GET /monitoring/prometheus/metrics", 404, "/monitoring/prometheus/metrics"),
    ("GET /elsewhere", 404, "/elsewhere"),
]


def test_paths_are_answered_as_by_tensorflow_serving(server):
    for line, status, text in EXPECTED:
        method, path = line.split(" ", 1)
        body = None if method in ("GET", "HEAD") else b'{"instances": [1]}'
        path = urllib.parse.quote(path, safe="/:?=%")
        got, answer = ask(server, path, body=body, method=method)
        assert (line, got) == (line, status), answer
        assert answer is None or text in answer["error"], line


def test_the_body_is_looked_at_before_the_model(server):
    """And both before the signature; codes and words of TF Serving's source."""
    for path, body, status, text in (
        ("none", b"", 400, "The document is empty"),
        ("none", b"{", 400, "JSON Parse error"),
        ("none", b'{"signature_name": 1}', 400, "must be a string"),
        ("none", b"{}", 404, "Servable not found"),
        ("colour", b"{}", 400, "Missing 'inputs' or 'instances'"),
        ("colour", b'{"signature_name": "no"}', 400, 'signature name: "no" not found'),
        ("colour", b'{"instances": [[[[1, 2]]]]}', 400, "Wrong shape"),
        ("colour", b'{"signature_name": "exotic", "inputs": [1]}', 400, "Failed to write JSON"),
        ("colour", b'{"signature_name": "much", "instances": [1]}', 400, "Wrong shape"),
    ):
        got, answer = ask(server, f"/v1/models/{path}:predict", body=body)
        assert (body, got) == (body, status), answer
        assert text in answer["error"]


def test_a_scalar_string_is_answered(server):
    status, answer = predict(server, {"signature_name": "much", "inputs": 2})
    assert (status, answer) == (200, {"outputs": {"text": "2", "zeros": [0, 0]}})


def test_no_rows_give_no_rows(server):
    status, answer = predict(server, {"signature_name": "rows", "inputs": []})
    assert (status, answer) == (200, {"outputs": []})


def test_a_body_may_be_compressed_up_to_the_limit(server):
    body = json.dumps({"signature_name": "rows", "instances": [1, 2]}).encode()
    headers = {"Content-Encoding": "gzip"}
    path = "/v1/models/colour:predict"
    assert ask(server, path, body=gzip.compress(body), headers=headers) == (
        200,
        {"predictions": [2.0, 2.0]},
    )
    bomb = gzip.compress(bytes(200 << 20))
    before = resident_mib(server)
    assert ask(server, path, body=bomb, headers=headers)[0] == 413
    assert resident_mib(server) < before + 60
    assert ask(server, path, body=b"no gzip", headers=headers)[0] == 400


def test_bad_image_bytes_are_refused(server):
    for value, text in (
        ({"b64": "!!!"}, "base64"),
        ({"b64": 3}, "expected type"),
        (b64(b"no image"), "image"),
        (b64(colour_png("red")[:60]), "image"),
        ("", "image"),
    ):
        document = {"signature_name": "serve_bytes", "inputs": [value]}
        status, answer = predict(server, document)
        assert status == 400
        assert text in answer["error"].lower()
        assert "Original stack trace" not in answer["error"]


def test_health_is_answered_while_large_bodies_are_read(server):
    """Caught: bodies read in the event loop, where one after the other held up everything else."""
    body = b'{"ignored": [' + b"{}," * 600_000 + b"0]}"
    answers = []

    def send() -> None:
        answers.append(ask(server, "/v1/models/colour:predict", body=body))

    threads = [threading.Thread(target=send) for _ in range(3)]
    for thread in threads:
        thread.start()
    asked = 0
    while any(thread.is_alive() for thread in threads):
        assert ask(server, "/v1/models/colour")[0] == 200
        asked += 1
    assert [status for status, _ in answers] == [400] * 3
    assert asked > 1 + len(answers)  # one between two bodies, and no more, otherwise


def test_refused_bodies_do_not_stay_in_memory(server):
    """Caught: an error that its own traceback holds, and with it the body."""
    body = b'{"instances": [' + b" " * (1 << 20) + b"{}]}"
    path = "/v1/models/colour:predict"
    ask(server, path, body=body)
    before = resident_mib(server)
    for _ in range(100):
        assert ask(server, path, body=body)[0] == 400
    assert resident_mib(server) < before + 40


def test_a_client_that_does_not_take_its_answer_is_dropped(server):
    """Caught: it stayed for ever, and with it the answer."""
    body = b'{"signature_name": "much", "inputs": 20000000}'
    with socket.create_connection(server.address, timeout=30) as connection:
        head = b"POST /v1/models/colour:predict HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"
        connection.sendall(head % len(body) + body)
        server.wait_for("127.0.0.1 dropped: it does not take its answer")
        received = 0
        with contextlib.suppress(ConnectionResetError):
            while chunk := connection.recv(1 << 20):
                received += len(chunk)
        assert received < 40_000_000
    assert ask(server, "/v1/models/colour")[0] == 200


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_of_100_mb_gets_413_and_is_not_kept(server, chunked):
    """Caught: a server that answers before it reads resets the connection instead."""
    limit = 2 << 20
    block = b" " * (1 << 20)
    before = resident_mib(server)
    connection = http.client.HTTPConnection(*server.address, timeout=60)
    connection.putrequest("POST", "/v1/models/colour:predict")
    size = 100 if not chunked else 8  # MiB
    if chunked:
        connection.putheader("Transfer-Encoding", "chunked")
    else:
        connection.putheader("Content-Length", str(size << 20))
    connection.endheaders()
    try:
        for _ in range(size):
            connection.send(b"%x\r\n%s\r\n" % (len(block), block) if chunked else block)
        if chunked:
            connection.send(b"0\r\n\r\n")
    except ConnectionError:
        pass  # the answer may come before the end of the body
    response = connection.getresponse()
    assert response.status == 413
    assert str(limit) in json.loads(response.read())["error"]
    connection.close()
    assert resident_mib(server) < before + 60


def test_grpc_has_the_same_limit(server):
    images = np.zeros((4, 224, 224, 3), np.float32)  # 2.3 MiB
    with Client(server.grpc_url, "colour", retries=9, backoff_s=10) as client:
        with pytest.raises(ClientError, match="larger than max") as caught:
            client.predict({"images": images}, "large")
        assert caught.value.status == 413  # so it was not sent ten times
        assert client.predict({"images": images[:3]}, "large")["mean"] == [0, 0, 0]


def test_a_client_that_asks_first_is_refused_before_it_sends(server):
    with socket.create_connection(server.address, timeout=20) as connection:
        connection.sendall(
            b"POST /v1/models/colour:predict HTTP/1.1\r\nHost: x\r\n"
            b"Content-Length: 200000000\r\nExpect: 100-continue\r\n\r\n"
        )
        assert connection.recv(100).startswith(b"HTTP/1.1 413")


@pytest.mark.parametrize(
    "start",
    [
        b"",
        b"POST /v1/models/colour:pre",
        b"POST /v1/models/colour:predict HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\n{",
    ],
)
def test_a_slow_client_is_cut_off(server, start):
    """Caught: no time-out for headers, or none for the body."""
    with socket.create_connection(server.address, timeout=20) as connection:
        connection.sendall(start)
        assert connection.recv(1) == b""
    assert ask(server, "/v1/models/colour")[0] == 200


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 this is TLS",
        b"GET /v1/models/colour HTTP/9.9\r\n\r\n",
        b"POST /v1/models/colour:predict HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST /v1/models/colour:predict HTTP/1.1\r\nContent-Length: x\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"X: " + b"a" * (1 << 15) + b"\r\n\r\n",
    ],
)
def test_what_is_not_http_ends_the_connection_alone(server, garbage):
    with socket.create_connection(server.address, timeout=20) as connection:
        connection.sendall(garbage)
        connection.settimeout(20)
        try:
            answer = connection.recv(1000)
        except ConnectionResetError:
            answer = b""
        assert answer == b"" or answer.startswith(b"HTTP/1.1 4")
    assert ask(server, "/v1/models/colour")[0] == 200


def test_a_half_closed_or_abandoned_request_leaves_no_trace(server):
    body = json.dumps({"signature_name": "wait", "instances": [0.2]}).encode()
    head = b"POST /v1/models/colour:predict HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"
    for _ in range(8):  # as many as may be in flight
        with socket.create_connection(server.address, timeout=20) as connection:
            connection.sendall(head % len(body) + body)
            connection.shutdown(socket.SHUT_WR)
    end = time.monotonic() + 60
    while predict(server, {"signature_name": "rows", "instances": [1]})[0] != 200:
        assert time.monotonic() < end
        time.sleep(0.05)


def test_two_requests_on_one_connection(server):
    connection = http.client.HTTPConnection(*server.address, timeout=30)
    for colour in ("red", "blue"):
        document = {"signature_name": "serve_bytes", "instances": [b64(colour_png(colour))]}
        connection.request("POST", "/v1/models/colour:predict", json.dumps(document), JSON)
        sock = connection.sock
        answer = json.loads(connection.getresponse().read())
        assert answer["predictions"][0]["classes"][0] == colour
        assert connection.sock is sock
    connection.close()


def test_the_log_has_a_line_for_each_request(server):
    predict(server, {"instances": [1]}, "/v1/models/made_up%0a:predict")
    server.wait_for("POST /v1/models/made_up%0a:predict 404")
    with (
        Client(server.grpc_url, "a\nb\x1b[2J", retries=0) as client,
        pytest.raises(ClientError, match="NOT_FOUND"),
    ):
        client.status()
    server.wait_for(r"gRPC GetModelStatus a\nb\x1b[2J NOT_FOUND")
