"""Runs the real TensorFlow Serving as a child process until told to stop."""

from __future__ import annotations

import pathlib
import subprocess
import tempfile
import time
import uuid
from collections.abc import Sequence

from keras_lightnets.serving.client import Client
from keras_lightnets.serving.server import engines
from keras_lightnets.serving.server.layout import ServedModel
from keras_lightnets.serving.server.options import ServerOptions
from keras_lightnets.serving.transport import ClientError


class RealServer:
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
        program = engines.find_container_engine() if container else engines.find_binary()
        if program is None:
            needed = "Neither docker nor podman is" if container else f"{engines.BINARY} is not"
            raise ValueError(f"{needed} on PATH: use --engine embedded")
        self._models, self._options = models, options
        self._work_dir = tempfile.TemporaryDirectory(prefix="lightnets-serve-")
        work_dir = pathlib.Path(self._work_dir.name)
        work_dir.chmod(0o755)  # a container's user must be able to read it
        self._program = program
        self._container = f"lightnets-{uuid.uuid4().hex[:12]}" if container else None
        self._process: subprocess.Popen[bytes] | None = None
        if self._container:
            self.command = engines.container_command(
                program, models, options, batching_file, work_dir, self._container
            )
        else:
            self.command = engines.binary_command(program, models, options, batching_file, work_dir)

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
