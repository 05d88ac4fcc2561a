"""The files beside the models with which a server is started: a ready directory."""

from __future__ import annotations

import hashlib
import pathlib
import re
import textwrap
from collections import Counter
from collections.abc import Sequence
from typing import Any

from keras_lightnets.errors import ExportError
from keras_lightnets.export import bundle, models_config, warmup
from keras_lightnets.export.models_config import MODELS_FILE
from keras_lightnets.export.tf_serving import (
    BATCHING_FILE,
    DEFAULT_MAX_BATCH_SIZE,
    GRPC_PORT,
    IMAGE,
    REST_PORT,
    TEMPLATES,
)

_MOUNT = "/models"

# Files that nothing needs which is beside the models: for clusters, monitoring and proxies.
DEPLOY = "deploy"
_OF_EACH_MODEL = ("kserve.yaml", "selftest-job.yaml")
_OPTIONAL = ("prometheus-rules.yaml", "nginx.conf", "ssl.config")
_DASHBOARD = "grafana-dashboard.json"

# KServe appends up to 18 characters to the name of a service, and 63 is the most.
_HOST_LENGTH = 45

# Ends a file that an export may replace: behind it stands the digest of all lines before.
_STAMP = "Written by lightnets export, which leaves this file alone once it is changed:"


def warmup_sizes(base_dir: pathlib.Path, wanted: Sequence[int] | None) -> list[int]:
    """Returns the batch sizes to warm up: `wanted`, or those that batches are padded to.

    Raises:
        ExportError: One is below 1, or above `max_batch_size`: TensorFlow Serving would refuse
            that warm-up request, and with it the version. Or `batching_parameters.txt` cannot be
            read.
    """
    path = base_dir / BATCHING_FILE
    sizes = sorted(set(warmup.BATCH_SIZES if wanted is None else wanted))
    if sizes and sizes[0] < 1:
        raise ExportError(f"`warmup_batch_sizes` must be at least 1. Received: {sizes[0]}")
    if not path.exists():
        return sizes
    try:
        largest, allowed = _batch_sizes(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ExportError(f"Mend or remove {path}: {error}") from None
    if wanted is None:
        return allowed or [size for size in sizes if size <= largest]
    if sizes and sizes[-1] > largest:
        raise ExportError(
            f"`warmup_batch_sizes` goes up to {sizes[-1]}, but {path} allows batches of {largest}: "
            "a server would refuse to warm up."
        )
    return sizes


def _batch_sizes(text: str) -> tuple[int, list[int]]:
    """The largest batch that batching parameters allow, and those that batches are padded to.

    Of a file that TensorFlow Serving takes; it says itself what is wrong with another.
    """
    text = re.sub("#.*", "", text)
    largest = re.search(r"\bmax_batch_size\s*:?\s*{\s*value\s*:\s*(\d+)", text)
    allowed = " ".join(re.findall(r"\ballowed_batch_sizes\s*:\s*(\d+|\[[^]]*)", text))
    sizes = [int(size) for size in re.findall(r"\d+", allowed)]
    return int(largest[1]) if largest else DEFAULT_MAX_BATCH_SIZE, sizes


def stage_ready_files(
    base_dir: pathlib.Path,
    staged: pathlib.Path,
    name: str,
    version: int,
    batch_sizes: Sequence[int],
    gpu: bool = False,
) -> list[str]:
    """Writes what starts a server for all models in `base_dir` into `staged`.

    What somebody has changed stays as it is: the model is added to the other entries of
    `models.config`, and beside any other changed file goes what would have been written, as
    `FILE.new`. `batching_parameters.txt` is left alone once it exists: its numbers belong to a
    machine.

    Args:
        base_dir: Holds `<name>/<version>/saved_model.pb`.
        staged: A directory on the same file system; `place_ready_files` moves its files.
        name: Of a model that is about to be published.
        version: Of that model.
        batch_sizes: That batches are padded to, those of the warm-up requests.
        gpu: Whether a server needs a GPU, as it does once it did.

    Returns:
        Lines for a person: what was left alone, what of it does not fit.
    """
    files = {
        **{file: _filled(file) for file in ("monitoring.config", f"{DEPLOY}/{_DASHBOARD}")},
        # A start: nobody has measured it.
        BATCHING_FILE: _filled(
            BATCHING_FILE,
            largest=max(batch_sizes, default=1),
            allowed="\n".join(f"allowed_batch_sizes: {size}" for size in sorted(batch_sizes)),
        ),
    }
    files = {file: text for file, text in files.items() if not (base_dir / file).exists()}
    names = sorted({name, *(path.name for path in base_dir.iterdir() if bundle.is_model(path))})
    gpu = gpu or f"{IMAGE}-gpu" in (_read(base_dir / "compose.yaml") or "")
    image = f"{IMAGE}-gpu" if gpu else IMAGE
    # What the templates name: a server that they start.
    server = {"image": image, "grpc_port": GRPC_PORT, "rest_port": REST_PORT, "gpu": gpu}
    health = _filled("healthcheck.sh", **server)
    newest = {each: max(bundle.versions(base_dir / each), default=version) for each in names}
    newest[name] = max(version, newest[name])

    def of_each(file: str) -> str:
        """One document a model."""
        services = kubernetes_names(names).items()
        tag = image.rpartition(":")[2]
        return "---\n".join(
            _filled(file, name=name, service=service, version=newest[name], tag=tag, **server)
            for name, service in services
        )

    wholes = {
        MODELS_FILE: models_config.text(models_config.entry(n, f"{_MOUNT}/{n}") for n in names),
        # A single $ is a variable of Compose.
        "compose.yaml": _filled("compose.yaml", health=health.replace("$", "$$"), **server),
        f"{DEPLOY}/kubernetes.yaml": _filled(f"{DEPLOY}/kubernetes.yaml", health=health, **server),
        **{f"{DEPLOY}/{file}": of_each(f"{DEPLOY}/{file}") for file in _OF_EACH_MODEL},
        **{f"{DEPLOY}/{file}": _filled(f"{DEPLOY}/{file}", **server) for file in _OPTIONAL},
        # Its calls name the first model; a test runs them.
        "README.md": _filled(
            "README.md", name=names[0], models="\n".join(f"- `{each}`" for each in names), **server
        ),
    }
    notes = []
    for file, whole in wholes.items():
        current = _read(base_dir / file)
        new = _stamped(whole, "<!-- {} -->" if file.endswith(".md") else "# {}")
        if current is None or _is_as_written(current):
            files[file] = new
            continue
        if file == MODELS_FILE:
            extended, found = _extended(current, name, version, names)
            notes += [f"{base_dir / file}: {line}." for line in found]
            if extended is not None:
                files[file] = extended
                continue
        if new != _read(base_dir / f"{file}.new"):
            files[f"{file}.new"] = new
            notes.append(f"{base_dir / file} was changed and stays; compare it with {file}.new.")
    (staged / DEPLOY).mkdir()
    for file, text in files.items():
        (staged / file).write_bytes(text.encode())
    return notes


def place_ready_files(base_dir: pathlib.Path, staged: pathlib.Path) -> None:
    """Moves what `stage_ready_files` wrote to its place, each file whole."""
    (base_dir / DEPLOY).mkdir(exist_ok=True)
    bundle.make_readable(base_dir / DEPLOY)
    for path in [path for path in staged.rglob("*") if path.is_file()]:
        bundle.make_readable(path)
        bundle.sync(path)
        path.replace(base_dir / path.relative_to(staged))


def _read(path: pathlib.Path) -> str | None:
    """Returns the text of a file with its own line ends, None if there is no such file."""
    return path.read_bytes().decode(errors="surrogateescape") if path.exists() else None


def _stamped(text: str, comment: str) -> str:
    digest = hashlib.sha256(text.encode()).hexdigest()
    return text + comment.format(f"{_STAMP} {digest[:16]}") + "\n"


def _is_as_written(text: str) -> bool:
    """Whether nobody has changed what an export wrote."""
    *lines, last = text.splitlines(keepends=True) or [""]
    before, stamp, _ = last.partition(_STAMP)
    after = " -->" if before.startswith("<") else ""
    return bool(stamp) and text == _stamped("".join(lines), f"{before}{{}}{after}")


def _extended(
    config: str, name: str, version: int, names: Sequence[str]
) -> tuple[str | None, list[str]]:
    """Adds a model to a changed `models.config`.

    Returns:
        The new text, None if it cannot be extended, and what a person should know about it.
    """
    try:
        extended = models_config.with_model(config, name, f"{_MOUNT}/{name}")
        entries = models_config.entries(extended)
    except ValueError as error:
        return None, [f"no entry was added, since {error}"]
    notes = models_config.problems(entries, names)
    for entry in entries:
        pinned = entry.model_version_policy.specific.versions
        if models_config.folder_of(entry) == name and pinned and version not in pinned:
            kept = ", ".join(map(str, pinned))
            notes.append(f"{entry.name!r} stays at version {kept}, version {version} is not served")
    return extended, notes


def _filled(template: str, gpu: bool = False, **values: object) -> str:
    """Returns a file of `templates` with `{key}` replaced; all other braces are its own.

    Lines that end in `# GPU` are for servers with one. A value alone in a line is indented as that.
    """
    text = (TEMPLATES / template).read_text(encoding="utf-8")
    text = re.sub(" +# GPU\n" if gpu else ".*# GPU\n", "\n" if gpu else "", text)
    for key, value in values.items():
        place, value = f"{{{key}}}", str(value)
        for indent in set(re.findall(f"(?m)^( +){re.escape(place)}$", text)):
            indented = textwrap.indent(value, indent).rstrip()
            text = text.replace(f"\n{indent}{place}\n", f"\n{indented}\n")
        text = text.replace(place, value)
    return text


def triton_config(model: pathlib.Path, name: str, size: tuple[int, int], classes: int) -> str:
    """Returns what NVIDIA Triton reads beside an ONNX file of `formats.convert`.

    Args:
        model: The file.
        name: Of the served model.
        size: Height and width of the images.
        classes: In an answer.
    """
    import onnx

    graph = onnx.load(model).graph
    ends: Any = {"input": graph.input[0].name, "output": graph.output[0].name}
    height, width = size
    ends["known"] = ""
    if len(graph.output) > 1:
        ends["known"] = (
            f',\n  {{ name: "{graph.output[1].name}" data_type: TYPE_FP32 dims: [ 1 ] }}'
        )
    return _filled("config.pbtxt", name=name, height=height, width=width, classes=classes, **ends)


def kubernetes_names(names: Sequence[str]) -> dict[str, str]:
    """Returns the names of models as those of services: lower case, no dots, a letter first.

    Those that would be too long or the same end in digits of the model's own name.
    """
    hosts = {name: re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") for name in names}
    hosts = {name: h if h[:1].isalpha() else f"model-{h}" for name, h in hosts.items()}
    same = Counter(hosts.values())
    for name, host in hosts.items():
        if len(host) > _HOST_LENGTH or (same[host] > 1 and host != name):
            digest = hashlib.sha256(name.encode()).hexdigest()[:6]
            hosts[name] = f"{host[: _HOST_LENGTH - 7].rstrip('-')}-{digest}"
    return hosts
