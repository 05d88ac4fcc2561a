"""The embedded server under many clients: merging, garbage, a version switch, gRPC, the drain."""

from __future__ import annotations

import base64
import collections
import http.client
import json
import random
import signal
import socket
import threading
import time

import grpc
import numpy as np
import pytest
import tensorflow as tf
from serving_models import LABELS, colour_png, serving, write_version
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
    regression_pb2,
)
from test_server_rest import ask, metric, resident_mib

from keras_lightnets.serving import Client, ClientError

PATH = "/v1/models/colour:predict"

BATCHING = """
max_batch_size { value: 8 }
batch_timeout_micros { value: 2000 }
num_batch_threads { value: 2 }
allowed_batch_sizes: 1
allowed_batch_sizes: 4
allowed_batch_sizes: 8
"""


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory):
    bundle = tmp_path_factory.mktemp("bundle")
    write_version(bundle / "colour", 1)
    (bundle / "batching_parameters.txt").write_text(BATCHING)
    return bundle / "colour"


@pytest.fixture(scope="module")
def server(model_dir):
    limits = ("--max-requests", 40, "--request-seconds", 3, "--drain-seconds", 20)
    with serving(model_dir, "--poll-seconds", 0.1, *limits) as process:
        yield process


def encode(signature: str, values: list) -> bytes:
    return json.dumps({"signature_name": signature, "inputs": values}).encode()


def picture(colour: str) -> bytes:
    content = base64.b64encode(colour_png(colour)).decode()
    return encode("serve_bytes", [{"b64": content}])


GARBAGE = [
    b"{bad json",
    encode("serve_bytes", [{"b64": "?"}]),
    encode("serve_bytes", [{"b64": base64.b64encode(b"no image").decode()}]),
    encode("serving_default", [[1, 2]]),
    encode("no_such", [1]),
    encode("rows", [1.0] * 9),  # larger than a batch may be
]


class Clients:
    """Many clients with requests whose answers are known, some of them sending garbage."""

    def __init__(self, server, clients: int, garbage_share: float) -> None:
        self.server, self.garbage_share = server, garbage_share
        self.good = collections.Counter()
        self.bad = collections.Counter()
        self.failures: list[str] = []
        self._stop = threading.Event()
        self._pictures = {colour: picture(colour) for colour in LABELS}
        self._threads = [
            threading.Thread(target=self._work, args=(seed,)) for seed in range(clients)
        ]
        for thread in self._threads:
            thread.start()

    def _work(self, seed: int) -> None:
        random_ = random.Random(seed)
        connection = http.client.HTTPConnection(*self.server.address, timeout=30)
        while not self._stop.is_set():
            garbage = random_.random() < self.garbage_share
            colour = random_.choice(LABELS)
            body = random_.choice(GARBAGE) if garbage else self._pictures[colour]
            try:
                if garbage and random_.random() < 0.3:
                    self._cut_short(body)
                    continue
                connection.request("POST", PATH, body)
                response = connection.getresponse()
                answer = json.loads(response.read())
            except Exception as error:
                self.failures.append(repr(error))
                connection.close()
                continue
            if garbage:
                self.bad[response.status] += 1
            elif response.status == 200 and answer["outputs"]["classes"][0][0] == colour:
                self.good[colour] += 1
            else:
                self.failures.append(f"{response.status} {answer}")
        connection.close()

    def _cut_short(self, body: bytes) -> None:
        """Promises more than it sends, then leaves."""
        with socket.create_connection(self.server.address, timeout=30) as connection:
            connection.sendall(b"POST %s HTTP/1.1\r\nContent-Length: 999\r\n\r\n" % PATH.encode())
            connection.sendall(body[:50])

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


def test_requests_of_many_clients_are_merged(server):
    answers = []

    def work() -> None:
        _, answer = ask(server, PATH, body=encode("rows", [1.0, 1.0]))
        answers.append(answer["outputs"])

    for _ in range(20):
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    sizes = {rows[0] for rows in answers}
    assert sizes <= {4.0, 8.0}  # 2 rows are padded to 4, so only merging makes 8
    assert 8.0 in sizes
    assert all(len(rows) == 2 for rows in answers)
    merged = metric(server, 'lightnets_serving_batch_requests_count{model_name="colour"}')
    assert merged < metric(server, 'lightnets_serving_batch_requests_sum{model_name="colour"}')


@pytest.mark.parametrize(
    "seconds", [pytest.param(4, id="short"), pytest.param(60, id="long", marks=pytest.mark.slow)]
)
def test_garbage_fails_alone(server, seconds):
    """One request in ten is garbage: every other is answered rightly, and memory stays."""
    clients = Clients(server, clients=16, garbage_share=0.1)
    time.sleep(seconds / 2)
    halfway = resident_mib(server)
    time.sleep(seconds / 2)
    clients.stop()
    assert clients.failures == []
    assert sum(clients.good.values()) > 50
    assert set(clients.bad) == {400}
    assert resident_mib(server) < halfway + 50


def test_a_version_switch_under_load_loses_no_request(server, model_dir):
    clients = Clients(server, clients=8, garbage_share=0.0)
    for version in (2, 3):
        write_version(model_dir, version, scale=5.0 + version)
        server.wait_for(f"version {version} is available")
        server.wait_for(f"version {version - 1} is unloaded")
    clients.stop()
    assert clients.failures == []
    assert sum(clients.good.values()) > 20
    status = ask(server, "/v1/models/colour")[1]["model_version_status"]
    assert [(row["version"], row["state"]) for row in status] == [
        ("3", "AVAILABLE"),
        ("2", "END"),
        ("1", "END"),
    ]


def test_more_requests_than_allowed_get_503_and_the_client_tries_again(server):
    body = encode("wait", [0.3])
    statuses = collections.Counter()

    def work() -> None:
        statuses[ask(server, PATH, body=body)[0]] += 1

    threads = [threading.Thread(target=work) for _ in range(60)]
    for thread in threads:
        thread.start()
    with Client(server.url, "colour", retries=20, backoff_s=0.05) as client:
        assert client.classify(colour_png("blue"), top=1)[0][0][0] == "blue"
    for thread in threads:
        thread.join()
    assert statuses[200] >= 1
    assert statuses[503] >= 1
    assert set(statuses) <= {200, 503, 504}


def test_a_request_that_takes_too_long_gets_504(server):
    start = time.monotonic()
    status, answer = ask(server, PATH, body=encode("wait", [5.0]))
    assert status == 504
    assert "within 3 s" in answer["error"]
    assert time.monotonic() - start < 5


def test_grpc_takes_eight_float_images(server):
    """They are 4.6 MiB: above gRPC's default for what a server receives."""
    images = np.random.default_rng(0).random((8, 224, 224, 3), np.float32)
    assert images.nbytes > 4 << 20
    with Client(server.grpc_url, "colour") as client:
        outputs = client.predict({"images": images}, "large")
    np.testing.assert_allclose(outputs["mean"], images.mean(axis=(1, 2, 3)), rtol=1e-4)


def test_grpc_and_rest_say_the_same(server):
    contents = [colour_png(colour) for colour in LABELS]
    with Client(server.url, "colour") as rest, Client(server.grpc_url, "colour") as grpc_client:
        assert [r[0][0] for r in grpc_client.classify(contents)] == LABELS
        for name in ("classes", "scores", "probabilities"):
            ours = grpc_client.predict({"image_bytes": contents}, "serve_bytes")[name]
            theirs = rest.predict({"image_bytes": contents}, "serve_bytes")[name]
            if name == "classes":
                assert ours == theirs
            else:
                np.testing.assert_allclose(ours, theirs, rtol=1e-6)
        assert grpc_client.status() == rest.status()
        assert grpc_client.metadata() == rest.metadata()


@pytest.mark.parametrize(
    ("model", "inputs", "signature", "status", "text"),
    [
        ("none", {"x": [1.0]}, "rows", 404, "Servable not found"),
        ("colour", {"x": [1.0]}, "none", 400, 'signature key "none" not found'),
        ("colour", {"y": [1.0]}, "rows", 400, r"takes the inputs \['x'\]"),
        ("colour", {"x": [[1.0]]}, "rows", 400, "Wrong shape"),
        ("colour", {"x": np.array([1], np.int32)}, "rows", 400, "Wrong type"),
        ("colour", {"x": np.zeros(0, np.float32)}, "rows", 400, "Empty"),
        ("colour", {"image_bytes": [b"no image"]}, "serve_bytes", 400, "image"),
    ],
)
def test_grpc_refuses_bad_requests(server, model, inputs, signature, status, text):
    with (
        Client(server.grpc_url, model, retries=0) as client,
        pytest.raises(ClientError, match=text) as caught,
    ):
        client.predict(inputs, signature)
    assert caught.value.status == status


def test_grpc_errors_have_the_codes_of_tensorflow_serving(server):
    """Codes and words of its source: model_servers/, servables/tensorflow/."""

    def spec(request, **fields):
        request.model_spec.name = "colour"
        for key, value in fields.items():
            if key == "version":
                request.model_spec.version.value = value
            else:
                setattr(request.model_spec, key, value)
        return request

    def predict(values=(1.0,), name="x", output=(), **fields):
        request = spec(predict_pb2.PredictRequest(), **({"signature_name": "rows"} | fields))
        request.inputs[name].CopyFrom(tf.make_tensor_proto(np.array(values, np.float32)))
        request.output_filter.extend(output)
        return request

    metadata, status = (
        get_model_metadata_pb2.GetModelMetadataRequest,
        get_model_status_pb2.GetModelStatusRequest,
    )
    field = {"metadata_field": ["signature_def"]}
    wait = predict([3.0], "seconds", signature_name="wait")
    cases = [
        ("Predict", predict_pb2.PredictRequest(), "INVALID_ARGUMENT", "Missing ModelSpec"),
        ("Predict", predict(name="y"), "INVALID_ARGUMENT", "takes the inputs"),
        ("Predict", predict(version=9), "NOT_FOUND", "Specific(colour, 9)"),
        ("Predict", predict(version_label="x"), "INVALID_ARGUMENT", "version label: x"),
        ("Predict", predict(signature_name="no"), "FAILED_PRECONDITION", 'key "no" not found'),
        ("Predict", predict(output=["no"]), "INVALID_ARGUMENT", "output_filter"),
        ("Predict", predict([1.0] * 9), "INVALID_ARGUMENT", "maximum input batch size 8"),
        ("Predict", predict([]), "INVALID_ARGUMENT", "Empty"),
        ("Predict", wait, "DEADLINE_EXCEEDED", ""),
        ("GetModelMetadata", spec(metadata()), "INVALID_ARGUMENT", "metadata_field"),
        ("GetModelMetadata", spec(metadata(**field), version=9), "NOT_FOUND", "colour, 9"),
        ("GetModelStatus", status(), "INVALID_ARGUMENT", "Missing ModelSpec"),
        ("GetModelStatus", spec(status(), version=9), "NOT_FOUND", "version 9 of model colour"),
        ("Classify", spec(classification_pb2.ClassificationRequest()), "UNIMPLEMENTED", "Predict"),
        ("Regress", spec(regression_pb2.RegressionRequest()), "UNIMPLEMENTED", "Predict"),
    ]
    with grpc.insecure_channel(server.grpc_url.removeprefix("grpc://")) as channel:
        prediction = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        models = model_service_pb2_grpc.ModelServiceStub(channel)
        for method, request, code, text in cases:
            stub = models if method == "GetModelStatus" else prediction
            with pytest.raises(grpc.RpcError) as caught:
                getattr(stub, method)(request, timeout=0.5 if request is wait else 20)
            assert (caught.value.code().name, method) == (code, method), caught.value
            assert text in caught.value.details()
        for method, request, code, _ in cases:  # one line in the log for each
            server.wait_for(f" gRPC {method} {request.model_spec.name} {code} ")
        outputs = prediction.Predict(predict(), timeout=20).outputs
        assert tf.make_ndarray(outputs["rows"]).tolist() == [1.0]
        ready = models.GetModelStatus(spec(status()), timeout=20).model_version_status[0]
        assert ready.state == get_model_status_pb2.ModelVersionStatus.AVAILABLE


def test_grpc_survives_a_tensor_that_lies_about_its_shape(server):
    with grpc.insecure_channel(server.grpc_url.removeprefix("grpc://")) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        request = predict_pb2.PredictRequest()
        request.model_spec.name = "colour"
        request.model_spec.signature_name = "rows"
        proto = tf.make_tensor_proto(np.ones(3, np.float32))
        proto.tensor_shape.dim[0].size = 1 << 40
        bomb = tf.make_tensor_proto(1.0, shape=[2])
        bomb.tensor_shape.dim[0].size = 1 << 34  # 64 GiB of ones from a few bytes
        for bad in (proto, bomb):
            request.inputs["x"].CopyFrom(bad)
            with pytest.raises(grpc.RpcError) as caught:
                stub.Predict(request, timeout=20)
            assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        request.inputs["x"].CopyFrom(tf.make_tensor_proto(np.ones(3, np.float32)))
        request.output_filter.append("rows")
        response = stub.Predict(request, timeout=20)
        assert response.model_spec.signature_name == "rows"
        assert tf.make_ndarray(response.outputs["rows"]).tolist() == [4, 4, 4]


def test_sigterm_finishes_the_requests_in_flight(server):
    """The last test: it ends the server of this module."""
    body = encode("wait", [1.0])
    results = []

    def rest() -> None:
        results.append(ask(server, PATH, body=body)[0])

    def over_grpc() -> None:
        with Client(server.grpc_url, "colour", retries=0) as client:
            results.append(client.predict({"seconds": [1.0]}, "wait")["seconds"])

    threads = [threading.Thread(target=target) for target in (rest, rest, over_grpc)]
    for thread in threads:
        thread.start()
    end = time.monotonic() + 20
    while metric(server, "lightnets_serving_requests_in_flight") < 3:
        assert time.monotonic() < end
    server.process.send_signal(signal.SIGTERM)
    assert server.wait_exit() == 0
    for thread in threads:
        thread.join()
    assert sorted(map(str, results)) == ["200", "200", "[1.0]"]
    assert server.output.endswith("Stopped")
    with pytest.raises(ConnectionRefusedError):
        ask(server, "/v1/models/colour")
