"""The files beside the models with which a server is started: a ready directory."""

from __future__ import annotations

import contextlib
import itertools
import json
import pathlib
import re
from collections.abc import Sequence

from keras_lightnets.serving import bundle, warmup
from keras_lightnets.serving.errors import ExportError
from keras_lightnets.serving.handbook import handbook
from keras_lightnets.serving.server import batching_parameters
from keras_lightnets.serving.server.batching_parameters import BatchingParameters
from keras_lightnets.serving.server.engines import IMAGE, MONITORING_CONFIG
from keras_lightnets.serving.server.layout import BATCHING_FILE, MODELS_FILE
from keras_lightnets.serving.server.options import GRPC_PORT, REST_PORT
from keras_lightnets.serving.tuning import Tuning

_MOUNT = "/models"

# A TCP connection by bash: the official image has neither curl nor wget. The status code alone
# does not tell whether a version is available, the state does; the quotes keep the error code
# UNAVAILABLE of a version that could not be loaded from counting.
_HEALTH = (
    f"exec 3<>/dev/tcp/127.0.0.1/{REST_PORT} && "
    "printf 'GET /v1/models/{name} HTTP/1.0\\r\\nHost: localhost\\r\\n\\r\\n' >&3 && "
    "grep -q '\"AVAILABLE\"' <&3"
)


def batching_of(base_dir: pathlib.Path) -> BatchingParameters | None:
    """Returns what `base_dir/batching_parameters.txt` says, None if there is none.

    Raises:
        ExportError: It cannot be read.
    """
    path = base_dir / BATCHING_FILE
    if not path.exists():
        return None
    try:
        return batching_parameters.read(path)
    except (OSError, ValueError) as error:
        raise ExportError(f"Mend or remove {path}: {error}") from None


def warmup_sizes(base_dir: pathlib.Path, wanted: Sequence[int] | None) -> list[int]:
    """Returns the batch sizes to warm up: `wanted`, or those that batches are padded to.

    Raises:
        ExportError: One is above `max_batch_size`: TensorFlow Serving would refuse that warm-up
            request, and with it the version.
    """
    batching = batching_of(base_dir)
    sizes = sorted(set(warmup.BATCH_SIZES if wanted is None else wanted))
    if batching is None:
        return sizes
    largest = batching.max_batch_size
    if wanted is None:
        fitting = [size for size in sizes if size <= largest]
        return list(batching.allowed_batch_sizes) or fitting
    if sizes and sizes[-1] > largest:
        raise ExportError(
            f"`warmup_batch_sizes` goes up to {sizes[-1]}, but {base_dir / BATCHING_FILE} allows "
            f"batches of {largest}: a server would refuse to warm up."
        )
    return sizes


def largest_warmup(base_dir: pathlib.Path) -> int:
    """Returns the largest batch that a published version is warmed up with, 1 without any."""
    sizes = [1]
    for about in base_dir.glob(f"*/[0-9]*/{bundle.EXTRA}/{bundle.METADATA}"):
        with contextlib.suppress(OSError, ValueError):
            sizes += json.loads(about.read_text()).get("warmup_batch_sizes", warmup.BATCH_SIZES)
    return max(sizes)


def stage_ready_files(
    base_dir: pathlib.Path,
    staged: pathlib.Path,
    name: str,
    batch_sizes: Sequence[int],
    tuned: Tuning | None = None,
) -> list[pathlib.Path]:
    """Writes what starts a server for all models in `base_dir` into `staged`; returns the files.

    `models.config` and `compose.yaml` are written anew, since they name the models;
    `batching_parameters.txt` is left alone once it exists, unless it was measured anew: its
    numbers belong to a machine.

    Args:
        base_dir: Holds `<name>/<version>/saved_model.pb`.
        staged: A directory on the same file system; `place_ready_files` moves its files.
        name: Of a model that is about to be published.
        batch_sizes: That batches are padded to, those of the warm-up requests.
        tuned: What was measured, if it was.
    """
    batching = batching_text(batch_sizes, tuned)
    keep = tuned is None and (base_dir / BATCHING_FILE).exists()
    if keep:
        batching = (base_dir / BATCHING_FILE).read_text(encoding="utf-8")
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
        BATCHING_FILE: batching,
        "monitoring.config": MONITORING_CONFIG,
        "compose.yaml": _compose(names[0]),
        "kserve.yaml": "---\n".join(_kserve(name) for name in names),
        "README.md": handbook(names, IMAGE, _comment(batching)),
    }
    if keep:
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


def batching_text(batch_sizes: Sequence[int], tuned: Tuning | None = None) -> str:
    """Returns `batching_parameters.txt`, with the measurement, if there is one, as a comment."""
    sizes = tuple(sorted(set(batch_sizes)))
    parameters = tuned.parameters if tuned else _start(sizes)
    comment = [f"# {line}".rstrip() for line in tuned.describe().splitlines()] if tuned else []
    fields = {
        "max_batch_size": parameters.max_batch_size,
        "batch_timeout_micros": parameters.batch_timeout_us,
        "max_enqueued_batches": parameters.max_enqueued_batches,
        "num_batch_threads": parameters.threads,
    }
    lines = [f"{name} {{ value: {value} }}" for name, value in fields.items()]
    lines += [f"allowed_batch_sizes: {size}" for size in parameters.allowed_batch_sizes]
    return "\n".join([*comment, *lines]) + "\n"


def _start(sizes: tuple[int, ...]) -> BatchingParameters:
    """What to begin with where nothing was measured."""
    return BatchingParameters(
        max_batch_size=sizes[-1],
        batch_timeout_us=2000,
        max_enqueued_batches=100,
        threads=2,
        allowed_batch_sizes=sizes,
    )


def _comment(batching: str) -> str:
    """Returns the measurement that a batching file starts with, empty if it does not."""
    lines = itertools.takewhile(lambda line: line.startswith("#"), batching.splitlines())
    text = "\n".join(line.removeprefix("#").removeprefix(" ") for line in lines)
    return text if text.startswith("Measured") else ""


def _compose(name: str) -> str:
    health = _HEALTH.format(name=name).replace("'", "''")
    return f"""services:
  serving:
    image: {IMAGE}
    ports:
      - "127.0.0.1:{GRPC_PORT}:{GRPC_PORT}"  # gRPC
      - "127.0.0.1:{REST_PORT}:{REST_PORT}"  # REST
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
    return f"""apiVersion: serving.kserve.io/v1beta1
kind: InferenceService
metadata:
  name: {kubernetes_name(name)}  # also the model's name in URLs there
spec:
  predictor:
    minReplicas: 1
    maxReplicas: 4
    scaleMetric: concurrency  # requests in flight for each replica
    scaleTarget: 16
    model:
      modelFormat:
        name: tensorflow
        version: "2"
      runtimeVersion: "{IMAGE.rpartition(":")[2]}"  # tag of the image
      storageUri: pvc://models/{name}  # a volume claim `models` with this directory's content
      resources:
        requests:
          cpu: "2"
          memory: 1Gi
        limits:
          memory: 2Gi
"""


def kubernetes_name(name: str) -> str:
    """Returns the name of a model as that of a service: lower case, no dots, a letter first."""
    host = re.sub(r"[^a-z0-9]+", "-", name.lower())
    host = host if host[0].isalpha() else f"model-{host}"
    return host[:63].rstrip("-")
