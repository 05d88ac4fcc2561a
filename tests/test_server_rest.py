"""The embedded server's REST API: TF Serving's formats, statuses and errors, over real sockets."""

from __future__ import annotations

import base64
import http.client
import json
import math
import pathlib
import socket
import threading
import time

import numpy as np
import pytest
from serving_models import LABELS, SIZE, colour_png, serving, write_version

from keras_lightnets.serving import Client, ClientError

JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    bundle = tmp_path_factory.mktemp("bundle")
    for version in (1, 2, 3):
        write_version(bundle / "colour", version, scale=5.0 * version)
    (bundle / "models.config").write_text(
        """
        model_config_list { config {
          name: "colour" base_path: "/models/colour" model_platform: "tensorflow"
          model_version_policy { specific { versions: 1 versions: 2 } }
          version_labels { key: "stable" value: 1 }
        } }
        """
    )
    limits = ("--max-body-mib", 2, "--client-seconds", 1, "--request-seconds", 10)
    with serving(bundle, *limits, forked=True) as process:
        yield process


def ask(server, path, document=None, *, body=None, method=None):
    """`(status, parsed JSON)` of one request on a fresh connection."""
    if document is not None:
        body = json.dumps(document).encode()
    connection = http.client.HTTPConnection(*server.address, timeout=30)
    try:
        connection.request(method or ("GET" if body is None else "POST"), path, body, JSON)
        response = connection.getresponse()
        assert response.headers["Content-Type"].startswith("application/json")
        return response.status, json.loads(response.read())
    finally:
        connection.close()


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
            {"version": "1", "state": "AVAILABLE", "status": ok},
        ]
    }
    for path in ("/v1/models/colour/versions/1", "/v1/models/colour/labels/stable"):
        assert [row["version"] for row in ask(server, path)[1]["model_version_status"]] == ["1"]


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


@pytest.mark.parametrize(
    ("path", "version"), [("", 2), ("/versions/1", 1), ("/versions/2", 2), ("/labels/stable", 1)]
)
def test_version_and_label_choose_the_version(server, path, version):
    document = {"instances": [pixels("red")]}
    _, answer = predict(server, document, f"/v1/models/colour{path}:predict")
    logits = 5.0 * version * np.array([1.0, 0.0, 0.0])
    expected = np.exp(logits) / np.exp(logits).sum()
    np.testing.assert_allclose(
        answer["predictions"][0]["probabilities"], expected, rtol=1e-5, atol=1e-7
    )


def test_versions_and_labels_stay_apart_under_concurrency(server):
    wrong = []

    def work(path, version):
        expected = 1 / (1 + 2 * math.exp(-5.0 * version))
        for _ in range(10):
            _, answer = predict(
                server, {"instances": [pixels("red")]}, f"/v1/models/colour{path}:predict"
            )
            if not math.isclose(answer["predictions"][0]["scores"][0], expected, rel_tol=1e-5):
                wrong.append((path, answer))

    paths = {"": 2, "/labels/stable": 1, "/versions/1": 1, "/versions/2": 2}
    threads = [threading.Thread(target=work, args=item) for item in paths.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.parametrize(
    ("path", "body", "status", "text"),
    [
        ("/v1/models/none:predict", b'{"instances": [1]}', 404, "Servable not found"),
        ("/v1/models/none", None, 404, "Could not find any versions of model none"),
        ("/v1/models/none/metadata", None, 404, "Servable not found"),
        ("/v1/models/colour/versions/9", None, 404, "version 9"),
        ("/v1/models/colour/versions/3:predict", b"{}", 404, "Specific(colour, 3)"),
        (f"/v1/models/colour/versions/{2**63}:predict", b"{}", 400, "Failed to convert"),
        ("/v1/models/colour/labels/no:predict", b"{}", 400, "Unrecognized servable version label"),
        ("/v1/models/colour:classify", b"{}", 501, ":predict"),
        ("/v1/models/colour:predict", None, 400, "Malformed request: GET"),
        ("/elsewhere", None, 404, "/elsewhere"),
        ("/v1/models/colour:predict", b"", 400, "document is empty"),
        ("/v1/models/colour:predict", b"{bad json", 400, "JSON Parse error"),
        ("/v1/models/colour:predict", b"\xff\xfe\x00", 400, "JSON Parse error"),
        ("/v1/models/colour:predict", b"[" * 100_000, 400, "JSON Parse error"),
        ("/v1/models/colour:predict", b"[1]", 400, "Is not object"),
        ("/v1/models/colour:predict", b"{}", 400, "Missing 'inputs' or 'instances'"),
        ("/v1/models/colour:predict", b'{"instances": [], "inputs": []}', 400, "only one of"),
        ("/v1/models/colour:predict", b'{"instances": []}', 400, "No values"),
        ("/v1/models/colour:predict", b'{"inputs": []}', 400, "Wrong shape"),
        ("/v1/models/colour:predict", b'{"instances": 3}', 400, "list/array"),
        ("/v1/models/colour:predict", b'{"instances": [{"x": 1}]}', 400, "keys must be equal"),
        ("/v1/models/colour:predict", b'{"inputs": {"x": 1}}', 400, "Missing named input: images"),
        ("/v1/models/colour:predict", b'{"instances": [[[[1, 2]]]]}', 400, "Wrong shape"),
        ("/v1/models/colour:predict", b'{"instances": [[1], [1, 2]]}', 400, "unequal size"),
        ("/v1/models/colour:predict", b'{"instances": ["a"]}', 400, "not of expected type"),
        ("/v1/models/colour:predict", b'{"instances": [1.5]}', 400, "not of expected type"),
        ("/v1/models/colour:predict", b'{"instances": [256]}', 400, "outside 0 to 255"),
        ("/v1/models/colour:predict", b'{"instances": [null]}', 400, "not of expected type"),
        ("/v1/models/colour:predict", b'{"instances": [1e999]}', 400, "not of expected type"),
        ("/v1/models/colour:predict", b'{"signature_name": 1}', 400, "must be a string"),
        (
            "/v1/models/colour:predict",
            b'{"signature_name": "no", "instances": [1]}',
            400,
            'signature name: "no" not found',
        ),
    ],
)
def test_bad_requests_are_refused_with_tf_servings_status(server, path, body, status, text):
    got, answer = ask(server, path, body=body, method="POST" if body is not None else "GET")
    assert got == status
    assert text in answer["error"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"b64": "!!!"}, "base64"),
        ({"b64": "AAAA="}, "base64"),
        ({"b64": 3}, "expected type"),
        (3, "expected type"),
        (b64(b"no image"), "image"),
        (b64(colour_png("red")[:60]), "image"),
        ("", "image"),
    ],
)
def test_bad_image_bytes_are_refused(server, value, text):
    document = {"signature_name": "serve_bytes", "inputs": [value]}
    status, answer = predict(server, document)
    assert status == 400
    assert text in answer["error"].lower()
    assert "Original stack trace" not in answer["error"]


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH"])
def test_other_methods_get_405(server, method):
    status, answer = ask(server, "/v1/models/colour", method=method)
    assert status == 405
    assert method in answer["error"]


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_of_200_mb_gets_413_and_is_not_kept(server, chunked):
    """Caught: a server that answers before it reads resets the connection instead."""
    limit = 2 << 20
    block = b" " * (1 << 20)
    before = resident_mib(server)
    connection = http.client.HTTPConnection(*server.address, timeout=60)
    connection.putrequest("POST", "/v1/models/colour:predict")
    size = 200 if not chunked else 8  # MiB
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
    for _ in range(3):
        with socket.create_connection(server.address, timeout=20) as connection:
            connection.sendall(head % len(body) + body)
            connection.shutdown(socket.SHUT_WR)
    end = time.monotonic() + 20
    while metric(server, "lightnets_serving_requests_in_flight") != 0:
        assert time.monotonic() < end
        time.sleep(0.05)
    assert predict(server, {"signature_name": "rows", "instances": [1]})[0] == 200


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


def test_metrics_and_log_have_a_line_for_each_request(server):
    before = metric(server, ':tensorflow:serving:request_count{model_name="colour",status="OK"}')
    for _ in range(3):
        predict(server, {"signature_name": "rows", "instances": [1]})
    predict(server, {"instances": [1]}, "/v1/models/made_up:predict")
    name = ':tensorflow:serving:request_count{model_name="colour",status="OK"}'
    # More, if a request that its client abandoned in another test ends only now.
    assert metric(server, name) >= before + 3
    text = metrics(server)
    assert "made_up" not in text
    assert ':tensorflow:serving:request_latency_bucket{model_name="colour"' in text
    server.wait_for("POST /v1/models/made_up:predict 404")


def metrics(server) -> str:
    connection = http.client.HTTPConnection(*server.address, timeout=30)
    connection.request("GET", "/monitoring/prometheus/metrics")
    text = connection.getresponse().read().decode()
    connection.close()
    return text


def metric(server, name: str) -> float:
    for line in metrics(server).splitlines():
        if line.startswith(f"{name} "):
            return float(line.rpartition(" ")[2])
    return 0.0


def resident_mib(server) -> float:
    status = pathlib.Path(f"/proc/{server.process.pid}/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024
