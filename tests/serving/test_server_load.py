"""The embedded server under many clients: garbage, a version switch, gRPC, the drain."""

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
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from keras_lightnets.serving import Client, ClientError
from tests.serving_models import LABELS, ask, colour_png, resident_mib, serving, write_version

PATH = "/v1/models/colour:predict"


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory):
    bundle = tmp_path_factory.mktemp("bundle")
    write_version(bundle / "colour", 1)
    return bundle / "colour"


@pytest.fixture(scope="module")
def server(model_dir):
    limits = ("--max-requests", 40, "--request-seconds", 6, "--drain-seconds", 20)
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
    encode("rows", [[1.0]]),
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


@pytest.mark.parametrize(
    "seconds", [pytest.param(4, id="short"), pytest.param(60, id="long", marks=pytest.mark.nightly)]
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
    status, answer = ask(server, PATH, body=encode("wait", [9.0]))
    assert status == 504
    assert "within 6 s" in answer["error"]
    assert time.monotonic() - start < 9


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
        ("Predict", predict(output=["no"]), "INVALID_ARGUMENT", "alias not found in signature"),
        ("Predict", predict(output=["rows"] * 2), "INVALID_ARGUMENT", "duplicate output tensor"),
        ("Predict", wait, "DEADLINE_EXCEEDED", ""),
        ("GetModelMetadata", spec(metadata()), "INVALID_ARGUMENT", "at least one metadata_field"),
        ("GetModelMetadata", spec(metadata(metadata_field=["x"])), "INVALID_ARGUMENT", "field x"),
        ("GetModelMetadata", spec(metadata(**field), version=9), "NOT_FOUND", "colour, 9"),
        ("GetModelStatus", status(), "INVALID_ARGUMENT", "Missing ModelSpec"),
        ("GetModelStatus", spec(status(), version=9), "NOT_FOUND", "version 9 of model colour"),
        ("Classify", spec(classification_pb2.ClassificationRequest()), "UNIMPLEMENTED", ""),
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
        for method, request, code, _ in cases[:-1]:  # one line in the log for each
            server.wait_for(f" gRPC {method} {request.model_spec.name} {code} ")
        outputs = prediction.Predict(predict(), timeout=20).outputs
        assert tf.make_ndarray(outputs["rows"]).tolist() == [1.0]
        outputs = prediction.Predict(predict([]), timeout=20).outputs
        assert tf.make_ndarray(outputs["rows"]).tolist() == []
        ready = models.GetModelStatus(spec(status()), timeout=20).model_version_status[0]
        assert ready.state == get_model_status_pb2.ModelVersionStatus.AVAILABLE


def test_grpc_refuses_a_tensor_before_it_is_made(server):
    """Caught: 40 bytes that stand for 2 GB, made before the input's name was looked at."""
    ones = tf.make_tensor_proto(np.ones(3, np.float32))

    def tensor(size, value=1.0, dtype=tf.float32):
        proto = tf.make_tensor_proto(value, dtype, shape=[2])
        proto.tensor_shape.dim[0].size = size
        return proto

    unknown_rank = tf.make_tensor_proto([1.0])
    unknown_rank.tensor_shape.unknown_rank = True
    cut = tf.make_tensor_proto(np.ones(3, np.float32))
    cut.tensor_content = cut.tensor_content[:-1]
    bad = [
        ({"x": tensor(1 << 28)}, "is above"),
        ({"x": tensor(1 << 40)}, "is above"),
        ({"x": tensor(-1)}, "no valid shape"),
        ({"x": unknown_rank}, "no valid shape"),
        ({"x": ones, "y": tensor(1 << 28)}, "takes"),
        ({"y": tensor(1 << 28)}, "takes the inputs"),
        ({"x": tensor(1 << 28, 1, tf.int64)}, "Wrong type"),
        ({"x": type(ones)(dtype=99)}, "no valid dtype"),
        ({"x": cut}, "no valid tensor"),
    ]
    before = resident_mib(server)
    with grpc.insecure_channel(server.grpc_url.removeprefix("grpc://")) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)

        def ask_grpc(inputs, **fields):
            request = predict_pb2.PredictRequest(**fields)
            request.model_spec.name, request.model_spec.signature_name = "colour", "rows"
            for name, proto in inputs.items():
                request.inputs[name].CopyFrom(proto)
            return stub.Predict(request, timeout=20)

        for inputs, text in bad:
            with pytest.raises(grpc.RpcError, match=text) as caught:
                ask_grpc(inputs)
            assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert resident_mib(server) < before + 60
        response = ask_grpc({"x": ones}, output_filter=["rows"])
        assert response.model_spec.signature_name == "rows"
        assert tf.make_ndarray(response.outputs["rows"]).tolist() == [3, 3, 3]


def test_grpc_tells_its_health(server):
    with grpc.insecure_channel(server.grpc_url.removeprefix("grpc://")) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=20)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_sigterm_finishes_the_requests_in_flight(server):
    """The last test: it ends the server of this module."""
    body = encode("wait", [1.0])
    head = b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"
    request = predict_pb2.PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = "colour", "wait"
    request.inputs["seconds"].CopyFrom(tf.make_tensor_proto([1.0]))
    with (
        socket.create_connection(server.address, timeout=60) as rest,
        grpc.insecure_channel(server.grpc_url.removeprefix("grpc://")) as channel,
    ):
        rest.sendall(head % (PATH.encode(), len(body)) + body)
        answer = prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict.future(request)
        # Answered after the requests before them have arrived.
        assert ask(server, "/v1/models/colour")[0] == 200
        health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=20)
        server.process.send_signal(signal.SIGTERM)
        assert rest.recv(100).startswith(b"HTTP/1.1 200")
        assert tf.make_ndarray(answer.result(60).outputs["seconds"]).tolist() == [1.0]
    assert server.wait_exit() == 0
    assert server.output.endswith("Stopped")
    with pytest.raises(ConnectionRefusedError):
        ask(server, "/v1/models/colour")
