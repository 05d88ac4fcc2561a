"""The files with which servers are started: read as a container engine or cluster reads them."""

from __future__ import annotations

import http.server
import pathlib
import re
import subprocess
import threading

import pytest
import yaml
from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2

from keras_lightnets.serving import deployment
from keras_lightnets.serving.server import engines
from keras_lightnets.serving.server.options import GRPC_PORT, METRICS_PATH, REST_PORT

ROOT = pathlib.Path(__file__).parent.parent

# What the Compose specification and KServe's API reference know of what is used here.
SERVICE = {"image", "ports", "volumes", "command", "healthcheck", "restart"}
HEALTHCHECK = {"test", "interval", "timeout", "start_period", "retries"}
PREDICTOR = {"minReplicas", "maxReplicas", "scaleMetric", "scaleTarget", "model"}
MODEL = {"modelFormat", "runtimeVersion", "storageUri", "resources"}


@pytest.fixture
def ready(tmp_path):
    """The files for two models, one of them published before."""
    version = tmp_path / "served" / "Mobile.Net_v2" / "3"
    version.mkdir(parents=True)
    (version / "saved_model.pb").touch()
    staged = tmp_path / "staged"
    staged.mkdir()
    files = deployment.stage_ready_files(tmp_path / "served", staged, "digits", [1, 8])
    deployment.place_ready_files(tmp_path / "served", files)
    return tmp_path / "served"


def test_compose_mounts_what_its_flags_name(ready):
    (service,) = yaml.safe_load((ready / "compose.yaml").read_text())["services"].values()
    assert service.keys() == SERVICE
    assert service["healthcheck"].keys() <= HEALTHCHECK
    assert service["image"] == engines.IMAGE
    # To this machine alone, under the ports that the image's start script opens.
    assert service["ports"] == [f"127.0.0.1:{port}:{port}" for port in (GRPC_PORT, REST_PORT)]
    (mount,) = service["volumes"]
    source, target, mode = mount.split(":")
    assert (source, mode) == (".", "ro")
    flags = dict(flag.removeprefix("--").partition("=")[::2] for flag in service["command"])
    assert flags.keys() == {
        "model_config_file",
        "monitoring_config_file",
        "enable_batching",
        "batching_parameters_file",
    }
    for path in filter(None, flags.values()):
        assert (ready / pathlib.PurePosixPath(path).relative_to(target)).is_file()
    config = model_server_config_pb2.ModelServerConfig()
    text_format.Parse((ready / "models.config").read_text(), config)
    entries = {entry.name: entry.base_path for entry in config.model_config_list.config}
    assert entries == {name: f"{target}/{name}" for name in ("Mobile.Net_v2", "digits")}
    # Its message is not among the published ones.
    monitoring = (ready / "monitoring.config").read_text().split()
    assert monitoring == [
        "prometheus_config",
        "{",
        "enable:",
        "true",
        "path:",
        f'"{METRICS_PATH}"',
        "}",
    ]


@pytest.mark.parametrize(
    ("state", "error", "healthy"),
    [("AVAILABLE", "OK", True), ("LOADING", "OK", False), ("END", "UNAVAILABLE", False)],
)
def test_the_health_check_reads_the_state(ready, state, error, healthy):
    """Caught: the word UNAVAILABLE of a version that could not be loaded counts as available."""
    row = f'{{"version": "1", "state": "{state}", "status": {{"error_code": "{error}"}}}}'
    paths = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            paths.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(f'{{"model_version_status": [{row}]}}'.encode())

        def log_message(self, *args):
            pass

    (service,) = yaml.safe_load((ready / "compose.yaml").read_text())["services"].values()
    kind, *command = service["healthcheck"]["test"]
    assert kind == "CMD"
    assert not re.search("curl|wget|python", command[-1])  # the image has none of them
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        command[-1] = command[-1].replace(f"/{REST_PORT}", f"/{server.server_port}")
        result = subprocess.run(command, capture_output=True, timeout=30)
        server.shutdown()
        thread.join()
    assert (result.returncode == 0) is healthy, result.stderr
    assert paths == ["/v1/models/Mobile.Net_v2"]


def test_a_server_that_is_not_there_is_not_healthy(ready):
    (service,) = yaml.safe_load((ready / "compose.yaml").read_text())["services"].values()
    _, *command = service["healthcheck"]["test"]
    command[-1] = command[-1].replace(f"/{REST_PORT}", "/1")
    assert subprocess.run(command, capture_output=True, timeout=30).returncode != 0


def test_kserve_gets_every_model_with_autoscaling(ready):
    documents = list(yaml.safe_load_all((ready / "kserve.yaml").read_text()))
    assert [d["metadata"]["name"] for d in documents] == ["mobile-net-v2", "digits"]
    for document, name in zip(documents, ("Mobile.Net_v2", "digits"), strict=True):
        assert document["apiVersion"] == "serving.kserve.io/v1beta1"
        assert document["kind"] == "InferenceService"
        predictor = document["spec"]["predictor"]
        assert predictor.keys() == PREDICTOR
        assert predictor["minReplicas"] < predictor["maxReplicas"]
        assert predictor["scaleMetric"] in {"cpu", "memory", "concurrency", "rps"}
        model = predictor["model"]
        assert model.keys() == MODEL
        assert model["modelFormat"] == {"name": "tensorflow", "version": "2"}
        assert f"tensorflow/serving:{model['runtimeVersion']}" == engines.IMAGE
        assert model["storageUri"] == f"pvc://models/{name}"
        assert model["resources"].keys() == {"requests", "limits"}


@pytest.mark.parametrize(
    ("name", "expected"),
    [("A.b_C", "a-b-c"), ("3net", "model-3net"), ("x_", "x"), ("y" * 80, "y" * 63)],
)
def test_names_that_a_cluster_takes(name, expected):
    assert deployment.kubernetes_name(name) == expected
    assert re.fullmatch("[a-z]([-a-z0-9]*[a-z0-9])?", expected)


def test_documents_name_the_same_image(ready):
    assert f"`{engines.IMAGE}`" in (ROOT / "docs" / "serving-server.md").read_text()
    assert engines.IMAGE in (ready / "README.md").read_text()
    for path in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        tags = set(re.findall(r"tensorflow/serving:[\w.-]+", path.read_text()))
        assert tags <= {engines.IMAGE}, path
