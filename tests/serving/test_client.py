"""The client against servers that misbehave in every way a network can."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from keras_lightnets.serving import Client, ClientError, transport
from tests.scripted_server import Handler, Script


def hang_up(handler: Handler) -> None:
    handler.connection.close()
    handler.close_connection = True


@pytest.fixture
def client(server):
    with Client(server.url, "m", timeout_s=5, backoff_s=0.001) as client:
        yield client


def test_files_and_bytes_are_classified_in_order_and_in_batches(server, client, tmp_path):
    names = ["a", "b", "c", "d", "e"]
    paths = []
    for name in names:
        paths.append(tmp_path / name)
        paths[-1].write_bytes(name.encode())
    client.batch_size = 2
    results = client.classify([paths[0], str(paths[1]), b"c", paths[3], b"e"])
    assert results == [[(name, 0.75), ("other", 0.25)] for name in names]
    assert [len(r[2]["inputs"]["image_bytes"]) for r in server.requests] == [2, 2, 1]
    assert client.classify(b"x", top=1) == [[("x", 0.75)]]


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_a_busy_server_is_asked_again(server, client, status):
    server.script = [(status, {}, {"error": "busy"})] * 3
    assert client.classify(b"a", top=1) == [[("a", 0.75)]]
    assert len(server.requests) == 4


def test_pauses_grow_and_differ(server, monkeypatch):
    """Caught: clients turned away together that come back together."""
    pauses = []
    monkeypatch.setattr(transport.time, "sleep", pauses.append)
    with Client(server.url, "m", retries=4, backoff_s=1.0) as client:
        for _ in range(2):
            server.script = [(503, {}, {"error": "busy"})] * 4
            client.classify(b"a")
    assert all(2**i / 2 <= pause <= 2**i * 1.5 for i, pause in enumerate(pauses[:4]))
    assert pauses[:4] != pauses[4:]


def test_what_speaks_another_protocol_is_said():
    """Caught: the bytes of the other protocol in the message."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"

        def answer():
            connection, _ = listener.accept()
            connection.recv(1000)
            connection.sendall(b"\x00\x00\x00\x04\x00\r\n")
            connection.close()

        thread = threading.Thread(target=answer)
        thread.start()
        with (
            Client(f"http://{address}/m", retries=0) as client,
            pytest.raises(ClientError, match=r"does not speak HTTP \(gRPC has a port"),
        ):
            client.classify(b"a")
        thread.join()


def test_no_grpc_server_is_the_same_as_no_rest_server():
    with (
        Client("grpc://127.0.0.1:1/m", retries=0) as client,
        pytest.raises(
            ClientError, match=r"^Cannot reach grpc://127\.0\.0\.1:1: .*refused"
        ) as caught,
    ):
        client.status()
    assert caught.value.status is None


def test_retries_end(server, client):
    server.script = [(503, {}, {"error": "busy"})] * 9
    with pytest.raises(ClientError, match="answered 503: busy") as caught:
        client.classify(b"a")
    assert caught.value.status == 503
    assert len(server.requests) == 4


def test_retry_after_is_honoured(server, client):
    server.script = [(503, {"Retry-After": "1"}, {"error": "busy"})]
    start = time.monotonic()
    client.classify(b"a")
    assert time.monotonic() - start >= 1


@pytest.mark.parametrize("status", [400, 404, 413, 500])
def test_a_refusal_is_final(server, client, status):
    server.script = [(status, {}, {"error": "no"})]
    with pytest.raises(ClientError, match=f"{status}: no"):
        client.predict({"x": [1]})
    assert len(server.requests) == 1


def test_a_lost_connection_is_retried(server, client):
    server.script = [hang_up, hang_up]
    assert client.classify(b"a", top=1) == [[("a", 0.75)]]


def test_nobody_there():
    server = Script()
    server.server_close()
    with (
        Client(server.url, "m", retries=1, backoff_s=0.001) as client,
        pytest.raises(ClientError, match=r"Cannot reach http://127\.0\.0\.1:.*refused") as caught,
    ):
        client.classify(b"a")
    assert caught.value.status is None
    with pytest.raises(ClientError, match=r"not ready after 0.2 s: Cannot reach"):
        Client(server.url, "m", retries=0).wait_until_ready(0.2)


def test_waiting_ends_where_it_is_of_no_use(server, client):
    unavailable = {"model_version_status": [{"version": "1", "state": "LOADING"}]}
    available = {"model_version_status": [{"version": "1", "state": "AVAILABLE"}]}
    server.script = [
        (404, {}, {"error": "Could not find any versions of model m"}),
        (200, {}, unavailable),
        (200, {}, available),
    ]
    client.wait_until_ready(20)
    assert len(server.requests) == 3
    start = time.monotonic()
    with pytest.raises(ClientError, match=r"^grpc://127\.0\.0\.1:1 does not list its models"):
        Client("grpc://127.0.0.1:1").wait_until_ready(20)
    assert time.monotonic() - start < 10


def test_a_silent_server_times_out(server):
    server.script = [lambda handler: time.sleep(2)]
    with (
        Client(server.url, "m", timeout_s=0.1, retries=0) as client,
        pytest.raises(ClientError, match=r"did not answer within 0.1 s"),
    ):
        client.classify(b"a")


def test_an_answer_that_is_not_json(server, client):
    server.script = [(200, {}, b"<html>")]
    with pytest.raises(ClientError, match="without JSON"):
        client.classify(b"a")


def test_the_bad_image_of_a_batch_is_named(server, client, tmp_path):
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"bad")
    error = (400, {}, {"error": "cannot decode"})
    server.script = [error, (200, {}, {"outputs": {"classes": [["a"]], "scores": [[1.0]]}}), error]
    with pytest.raises(ClientError, match=r"bad\.png: .*cannot decode"):
        client.classify([b"a", bad, b"c"])


def test_an_image_that_the_model_calls_invalid_is_named(server, client):
    """An export answers for a batch when only some of its images cannot be decoded."""
    outputs = {"classes": [["a"], [""]], "scores": [[1.0], [0.0]], "valid": [True, False]}
    server.script = [(200, {}, {"outputs": outputs})]
    with pytest.raises(ClientError, match="Image 1: the server cannot decode it"):
        client.classify([b"a", b"bad"])


def test_a_missing_file_is_named(client, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.png"):
        client.classify(tmp_path / "none.png")


def test_a_model_of_another_make_is_explained(server, client):
    server.script = [(200, {}, {"outputs": [[0.1, 0.9]]})]
    with pytest.raises(ClientError, match="without `classes` and `scores`"):
        client.classify(b"a")


def test_the_only_model_is_found_and_several_are_not_guessed(server):
    with Client(server.url) as client:
        assert client.model == "m"
    server.script = [(200, {}, {"models": ["a", "b"]})]
    with (
        Client(server.url) as client,
        pytest.raises(ClientError, match=r"models a, b: add /v1/models/NAME to the URL"),
    ):
        client.classify(b"a")
    server.script = [(400, {}, {"error": "Missing model name in request."})]
    with Client(server.url) as client, pytest.raises(ClientError, match="add /v1/models/NAME"):
        client.classify(b"a")


@pytest.mark.parametrize(
    ("end", "path"),
    [
        ("/v1/models/m", "/v1/models/m:predict"),
        ("/m", "/v1/models/m:predict"),
        ("/v1/models/m/versions/3", "/v1/models/m/versions/3:predict"),
        ("/v1/models/m/labels/stable", "/v1/models/m/labels/stable:predict"),
        ("/v1/models/m:predict", "/v1/models/m:predict"),
    ],
)
def test_the_url_may_name_model_and_version(server, end, path):
    with Client(server.url + end) as client:
        client.classify(b"a")
    assert server.requests[0][1] == path


def test_arrays_lists_and_bytes_become_json(server, client):
    client.predict({"images": np.zeros((1, 2), np.uint8), "y": [[1.5]], "z": [[b"\xff"]]})
    assert server.requests[0][2]["inputs"] == {
        "images": [[0, 0]],
        "y": [[1.5]],
        "z": [[{"b64": "/w=="}]],
    }


@pytest.mark.parametrize("url", ["", "127.0.0.1:8501", "ftp://x", "http://", "http://x/a/b/c"])
def test_a_url_of_another_form_is_refused(url):
    with pytest.raises(ValueError, match=r"must look like http://HOST:PORT"):
        Client(url)


@pytest.mark.parametrize("argument", [{"timeout_s": 0}, {"retries": -1}, {"batch_size": 0}])
def test_arguments_out_of_range_are_refused(argument):
    with pytest.raises(ValueError, match="must be positive"):
        Client("http://127.0.0.1:1", **argument)


def test_one_client_serves_many_threads(server, client):
    results = {}

    def work(name: str) -> None:
        results[name] = [client.classify(name.encode(), top=1)[0][0][0] for _ in range(5)]

    threads = [threading.Thread(target=work, args=(f"t{i}",)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {f"t{i}": [f"t{i}"] * 5 for i in range(8)}


def test_rest_needs_the_standard_library_alone():
    code = (
        "import sys; from keras_lightnets.serving import Client; Client('http://127.0.0.1:1');"
        "heavy = {'tensorflow', 'keras', 'numpy', 'grpc', 'requests'} & sys.modules.keys();"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
