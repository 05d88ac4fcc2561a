"""The real TensorFlow Serving, `tensorflow_model_server`, as a child."""

from __future__ import annotations

import pathlib
import subprocess
import time
from collections.abc import Sequence

from keras_lightnets.export import models_config
from keras_lightnets.export.models_config import MODELS_FILE
from keras_lightnets.export.tf_serving import LABELS_FLAG, TEMPLATES
from keras_lightnets.serving.client import Client
from keras_lightnets.serving.server.layout import ServedModel
from keras_lightnets.serving.server.options import ServerOptions
from keras_lightnets.serving.transport import ClientError

BINARY = "tensorflow_model_server"


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
    # The REST API listens on every address in TF Serving: only gRPC can be bound.
    flags = [
        f"--port={options.grpc_port}",
        f"--rest_api_port={options.rest_port}",
        f"--model_config_file={work_dir / MODELS_FILE}",
        LABELS_FLAG,
        f"--monitoring_config_file={TEMPLATES / 'monitoring.config'}",
    ]
    if batching_file is not None:
        flags += ["--enable_batching=true", f"--batching_parameters_file={batching_file}"]
    return [binary, *flags]


def wait_until_available(
    process: subprocess.Popen[bytes],
    models: Sequence[ServedModel],
    rest_port: int,
    timeout_s: float = 300.0,
) -> None:
    """Waits until the server answers for every model.

    Raises:
        ClientError: It ended, or is not ready in time.
    """
    end = time.monotonic() + timeout_s
    for model in models:
        with Client(f"http://127.0.0.1:{rest_port}", model.name, timeout_s=2, retries=0) as client:
            while True:
                try:
                    client.wait_until_ready(0.5)
                    break
                except ClientError:
                    if process.poll() is not None:
                        raise ended(process) from None
                    if time.monotonic() > end:
                        raise


def ended(process: subprocess.Popen[bytes]) -> ClientError:
    """What to raise when the server has ended by itself."""
    return ClientError(f"{BINARY} ended with exit code {process.returncode}")
