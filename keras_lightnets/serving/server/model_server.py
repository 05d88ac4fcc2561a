"""The real TensorFlow Serving, `tensorflow_model_server` or its official image, as a child."""

from __future__ import annotations

import pathlib
import shutil
import subprocess
import tempfile
import time
import uuid
from collections.abc import Sequence

from keras_lightnets.export import models_config
from keras_lightnets.export.models_config import MODELS_FILE
from keras_lightnets.export.tf_serving import (
    GRPC_PORT,
    IMAGE,
    LABELS_FLAG,
    MONITORING_CONFIG,
    REST_PORT,
)
from keras_lightnets.serving.client import Client
from keras_lightnets.serving.server.layout import ServedModel
from keras_lightnets.serving.server.options import ServerOptions
from keras_lightnets.serving.transport import ClientError

BINARY = "tensorflow_model_server"

# Where the container sees the models and this module's files.
_CONTAINER_MODELS = pathlib.PurePosixPath("/models")
_CONTAINER_CONFIG = pathlib.PurePosixPath("/config")


def find_binary() -> str | None:
    """The path of `tensorflow_model_server`, or None."""
    return shutil.which(BINARY)


def find_container_engine() -> str | None:
    """The path of `docker` or `podman`, or None."""
    return shutil.which("docker") or shutil.which("podman")


def binary_command(
    binary: str,
    models: Sequence[ServedModel],
    options: ServerOptions,
    batching_file: pathlib.Path | None,
    work_dir: pathlib.Path,
) -> list[str]:
    """The command that serves `models` with the real server.

    Args:
        binary: Path of `tensorflow_model_server`.
        models: What to serve.
        options: Addresses; the ports must be real ones, as 0 turns the API off there.
        batching_file: To merge requests by; None turns merging off.
        work_dir: Gets the `models.config` with the paths of this machine.
    """
    _write_configs(work_dir, [(model, str(model.base_path)) for model in models])
    # The REST API listens on every address in TF Serving: only gRPC can be bound.
    return [
        binary,
        f"--port={options.grpc_port}",
        f"--rest_api_port={options.rest_port}",
        *_flags(work_dir, batching_file),
    ]


def container_command(
    engine: str,
    models: Sequence[ServedModel],
    options: ServerOptions,
    batching_file: pathlib.Path | None,
    work_dir: pathlib.Path,
    name: str,
) -> list[str]:
    """The command that serves `models` with the official image, on the host's `options.host`.

    Args:
        engine: Path of `docker` or `podman`.
        models: What to serve.
        options: Addresses on the host.
        batching_file: To merge requests by; None turns merging off.
        work_dir: Gets the files that the container reads beside the models.
        name: The container's name, to stop it by.
    """
    _write_configs(work_dir, [(model, str(_CONTAINER_MODELS / model.name)) for model in models])
    mounts = [f"{model.base_path}:{_CONTAINER_MODELS / model.name}:ro" for model in models]
    if batching_file is not None:
        shutil.copy(batching_file, work_dir / batching_file.name)
        batching_file = pathlib.Path(_CONTAINER_CONFIG / batching_file.name)
    return [
        engine,
        "run",
        "--rm",
        "--init",
        f"--name={name}",
        f"--publish={options.host}:{options.rest_port}:{REST_PORT}",
        f"--publish={options.host}:{options.grpc_port}:{GRPC_PORT}",
        *(f"--volume={mount}" for mount in [*mounts, f"{work_dir}:{_CONTAINER_CONFIG}:ro"]),
        f"--entrypoint=/usr/bin/{BINARY}",
        IMAGE,
        f"--port={GRPC_PORT}",
        f"--rest_api_port={REST_PORT}",
        *_flags(pathlib.Path(_CONTAINER_CONFIG), batching_file),
    ]


def _flags(config_dir: pathlib.Path, batching_file: pathlib.Path | None) -> list[str]:
    flags = [
        f"--model_config_file={config_dir / MODELS_FILE}",
        LABELS_FLAG,
        f"--monitoring_config_file={config_dir / 'monitoring.config'}",
    ]
    if batching_file is not None:
        flags += ["--enable_batching=true", f"--batching_parameters_file={batching_file}"]
    return flags


def _write_configs(work_dir: pathlib.Path, models: Sequence[tuple[ServedModel, str]]) -> None:
    entries = (models_config.entry(model.name, path, model.config) for model, path in models)
    (work_dir / MODELS_FILE).write_text(models_config.text(entries), encoding="utf-8")
    (work_dir / "monitoring.config").write_text(MONITORING_CONFIG, encoding="utf-8")


class ModelServer:
    """`tensorflow_model_server`, or its container, as a child.

    Args:
        models: What to serve.
        options: Addresses; ports must not be 0.
        batching_file: To merge requests by; None turns merging off.
        container: Whether to run the official image instead of the binary.

    Raises:
        ValueError: The program needed is not on `PATH`.
    """

    def __init__(
        self,
        models: Sequence[ServedModel],
        options: ServerOptions,
        batching_file: pathlib.Path | None,
        container: bool,
    ) -> None:
        program = find_container_engine() if container else find_binary()
        if program is None:
            needed = "Neither docker nor podman is" if container else f"{BINARY} is not"
            raise ValueError(f"{needed} on PATH: use --engine embedded")
        self._models, self._options = models, options
        self._work_dir = tempfile.TemporaryDirectory(prefix="lightnets-serve-")
        work_dir = pathlib.Path(self._work_dir.name)
        work_dir.chmod(0o755)  # a container's user must be able to read it
        self._program = program
        self._container = f"lightnets-{uuid.uuid4().hex[:12]}" if container else None
        self._process: subprocess.Popen[bytes] | None = None
        if self._container:
            self.command = container_command(
                program, models, options, batching_file, work_dir, self._container
            )
        else:
            self.command = binary_command(program, models, options, batching_file, work_dir)

    def start(self, timeout_s: float = 300.0) -> None:
        """Starts the server and waits until every model is available.

        Raises:
            ClientError: The server ended, or is not ready in time (an image may be downloading).
        """
        self._process = subprocess.Popen(self.command)
        host = "127.0.0.1" if self._options.host == "0.0.0.0" else self._options.host
        end = time.monotonic() + timeout_s
        for model in self._models:
            url = f"http://{host}:{self._options.rest_port}"
            with Client(url, model.name, timeout_s=2, retries=0) as client:
                while not self._ready(client):
                    if self._process.poll() is not None:
                        code = self._process.returncode
                        raise ClientError(f"{self.command[0]} ended with exit code {code}")
                    if time.monotonic() > end:
                        raise ClientError(f"{model.name} is not available after {timeout_s:g} s")

    def _ready(self, client: Client) -> bool:
        try:
            client.wait_until_ready(0.5)
        except ClientError:
            return False
        return True

    def wait(self, timeout_s: float) -> int | None:
        """The exit code once the server ended, None if it still runs after `timeout_s`."""
        if self._process is None:
            return 0
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None

    def stop(self) -> bool:
        """Ends the server; whether it went by itself within the drain time."""
        drained = True
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            if self.wait(self._options.drain_timeout_s) is None:
                drained = False
                self._process.kill()
                self._process.wait()
                if self._container:  # killing the client leaves the container running
                    subprocess.run(
                        [self._program, "kill", self._container], check=False, capture_output=True
                    )
        self._work_dir.cleanup()
        return drained
