"""The files with which servers are started: read as a container engine or cluster reads them."""

from __future__ import annotations

import http.server
import json
import os
import pathlib
import re
import shutil
import subprocess
import threading
from importlib import metadata

import kubernetes_validate
import onnx
import pytest
import yaml
from onnx import helper

from keras_lightnets.export import bundle, deployment, models_config, tf_serving
from keras_lightnets.export.tf_serving import GRPC_PORT, REST_PORT
from keras_lightnets.serving.server import layout
from tests.checkout import ROOT

# What the Compose specification and KServe's API reference know of what is used here.
SERVICE = {"image", "ports", "volumes", "command", "healthcheck", "restart", "user", "read_only"}
SERVICE |= {"tmpfs", "cap_drop", "security_opt", "stop_grace_period", "deploy"}
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
    shutil.rmtree(staged)
    return notes


@pytest.fixture
def ready(tmp_path):
    """The files for two models."""
    for name in ("Mobile.Net_v2", "digits"):
        assert write(tmp_path, name) == []
    return tmp_path


def documents(ready, file):
    return yaml.safe_load_all((ready / "deploy" / file).read_text())


def entries(ready):
    return {entry.name: entry for entry in models_config.read(ready / "models.config")}


def test_a_server_with_a_gpu_is_asked_for_and_stays(tmp_path):
    for number, gpu in enumerate((False, True, False)):  # the last model runs there too
        write(tmp_path, f"model{number}", gpu=gpu)
        (service,) = yaml.safe_load((tmp_path / "compose.yaml").read_text())["services"].values()
        model = next(documents(tmp_path, "kserve.yaml"))["spec"]["predictor"]["model"]
        pod = next(documents(tmp_path, "kubernetes.yaml"))["spec"]["template"]["spec"]
        limits = [each["resources"]["limits"] for each in (model, pod["containers"][0])]
        image = f"{tf_serving.IMAGE}-gpu" if number else tf_serving.IMAGE
        assert service["image"] == f"{image}${{TF_SERVING_DIGEST:-}}"
        assert pod["containers"][0]["image"] == image
        assert image.endswith(f":{model['runtimeVersion']}")
        assert [each.get("nvidia.com/gpu") for each in limits] == ["1" if number else None] * 2
        devices = [{"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}] if number else []
        asked = service["deploy"]["resources"].get("reservations", {"devices": []})["devices"]
        assert asked == devices
        assert not re.search("GPU|{[a-z]", (tmp_path / "compose.yaml").read_text())


def test_compose_mounts_what_its_flags_name(ready):
    (service,) = yaml.safe_load((ready / "compose.yaml").read_text())["services"].values()
    assert service.keys() == SERVICE
    hardened = {"read_only": True, "cap_drop": ["ALL"], "user": "1000:1000"}
    assert service | hardened == service
    assert service["healthcheck"].keys() <= HEALTHCHECK
    # To this machine alone, under the ports that the image's start script opens.
    assert service["ports"] == [f"127.0.0.1:{port}:{port}" for port in (GRPC_PORT, REST_PORT)]
    (mount,) = service["volumes"]
    source, target, mode = mount.split(":")
    assert (source, mode) == (".", "ro")
    flags = dict(flag.removeprefix("--").partition("=")[::2] for flag in service["command"])
    limits = service["deploy"]["resources"]["limits"]
    files = {"model_config_file", "monitoring_config_file", "batching_parameters_file"}
    assert {key: value for key, value in flags.items() if key not in files} == {
        "model_config_file_poll_wait_seconds": "10",
        "allow_version_labels_for_unavailable_models": "true",
        "enable_batching": "",
        "enable_grpc_healthcheck_service": "true",
        # Else it takes as many threads as the machine has processors.
        "tensorflow_intra_op_parallelism": limits["cpus"],
        "tensorflow_inter_op_parallelism": limits["cpus"],
    }
    for path in map(flags.get, files):
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


@pytest.mark.parametrize("file", ["compose.yaml", "deploy/kserve.yaml", "README.md"])
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
    assert len(made) == 6 + 5 + 8
    for path in [tmp_path / "base", *made]:
        assert path.stat().st_mode & 0o777 == (0o755 if path.is_dir() else 0o644), path


def test_kserve_gets_every_model_with_autoscaling(ready):
    services = list(documents(ready, "kserve.yaml"))
    assert [d["metadata"]["name"] for d in services] == ["mobile-net-v2", "digits"]
    for document, name in zip(services, ("Mobile.Net_v2", "digits"), strict=True):
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


def test_kubernetes_takes_the_files_and_starts_the_same_server(ready):
    """By Kubernetes' own schemas, without fields that they do not know."""
    write(ready, "digits", 12)
    found = [*documents(ready, "kubernetes.yaml"), *documents(ready, "selftest-job.yaml")]
    kinds = ["Deployment", "Service", "HorizontalPodAutoscaler", "PodDisruptionBudget"]
    assert [document["kind"] for document in found] == [*kinds, "Job", "Job"]
    for document in found:
        kubernetes_validate.validate(document, "1.31", strict=True)
    deployment, service, scaler, budget, *jobs = found
    template = deployment["spec"]["template"]
    (container,) = template["spec"]["containers"]
    (compose,) = yaml.safe_load((ready / "compose.yaml").read_text())["services"].values()
    cpus = compose["deploy"]["resources"]["limits"]["cpus"]
    assert container["args"] == [flag.replace(cpus, "$(CPUS)") for flag in compose["command"]]
    probes = [container[f"{kind}Probe"] for kind in ("startup", "readiness", "liveness")]
    script = compose["healthcheck"]["test"][-1].replace("$$", "$")
    assert [probe.get("exec", {}).get("command", [])[2:] for probe in probes] == [
        *[[script]] * 2,
        [],
    ]
    assert probes[2]["grpc"]["port"] == GRPC_PORT
    annotations = {k.rpartition("/")[2]: v for k, v in template["metadata"]["annotations"].items()}
    assert annotations.pop("path") in (ready / "monitoring.config").read_text()
    assert annotations == {"scrape": "true", "port": str(REST_PORT)}
    names = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert names == {"grpc": GRPC_PORT, "rest": REST_PORT}
    assert {port["targetPort"]: port["port"] for port in service["spec"]["ports"]} == names
    labels = template["metadata"]["labels"]
    assert deployment["spec"]["selector"]["matchLabels"] == labels == service["spec"]["selector"]
    assert budget["spec"]["selector"]["matchLabels"] == labels
    assert scaler["spec"]["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
    assert budget["spec"]["minAvailable"] < scaler["spec"]["minReplicas"]
    for pod in (template["spec"], *(job["spec"]["template"]["spec"] for job in jobs)):
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["containers"][0]["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
    commands = [job["spec"]["template"]["spec"]["containers"][0]["command"] for job in jobs]
    assert [command[1] for command in commands] == [
        f"/models/{version}/assets.extra/selftest.py"
        for version in ("Mobile.Net_v2/1", "digits/12")
    ]
    url = f"http://{service['metadata']['name']}:{REST_PORT}"
    assert [command[2] for command in commands] == [url] * 2


# Of TensorFlow Serving's and TensorFlow's source, as its exporter for Prometheus writes them.
METRICS = {
    ":tensorflow:serving:request_count": {"model_name", "status"},
    ":tensorflow:serving:request_latency": {"model_name", "API", "entrypoint"},
    ":tensorflow:serving:runtime_latency": {"model_name", "API", "runtime"},
    ":tensorflow:serving:batching_session:queuing_latency": {"thread_pool_name"},
    ":tensorflow:serving:batching_session:wrapped_run_count": set(),
    ":tensorflow:cc:saved_model:load_attempt_count": {"model_path", "status"},
}


def test_alerts_and_the_dashboard_ask_for_metrics_that_there_are(ready):
    rules = next(documents(ready, "prometheus-rules.yaml"))["groups"][0]["rules"]
    dashboard = json.loads((ready / "deploy" / "grafana-dashboard.json").read_text())
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    asked = [rule["expr"] for rule in rules]
    asked += [target["expr"] for panel in panels for target in panel["targets"]]
    for expression in asked:
        metrics = re.findall(r"(:tensorflow[\w:]+?)(_bucket|_sum|_count)?(?=[\[{)])", expression)
        names = {metric if metric in METRICS else metric + end for metric, end in metrics}
        assert names
        assert names <= METRICS.keys(), expression
        known = {"le"}.union(*(METRICS[name] for name in names))
        used = re.findall(r"by \(([\w, ]+)\)", expression)
        used = {label for group in used for label in group.split(", ")}
        assert used | set(re.findall(r'(\w+)[!=~]+"', expression)) <= known, expression
        assert expression.count("(") == expression.count(")")
    assert all(rule.keys() >= {"alert", "labels", "annotations"} for rule in rules)


def test_the_proxy_and_tls_name_what_is_there(ready):
    nginx = (ready / "deploy" / "nginx.conf").read_text()
    assert f"server 127.0.0.1:{REST_PORT};" in nginx
    assert re.search(r"client_max_body_size \d+m;", nginx)
    assert nginx.count("{") == nginx.count("}")
    fields = {"server_key", "server_cert", "custom_ca", "client_verify"}  # of SSLConfig
    ssl = (ready / "deploy" / "ssl.config").read_text()
    assert set(re.findall(r"(?m)^(\w+): ", ssl)) == fields


def test_tritons_file_names_what_the_onnx_file_has(tmp_path):
    """The README's commands lay out the folders of both servers."""
    image = helper.make_tensor_value_info("images", 1, [None, 32, 48, 3])
    answer = helper.make_tensor_value_info("Identity_7", 1, [None, 5])
    graph = helper.make_graph([], "net", [image], [answer])
    folder = tmp_path / "digits" / "1" / "formats"
    folder.mkdir(parents=True)
    onnx.save(helper.make_model(graph), folder / "model.onnx")
    text = deployment.triton_config(folder / "model.onnx", "digits", (32, 48), 5)
    assert re.findall(r'name: "(.+?)"', text) == ["digits", "images", "Identity_7", "labels.txt"]
    assert re.findall(r"dims: \[ (.+?) \]", text) == ["32, 48, 3", "5"]
    assert text.count("{") == text.count("}")
    assert '\nbackend: "onnxruntime"\n' in text
    for name in ("config.pbtxt", "labels.txt", "model.xml", "model.bin"):
        (folder / name).touch()
    write(tmp_path, "digits", 2)
    commands = re.findall(r"(?m)^    ((?:mkdir|cp) .*)$", (tmp_path / "README.md").read_text())
    assert len(commands) == 4
    subprocess.run(["bash", "-ec", "\n".join(commands)], cwd=tmp_path, check=True)
    triton, ovms = (
        {path.relative_to(tmp_path / kind).as_posix() for path in (tmp_path / kind).glob("*/**/*")}
        for kind in ("triton", "ovms")
    )
    files = ("1", "1/model.onnx", "config.pbtxt", "labels.txt")
    assert triton == {f"digits/{name}" for name in files}
    assert ovms == {f"digits/{name}" for name in ("1", "1/model.xml", "1/model.bin")}


def test_the_image_is_that_of_the_tensorflow_that_exports():
    minor = metadata.version("tensorflow").rpartition(".")[0]
    assert tf_serving.IMAGE.startswith(f"tensorflow/serving:{minor}.")


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
