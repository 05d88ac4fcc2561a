"""`lightnets serve`: what it starts, what it says, and what it says when it cannot."""

from __future__ import annotations

import pathlib
import signal
import socket
import stat
import subprocess
import sys
import textwrap

import pytest
import tensorflow as tf
from google.protobuf import text_format
from tensorflow_serving.apis import prediction_log_pb2
from tensorflow_serving.config import model_server_config_pb2

from keras_lightnets.export import models_config
from keras_lightnets.serving import Client, ClientError
from keras_lightnets.serving.server import grpc_api, layout, model_server
from keras_lightnets.serving.server.errors import ServingError
from keras_lightnets.serving.server.options import ServerOptions
from lightnets.cli import main
from tests.serving_models import ServeProcess, colour_png, write_version


def fake_version(base_path: pathlib.Path, version: int = 1) -> pathlib.Path:
    """What a model looks like from outside."""
    path = base_path / str(version)
    path.mkdir(parents=True)
    (path / "saved_model.pb").write_bytes(b"not a graph")
    return path


@pytest.fixture
def bundle(tmp_path):
    fake_version(tmp_path / "bundle" / "colour")
    return tmp_path / "bundle"


def complaint(capsys) -> str:
    out, err = capsys.readouterr()
    assert "Traceback" not in out + err
    assert err.count("\n") == 1
    return err


FREE = ("--rest-port", "0", "--port", "0")


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["missing"], 1, "No such directory: missing"),
        (["bundle", "--model-name", "shape"], 1, "No model 'shape'; found: colour"),
        (["bundle", "--engine", "binary", *FREE], 1, "tensorflow_model_server is not on PATH"),
        (["bundle", "--batching-parameters-file", "none"], 1, "No such file: none"),
        (["bundle", "--rest-port", "70000"], 2, "`rest_port` must be 0 to 65535"),
        (["bundle", "--max-requests", "-1"], 2, "`max_requests` must not be negative"),
        (["bundle", "--engin", "binary"], 2, "--engine"),
        (["bundle", "--engine", "podman"], 2, "must be one of"),
        ([], 2, "directory"),
    ],
)
def test_bad_arguments_get_one_line(bundle, capsys, monkeypatch, arguments, code, text):
    monkeypatch.chdir(bundle.parent)
    monkeypatch.setenv("PATH", "")
    assert main(["serve", *arguments]) == code
    assert text in complaint(capsys)


def test_a_directory_without_versions_is_explained(tmp_path, capsys):
    (tmp_path / "m" / "v0.1").mkdir(parents=True)
    (tmp_path / "m" / "v0.1" / "saved_model.pb").touch()
    (tmp_path / "m" / "1").mkdir()
    assert main(["serve", str(tmp_path)]) == 1
    assert "<model>/<integer>/saved_model.pb" in complaint(capsys)


def test_an_unreadable_models_config_is_named(bundle, capsys):
    (bundle / "models.config").write_text("model_config { }")
    assert main(["serve", str(bundle)]) == 1
    assert "models.config is no valid models.config" in complaint(capsys)


def test_a_missing_extra_is_named(bundle):
    code = (
        "import sys; sys.modules['tornado'] = None;"
        f"from lightnets.cli import main; sys.exit(main(['serve', {str(bundle)!r}]))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 1
    assert result.stderr == (
        "lightnets: Serving needs tornado: pip install 'keras-lightnets[serve]'\n"
    )


@pytest.mark.parametrize(("flag", "api"), [("--rest-port", "REST"), ("--port", "gRPC")])
def test_a_port_in_use_is_said_at_once(bundle, capsys, flag, api):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ports = {"--rest-port": 0, "--port": 0} | {flag: port}
        arguments = [str(argument) for pair in ports.items() for argument in pair]
        assert main(["serve", str(bundle), *arguments]) == 1
    message = f"Cannot listen on 127.0.0.1:{port} ({api}): Address already in use\n"
    assert complaint(capsys) == f"lightnets: {message}"


def test_an_address_of_another_machine_is_refused(bundle, capsys):
    assert main(["serve", str(bundle), "--host", "192.0.2.1"]) == 1
    assert "Cannot listen on 192.0.2.1:8501 (REST): Cannot assign" in complaint(capsys)


def test_grpc_shares_its_port_with_nobody():
    """Caught: gRPC's default, with which two servers get every other request each."""
    with socket.create_server(("127.0.0.1", 0), reuse_port=True) as taken:
        options = ServerOptions(grpc_port=taken.getsockname()[1])
        with pytest.raises(ServingError, match=r"Cannot listen on .* \(gRPC\)"):
            grpc_api.GrpcServer(None, None, options)


def test_a_broken_model_is_one_line(bundle):
    process = ServeProcess(bundle, "--rest-port", 0, "--port", 0, forked=True)
    try:
        assert process.wait_exit() == 1
    finally:
        process.close()
    assert f"Cannot load model colour version 1 from {bundle}/colour/1: " in process.lines[-1]
    assert "Traceback" not in process.output


FAKE_SERVER = """
    #!{python}
    import http.server, json, pathlib, signal, sys
    flags = dict(a.removeprefix("--").split("=", 1) for a in sys.argv[1:])
    pathlib.Path({log!r}).write_text(json.dumps(flags))
    config = pathlib.Path(flags["model_config_file"]).read_text()
    pathlib.Path({config!r}).write_text(config)
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            row = {{"version": "1", "state": "AVAILABLE", "status": {{}}}}
            body = json.dumps({{"model_version_status": [row]}}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    http.server.HTTPServer(("127.0.0.1", int(flags["rest_api_port"])), Handler).serve_forever()
"""


@pytest.fixture
def fake_binary(tmp_path):
    """A `tensorflow_model_server` that notes its flags and reports an available model."""
    path = tmp_path / "bin" / model_server.BINARY
    path.parent.mkdir()
    script = textwrap.dedent(FAKE_SERVER).lstrip()
    path.write_text(
        script.format(
            python=sys.executable, log=str(tmp_path / "flags"), config=str(tmp_path / "config")
        )
    )
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def test_the_real_server_is_used_when_it_is_on_path(bundle, tmp_path, fake_binary):
    (bundle / layout.BATCHING_FILE).write_text("max_batch_size { value: 8 }")
    environment = {"PATH": str(fake_binary.parent)}
    process = ServeProcess(bundle, *FREE, env=environment, engine="auto")
    try:
        process.wait_ready()
        process.process.send_signal(signal.SIGTERM)
        assert process.wait_exit() == 0
    finally:
        process.close()
    assert "stand-in" not in process.output
    assert "listens on every address" in process.output
    flags = (tmp_path / "flags").read_text()
    assert '"enable_batching": "true"' in flags
    assert str(bundle / layout.BATCHING_FILE) in flags
    config = text_format.Parse(
        (tmp_path / "config").read_text(), model_server_config_pb2.ModelServerConfig()
    )
    (entry,) = config.model_config_list.config
    assert (entry.name, entry.base_path) == ("colour", str(bundle / "colour"))


def test_a_real_server_that_ends_is_reported(bundle, fake_binary):
    fake_binary.write_text(f"#!{sys.executable}\nimport sys; sys.exit(3)\n")
    environment = {"PATH": str(fake_binary.parent)}
    process = ServeProcess(bundle, *FREE, env=environment, engine="auto")
    try:
        assert process.wait_exit() == 1
    finally:
        process.close()
    assert "ended with exit code 3" in process.lines[-1]


def test_policies_and_labels_reach_the_real_server(bundle, tmp_path):
    (bundle / "models.config").write_text("""
        model_config_list { config {
          name: "a b" base_path: "/models/colour" model_platform: "tensorflow"
          model_version_policy { specific { versions: 1 versions: 2 } }
          version_labels { key: "stable" value: 1 }
          logging_config { sampling_config { sampling_rate: 0.5 } }
        } }""")
    (model,) = layout.served_models(bundle)
    work_dir = tmp_path / 'with "quotes"'
    work_dir.mkdir()
    command = model_server.command("x", [model], ServerOptions(), None, work_dir)
    assert "--allow_version_labels_for_unavailable_models=true" in command
    (given,) = models_config.read(bundle / "models.config")
    (written,) = models_config.read(work_dir / "models.config")
    assert (written.name, written.base_path) == ("a b", str(bundle / "colour"))
    written.base_path = given.base_path
    assert written == given


def test_help_and_mistakes_do_not_import_tensorflow(bundle):
    code = (
        "import sys; from lightnets.cli import main;"
        f"main(['serve', {str(bundle)!r}, '--model-name', 'no']);"
        "sys.exit('tensorflow' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def write_warmup(version: pathlib.Path, value: list) -> None:
    """Two recorded requests to signature `rows`."""
    log = prediction_log_pb2.PredictionLog()
    request = log.predict_log.request
    request.model_spec.name, request.model_spec.signature_name = "colour", "rows"
    request.inputs["x"].CopyFrom(tf.make_tensor_proto(value))
    (version / "assets.extra").mkdir()
    path = version / "assets.extra" / "tf_serving_warmup_requests"
    with tf.io.TFRecordWriter(str(path)) as writer:
        for _ in range(2):
            writer.write(log.SerializeToString())


def test_warm_up_requests_run_before_a_version_answers(tmp_path):
    """A version whose warm-up fails does not come into service."""
    write_warmup(write_version(tmp_path / "colour", 1), [1.0, 2.0])
    broken = write_version(tmp_path / "later", 2)
    write_warmup(broken, [[1.0]])
    process = ServeProcess(
        tmp_path / "colour", "--rest-port", 0, "--port", 0, "--poll-seconds", 0.1, forked=True
    )
    try:
        process.wait_ready()
        assert "version 1 loaded, 2 warm-up requests" in process.output
        broken.rename(tmp_path / "colour" / "2")
        process.wait_for("version 2 not loaded: Wrong shape")
    finally:
        process.close()


def test_a_request_that_outlasts_the_drain_does_not_keep_the_server(tmp_path):
    write_version(tmp_path / "colour", 1)
    arguments = ("--rest-port", 0, "--port", 0, "--drain-seconds", 0.3)
    process = ServeProcess(tmp_path, *arguments, forked=True)
    try:
        process.wait_ready()
        with socket.create_connection(process.address) as connection:
            body = b'{"signature_name": "wait", "inputs": [100]}'
            head = (
                b"POST /v1/models/colour:predict HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"
            )
            connection.sendall(head % len(body) + body)
            with Client(process.url, "colour") as client:
                client.status()  # answered after the request above has arrived
            process.process.send_signal(signal.SIGTERM)
            assert process.wait_exit(30) == 1
    finally:
        process.close()
    assert "still running" in process.lines[-1]


RECEIVED_BY_ANOTHER_THREAD = """
import signal, threading, time
from lightnets.commands import serve

stop = serve._stop_event()

def receive():
    time.sleep(0.5)
    signal.pthread_kill(threading.get_ident(), signal.SIGTERM)
    time.sleep(60)

threading.Thread(target=receive, daemon=True).start()
serve._wait_for(stop)
print("stopped")
"""


def test_sigterm_that_another_thread_receives_ends_the_wait():
    command = [sys.executable, "-c", RECEIVED_BY_ANOTHER_THREAD]
    ended = subprocess.run(command, check=False, capture_output=True, text=True, timeout=30)
    assert (ended.returncode, ended.stdout) == (0, "stopped\n"), ended.stderr


def test_a_graph_that_never_returns_stops_neither_the_watch_nor_the_end(tmp_path):
    write_version(tmp_path / "colour", 1)
    limits = ("--request-seconds", 3, "--drain-seconds", 1, "--poll-seconds", 0.1)
    process = ServeProcess(tmp_path, "--rest-port", 0, "--port", 0, *limits, forked=True)
    try:
        process.wait_ready()
        with Client(process.url, "colour", retries=0) as client:
            with pytest.raises(ClientError, match=r"within 3 s"):
                client.predict({"seconds": [1000.0]}, "wait")
            for version in (2, 3):
                write_version(tmp_path / "colour", version)
                process.wait_for(f"version {version} is available")
            process.wait_for("version 2 is unloaded")
            assert client.classify(colour_png("red"), top=1)[0][0][0] == "red"
        process.process.send_signal(signal.SIGTERM)
        assert process.wait_exit(60) == 1
    finally:
        process.close()
    assert "still running" in process.lines[-1]


def test_a_run_is_told_to_be_exported_first(tmp_path, capsys):
    run = tmp_path / "my run"
    run.mkdir()
    (run / "config.yaml").touch()
    assert main(["serve", str(run)]) == 1
    assert f"Export it first: lightnets export '{run}' --out served" in capsys.readouterr().err
