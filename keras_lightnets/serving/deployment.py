"""The files beside the models with which a server is started: a ready directory."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

from keras_lightnets.serving import bundle
from keras_lightnets.serving.handbook import handbook
from keras_lightnets.serving.server.engines import IMAGE
from keras_lightnets.serving.server.layout import BATCHING_FILE, MODELS_FILE

_MOUNT = "/models"

# A TCP connection by bash: the official image has neither curl nor wget. The status code alone
# does not tell whether a version is available, the state does.
_HEALTH = (
    "exec 3<>/dev/tcp/127.0.0.1/8501 && "
    "printf 'GET /v1/models/{name} HTTP/1.0\\r\\nHost: localhost\\r\\n\\r\\n' >&3 && "
    "grep -q AVAILABLE <&3"
)


def stage_ready_files(
    base_dir: pathlib.Path, staged: pathlib.Path, name: str, batch_sizes: Sequence[int]
) -> list[pathlib.Path]:
    """Writes what starts a server for all models in `base_dir` into `staged`; returns the files.

    `models.config` and `compose.yaml` are written anew, since they name the models;
    `batching_parameters.txt` is left alone once it exists: its numbers belong to a machine.

    Args:
        base_dir: Holds `<name>/<version>/saved_model.pb`.
        staged: A directory on the same file system; `place_ready_files` moves its files.
        name: Of a model that is about to be published.
        batch_sizes: That batches are padded to, those of the warm-up requests.
    """
    names = sorted(
        {name}
        | {
            path.name
            for path in base_dir.iterdir()
            if any((path / str(v) / "saved_model.pb").is_file() for v in bundle.versions(path))
        }
    )
    files = {
        MODELS_FILE: _models_config(names),
        BATCHING_FILE: _batching_parameters(sorted(set(batch_sizes))),
        "monitoring.config": (
            'prometheus_config {\n  enable: true\n  path: "/monitoring/prometheus/metrics"\n}\n'
        ),
        "compose.yaml": _compose(names[0]),
        "kserve.yaml": "---\n".join(_kserve(name) for name in names),
        "README.md": handbook(names, IMAGE),
    }
    if (base_dir / BATCHING_FILE).exists():
        del files[BATCHING_FILE]
    for file, text in files.items():
        (staged / file).write_text(text, encoding="utf-8")
    return [staged / file for file in files]


def place_ready_files(base_dir: pathlib.Path, staged: Sequence[pathlib.Path]) -> None:
    """Moves what `stage_ready_files` wrote to its place, each file whole."""
    for path in staged:
        bundle.sync(path)
        path.replace(base_dir / path.name)


def _models_config(names: Sequence[str]) -> str:
    entries = "".join(
        f'  config {{\n    name: "{name}"\n    base_path: "{_MOUNT}/{name}"\n'
        '    model_platform: "tensorflow"\n  }\n'
        for name in names
    )
    return f"model_config_list {{\n{entries}}}\n"


def _batching_parameters(batch_sizes: Sequence[int]) -> str:
    allowed = "".join(f"allowed_batch_sizes: {size}\n" for size in batch_sizes)
    return (
        f"max_batch_size {{ value: {batch_sizes[-1]} }}\n"
        "batch_timeout_micros { value: 2000 }\n"
        "max_enqueued_batches { value: 100 }\n"
        "num_batch_threads { value: 2 }\n" + allowed
    )


def _compose(name: str) -> str:
    health = _HEALTH.format(name=name).replace("'", "''")
    return f"""services:
  serving:
    image: {IMAGE}
    ports:
      - "127.0.0.1:8500:8500"  # gRPC
      - "127.0.0.1:8501:8501"  # REST
    volumes:
      - .:{_MOUNT}:ro
    command:
      - --model_config_file={_MOUNT}/models.config
      - --monitoring_config_file={_MOUNT}/monitoring.config
      - --enable_batching
      - --batching_parameters_file={_MOUNT}/batching_parameters.txt
    healthcheck:
      test:
        - CMD
        - bash
        - -c
        - '{health}'
      interval: 10s
      timeout: 3s
      start_period: 60s
    restart: unless-stopped
"""


def _kserve(name: str) -> str:
    host = name.lower().replace("_", "-").replace(".", "-")
    return f"""apiVersion: serving.kserve.io/v1beta1
kind: InferenceService
metadata:
  name: {host}
spec:
  predictor:
    minReplicas: 1
    maxReplicas: 4
    scaleMetric: concurrency  # requests in flight for each replica
    scaleTarget: 16
    model:
      modelFormat:
        name: tensorflow
      storageUri: pvc://models/{name}  # a volume claim `models` with this directory's content
      resources:
        requests:
          cpu: "2"
          memory: 1Gi
        limits:
          memory: 2Gi
"""
