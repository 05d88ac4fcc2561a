"""The files with which servers are started: read as a container engine or cluster reads them."""

from __future__ import annotations

import http.server
import os
import pathlib
import re
import subprocess
import threading

import pytest
import yaml

from keras_lightnets.export import bundle, deployment, models_config, tf_serving
from keras_lightnets.export.tf_serving import GRPC_PORT, REST_PORT
from keras_lightnets.serving.server import layout
from tests.checkout import ROOT

# What the Compose specification and KServe's API reference know of what is used here.
SERVICE = {"image", "ports", "volumes", "command", "healthcheck", "restart"}
HEALTHCHECK = {"test", "interval", "timeout", "start_period", "retries"}
# No "scaleMetric": one of Knative's is refused by an autoscaler that has only cpu and memory.
PREDICTOR = {"minReplicas", "maxReplicas", "model"}
MODEL = {"modelFormat", "runtimeVersion", "storageUri", "resources"}


def write(base_dir, name, version=1, gpu=False):
    """Writes the files for a model as an export does; returns what it says."""
    staged = base_dir / ".staged"
    staged.mkdir()
    notes = deployment.stage_ready_files(base_dir, staged, name, version, [1, 8], gpu)
    published = base_dir / name / str(version)
    published.mkdir(parents=True)
    (published / "saved_model.pb").touch()
    deployment.place_ready_files(base_dir, staged)
    staged.rmdir()
    return notes


@pytest.fixture
def ready(tmp_path):
    """The files for two models."""
    for name in ("Mobile.Net_v2", "digits"):
        assert write(tmp_path, name) == []
    return tmp_path


def entries(ready):
    return {entry.name: entry for entry in models_config.read(ready / "models.config")}


def test_a_server_with_a_gpu_is_asked_for_and_stays(tmp_path):
    for number, gpu in enumerate((False, True, False)):  # the last model runs there too
        write(tmp_path, f"model{number}", gpu=gpu)
        (service,) = yaml.safe_load((tmp_path / "compose.yaml").read_text())["services"].values()
        model = next(yaml.safe_load_all((tmp_path / "kserve.yaml").read_text()))
        model = model["spec"]["predictor"]["model"]
        if number == 0:
            assert service["image"] == tf_serving.IMAGE
            assert "nvidia.com/gpu" not in model["resources"]["limits"]
            continue
        assert service["image"] == f"{tf_serving.IMAGE}-gpu"
        assert service.keys() == SERVICE | {"deploy"}
        devices = service["deploy"]["resources"]["reservations"]["devices"]
        assert devices == [{"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}]
        assert model["runtimeVersion"].endswith("-gpu")
        assert model["resources"]["limits"]["nvidia.com/gpu"] == "1"


def test_compose_mounts_what_its_flags_name(ready):
    (service,) = yaml.safe_load((ready / "compose.yaml").read_text())["services"].values()
    assert service.keys() == SERVICE
    assert service["healthcheck"].keys() <= HEALTHCHECK
    assert service["image"] == tf_serving.IMAGE
    # To this machine alone, under the ports that the image's start script opens.
    assert service["ports"] == [f"127.0.0.1:{port}:{port}" for port in (GRPC_PORT, REST_PORT)]
    (mount,) = service["volumes"]
    source, target, mode = mount.split(":")
    assert (source, mode) == (".", "ro")
    flags = dict(flag.removeprefix("--").partition("=")[::2] for flag in service["command"])
    assert flags.keys() == {
        "model_config_file",
        "allow_version_labels_for_unavailable_models",
        "monitoring_config_file",
        "enable_batching",
        "batching_parameters_file",
    }
    for path in set(flags.values()) - {"", "true"}:
        assert (ready / pathlib.PurePosixPath(path).relative_to(target)).is_file()
    paths = {name: entry.base_path for name, entry in entries(ready).items()}
    assert paths == {name: f"{target}/{name}" for name in ("Mobile.Net_v2", "digits")}
    # Its message is not among the published ones.
    monitoring = (ready / "monitoring.config").read_text().split()
    assert monitoring == [
        "prometheus_config",
        "{",
        "enable:",
        "true",
        "path:",
        '"/monitoring/prometheus/metrics"',
        "}",
    ]


class Status(http.server.BaseHTTPRequestHandler):
    """Answers as a server does whose model `name` has the version `rows[name]`."""

    rows: dict[str, str]

    def do_GET(self):
        row = self.rows[self.path.removeprefix("/v1/models/")]
        self.send_response(200)
        self.end_headers()
        self.wfile.write(f'{{"model_version_status": [{row}]}}'.encode())

    def log_message(self, *args):
        pass


def is_healthy(ready, states):
    """Runs the health check of `compose.yaml` while models have `states`: state and error."""
    row = '{{"version": "1", "state": "{}", "status": {{"error_code": "{}"}}}}'
    rows = {name: row.format(*state) for name, state in states.items()}
    handler = type("Handler", (Status,), {"rows": rows})
    (service,) = yaml.safe_load((ready / "compose.yaml").read_text())["services"].values()
    kind, *command = service["healthcheck"]["test"]
    assert kind == "CMD"
    script = command[-1].replace("$$", "$")  # as Compose does; a single one is a variable of its
    assert not re.search("curl|wget|python", script)  # the image has none of them
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        port = server.server_port if states else 1
        script = script.replace(f"/{REST_PORT}", f"/{port}").replace("/models/m", f"{ready}/m")
        result = subprocess.run([*command[:-1], script], capture_output=True, timeout=30)
        server.shutdown()
        thread.join()
    return result.returncode == 0


GOOD, LOADING, FAILED = ("AVAILABLE", "OK"), ("LOADING", "OK"), ("END", "UNAVAILABLE")


@pytest.mark.parametrize(
    ("first", "second", "healthy"),
    [
        (GOOD, GOOD, True),
        (GOOD, LOADING, False),
        (LOADING, GOOD, False),
        (GOOD, FAILED, False),
    ],
)
def test_the_health_check_reads_the_state_of_every_model(ready, first, second, healthy):
    """Caught: the word UNAVAILABLE of a version that could not be loaded counts as available."""
    assert is_healthy(ready, {"Mobile.Net_v2": first, "digits": second}) is healthy


def test_the_health_check_asks_for_the_models_that_the_server_was_told_to_serve(ready):
    config = 'model_config_list { config { name: "mine" base_path: "/m" }  # name: "old"\n}'
    (ready / "models.config").write_text(config)
    assert is_healthy(ready, {"mine": GOOD})
    assert not is_healthy(ready, {"mine": LOADING})
    (ready / "models.config").write_text("model_config_list {}")
    assert not is_healthy(ready, {"mine": GOOD})


def test_a_server_that_is_not_there_is_not_healthy(ready):
    assert not is_healthy(ready, {})


OPERATORS = """# Ours. Ask before you change it. }
model_config_list {
  config {
    name: "Mobile.Net_v2"  # pinned: "3" is worse
    base_path: "/models/Mobile.Net_v2"
    model_version_policy { specific { versions: 1 } }
    version_labels { key: "stable" value: 1 }
  }
}
"""


def test_a_changed_models_config_keeps_its_pins_labels_and_comments(ready):
    # Mutation: every export writes the file anew, and the next restart serves another version.
    (ready / "models.config").write_text(OPERATORS)
    (note,) = write(ready, "Mobile.Net_v2", 2)
    assert note.endswith("'Mobile.Net_v2' stays at version 1, version 2 is not served.")
    assert (ready / "models.config").read_text() == OPERATORS
    write(ready, "third")
    text = (ready / "models.config").read_text()
    assert text.replace(models_config.entry("third", "/models/third"), "") == OPERATORS
    # "digits" was left out by whoever changed the file: it stays out.
    assert list(entries(ready)) == ["Mobile.Net_v2", "third"]
    pinned = entries(ready)["Mobile.Net_v2"]
    assert list(pinned.model_version_policy.specific.versions) == [1]
    assert dict(pinned.version_labels) == {"stable": 1}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("model_config_list {", "no entry was added, since"),
        ("custom_model_config {}", "no entry was added, since no brace at its end closes"),
        ("# none }", "no entry was added, since no brace at its end closes"),
    ],
)
def test_a_models_config_that_cannot_be_extended_is_left_alone(ready, text, reason):
    (ready / "models.config").write_text(text)
    first, second = write(ready, "third")
    assert first.startswith(f"{ready}/models.config: {reason}")
    assert second.endswith(
        "models.config was changed and stays; compare it with models.config.new."
    )
    assert (ready / "models.config").read_text() == text
    (ready / "models.config.new").replace(ready / "models.config")
    assert list(entries(ready)) == ["Mobile.Net_v2", "digits", "third"]


def test_what_does_not_fit_in_a_changed_models_config_is_named(ready):
    text = OPERATORS.replace("/models/Mobile.Net_v2", "/models/MobileNet_v2")
    text += OPERATORS.replace("Mobile.Net_v2", "digits").partition("{\n")[2]
    text = text.replace('  }\n}\n  config {\n    name: "digits"', '  }\n  config {\n    name: "x"')
    text = text.replace("  }\n}", '  }\n  config { name: "x" base_path: "/models/digits/" }\n}')
    (ready / "models.config").write_text(text)
    notes = [note.partition("models.config: ")[2] for note in write(ready, "digits", 2)]
    assert notes[:3] == [
        "two entries have the name 'x'.",
        "two entries have the base_path '/models/digits'.",
        "no folder 'MobileNet_v2' is here, which base_path of 'Mobile.Net_v2' names: "
        "is it Mobile.Net_v2?.",
    ]
    with pytest.raises(ValueError, match=r"models\.config: two entries have the name 'x'"):
        layout.served_models(ready)


@pytest.mark.parametrize("file", ["compose.yaml", "kserve.yaml", "README.md"])
def test_a_changed_file_is_never_overwritten(ready, file):
    # Mutation: the digest is not compared.
    ours = (ready / file).read_text()
    changed = ours.replace("memory", "Memory", 1).replace("/models", "/Models", 1)
    (ready / file).write_text(changed)
    (note,) = write(ready, "third")
    assert note == f"{ready / file} was changed and stays; compare it with {file}.new."
    assert (ready / file).read_text() == changed
    assert "third" in (ready / f"{file}.new").read_text() or file == "compose.yaml"
    assert write(ready, "third", 2) == []  # said once
    (ready / f"{file}.new").replace(ready / file)
    write(ready, "fourth")
    assert not list(ready.glob("*.new"))
    (ready / file).write_text("")
    assert write(ready, "fourth", 2) != []
    assert (ready / file).read_text() == ""


def test_files_are_readable_for_a_server_of_another_user(tmp_path):
    before = os.umask(0o077)
    try:
        with bundle.staging(tmp_path / "base" / "net") as staged:
            bundle.write_extra(staged / "extra", ["a"], {})
            bundle.publish(staged, tmp_path / "base" / "net" / "1")
        write(tmp_path / "base", "other")
    finally:
        os.umask(before)
    made = [path for path in (tmp_path / "base").rglob("*") if "other" not in path.parts]
    assert len(made) == 6 + 6
    for path in [tmp_path / "base", *made]:
        assert path.stat().st_mode & 0o777 == (0o755 if path.is_dir() else 0o644), path


def test_kserve_gets_every_model_with_autoscaling(ready):
    documents = list(yaml.safe_load_all((ready / "kserve.yaml").read_text()))
    assert [d["metadata"]["name"] for d in documents] == ["mobile-net-v2", "digits"]
    for document, name in zip(documents, ("Mobile.Net_v2", "digits"), strict=True):
        assert document["apiVersion"] == "serving.kserve.io/v1beta1"
        assert document["kind"] == "InferenceService"
        predictor = document["spec"]["predictor"]
        assert predictor.keys() == PREDICTOR
        assert predictor["minReplicas"] < predictor["maxReplicas"]
        model = predictor["model"]
        assert model.keys() == MODEL
        assert model["modelFormat"] == {"name": "tensorflow", "version": "2"}
        assert f"tensorflow/serving:{model['runtimeVersion']}" == tf_serving.IMAGE
        assert model["storageUri"] == f"pvc://models/{name}"
        assert model["resources"].keys() == {"requests", "limits"}


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["A.b_C"], ["a-b-c"]),
        (["3net"], ["model-3net"]),
        (["x_"], ["x"]),
        (["a.b", "a_b"], ["a-b-x", "a-b-x"]),
        (["a-b", "a.b", "a_b"], ["a-b", "a-b-x", "a-b-x"]),
        (["y" * 63, "y" * 63 + "z"], ["y" * 38 + "-x", "y" * 38 + "-x"]),
    ],
)
def test_names_that_a_cluster_takes(names, expected):
    hosts = deployment.kubernetes_names(names)
    assert list(hosts) == names
    assert [re.sub("-[0-9a-f]{6}$", "-x", host) for host in hosts.values()] == expected
    assert len(set(hosts.values())) == len(names)
    assert hosts == deployment.kubernetes_names(names)  # the same at the next export
    for host in hosts.values():
        assert re.fullmatch("[a-z]([-a-z0-9]*[a-z0-9])?", host)
        assert len(f"{host}-predictor-default") <= 63


def test_documents_name_the_same_image(ready):
    assert f"`{tf_serving.IMAGE}`" in (ROOT / "docs" / "serving-server.md").read_text()
    assert tf_serving.IMAGE in (ready / "README.md").read_text()
    for path in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        tags = set(re.findall(r"tensorflow/serving:[\w.-]+", path.read_text()))
        assert tags <= {tf_serving.IMAGE}, path
