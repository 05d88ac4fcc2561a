"""Command lines for the real TensorFlow Serving: the binary, or its official container image."""

from __future__ import annotations

import json
import pathlib
import shutil
from collections.abc import Sequence

from keras_lightnets.serving import models_config
from keras_lightnets.serving.models_config import MODELS_FILE
from keras_lightnets.serving.server.layout import ServedModel
from keras_lightnets.serving.server.options import (
    GRPC_PORT,
    METRICS_PATH,
    REST_PORT,
    ServerOptions,
)

BINARY = "tensorflow_model_server"
# Of the files beside a bundle, too. No container engine was at hand: this image was not run here.
IMAGE = "tensorflow/serving:2.19.1"
MONITORING_CONFIG = f'prometheus_config {{\n  enable: true\n  path: "{METRICS_PATH}"\n}}\n'

# A label may name a version that is not loaded yet; without this, the server refuses the file.
LABELS_FLAG = "--allow_version_labels_for_unavailable_models=true"

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
    entries = (models_config.entry(m.name, path, _policy(m)) for m, path in models)
    (work_dir / MODELS_FILE).write_text(models_config.text(entries))
    (work_dir / "monitoring.config").write_text(MONITORING_CONFIG)


def _policy(model: ServedModel) -> list[str]:
    lines = []
    if model.policy == "specific":
        chosen = " ".join(f"versions: {version}" for version in model.versions)
        lines.append(f"model_version_policy {{ specific {{ {chosen} }} }}")
    elif model.policy == "all":
        lines.append("model_version_policy { all {} }")
    elif model.latest > 1:
        lines.append(f"model_version_policy {{ latest {{ num_versions: {model.latest} }} }}")
    return lines + [
        f"version_labels {{ key: {json.dumps(label)} value: {version} }}"
        for label, version in model.labels
    ]
