"""The real TensorFlow Serving, `tensorflow_model_server`, as a child."""

from __future__ import annotations

import pathlib
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence

from keras_lightnets.export import models_config
from keras_lightnets.export.models_config import MODELS_FILE
from keras_lightnets.export.tf_serving import LABELS_FLAG, MONITORING_CONFIG
from keras_lightnets.serving.client import Client
from keras_lightnets.serving.server.layout import ServedModel
from keras_lightnets.serving.server.options import ServerOptions
from keras_lightnets.serving.transport import ClientError

BINARY = "tensorflow_model_server"


def find_binary() -> str | None:
    """The path of `tensorflow_model_server`, or None."""
    return shutil.which(BINARY)


def command(
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
    entries = [models_config.entry(m.name, str(m.base_path), m.config) for m in models]
    (work_dir / MODELS_FILE).write_text(models_config.text(entries), encoding="utf-8")
    (work_dir / "monitoring.config").write_text(MONITORING_CONFIG, encoding="utf-8")
    # The REST API listens on every address in TF Serving: only gRPC can be bound.
    flags = [
        f"--port={options.grpc_port}",
        f"--rest_api_port={options.rest_port}",
        f"--model_config_file={work_dir / MODELS_FILE}",
        LABELS_FLAG,
        f"--monitoring_config_file={work_dir / 'monitoring.config'}",
    ]
    if batching_file is not None:
        flags += ["--enable_batching=true", f"--batching_parameters_file={batching_file}"]
    return [binary, *flags]


class ModelServer:
    """`tensorflow_model_server` as a child.

    Args:
        models: What to serve.
        options: Addresses; ports must not be 0.
        batching_file: To merge requests by; None turns merging off.

    Raises:
        ValueError: The program is not on `PATH`.
    """

    def __init__(
        self,
        models: Sequence[ServedModel],
        options: ServerOptions,
        batching_file: pathlib.Path | None,
    ) -> None:
        binary = find_binary()
        if binary is None:
            raise ValueError(f"{BINARY} is not on PATH: use --engine embedded")
        self._models, self._options = models, options
        self._work_dir = tempfile.TemporaryDirectory(prefix="lightnets-serve-")
        work_dir = pathlib.Path(self._work_dir.name)
        self.command = command(binary, models, options, batching_file, work_dir)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, timeout_s: float = 300.0) -> None:
        """Starts the server and waits until every model is available.

        Raises:
            ClientError: The server ended, or is not ready in time.
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
        self._work_dir.cleanup()
        return drained
