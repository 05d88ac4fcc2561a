"""Opens a trained network, in whatever form it is stored, behind one interface."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_lightnets.catalogue import class_names
from keras_lightnets.export import answers, runtimes
from keras_lightnets.paths import literal_path
from keras_lightnets.preprocessing import EvalTransform
from keras_lightnets.text import first_line
from lightnets.run import directory, networks
from lightnets.support.errors import UserError, told

# Images in one request to a server, so that a body stays below its limit.
_IMAGES_PER_REQUEST = 8
# Folding takes two seconds, and then saves 4 ms an image (MobileNet v2 at 224 pixels, two cores).
_FOLD_FROM_IMAGES = 500


@dataclass(frozen=True)
class Artifact:
    """A network that classifies images.

    Attributes:
        labels: Class names in the order of the output, or None if it does not know them.
        transform: From image files to its input, or None if it does not know.
        answer: uint8 images `(batch, height, width, 3)` to what it says of them.
        close: Ends the connection to a server.
        task: What its numbers mean, for `lightnets.tasks.of`; None: it does not say.
    """

    labels: list[str] | None
    transform: EvalTransform | None
    answer: runtimes.Predict
    close: Callable[[], None] = lambda: None
    task: Mapping[str, Any] | None = None

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Returns what it says of images: float32 probabilities, scores or values."""
        return self.answer(images).probabilities


def open(
    target: str | os.PathLike | None,
    network: str | None = None,
    weights: str | None = None,
    transform_of: str | None = None,
    *,
    images: int = 0,
) -> Artifact:
    """Opens a run, a weight file, SavedModel, `.tflite`, `.onnx` or OpenVINO model, or a URL.

    A bundle or model directory of `lightnets export` stands for its newest version.

    Args:
        target: The path or URL.
        network: Name of a registered network, instead of a target.
        weights: Its published weights, or a file.
        transform_of: A run or a tag, see `networks.load`.
        images: About how many will be asked about. For many, batch norms of runs and `.keras`
            files are folded first, so that answers are those of an export.

    Raises:
        UserError: There is nothing at `target`, it is none of these, or is damaged.
    """
    if network is not None:
        return _of_keras(networks.load(None, network, weights, transform_of), images)
    target = str(target)
    path = pathlib.Path(target)
    if transform_of is not None and not networks.is_weight_file(path):
        raise UserError(f"--transform-of is for weight files: {target} knows its own transform.")
    if networks.is_url(target):
        return _open_url(target)
    if not path.exists():
        raise UserError(f"There is no {path}.")
    if directory.is_run(path):
        return _of_keras(networks.open(target), images)
    if path.is_dir():
        path = _find_model(path)
    labels, transform, task = _about(path)
    if networks.is_weight_file(path):
        loaded = networks.load(path, None, None, transform_of)
        # What lies beside it is for a file that does not say it itself.
        labels, transform = loaded.labels or labels, loaded.transform or transform
        known = networks.Network(loaded.model, labels, transform, loaded.task or task)
        return _of_keras(known, images)
    load = _load_saved_model if path.is_dir() else runtimes.LOADERS.get(path.suffix)
    if load is None:
        raise UserError(
            f"{path} is no model file. Known are run and SavedModel directories and "
            f".h5, .pth, .safetensors, {', '.join(runtimes.LOADERS)} files."
        )
    try:
        return Artifact(labels, transform, load(path), task=task)
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(f"Cannot load {path}: {first_line(error)}") from None


def _of_keras(network: networks.Network, images: int) -> Artifact:
    predict = _keras_predict(network.model, images)
    return Artifact(
        network.labels,
        network.transform,
        lambda images: answers.answer(predict(images)),
        task=network.task,
    )


def _find_model(path: pathlib.Path) -> pathlib.Path:
    """Returns the SavedModel version or OpenVINO file that a directory stands for."""
    if (path / "saved_model.pb").is_file():
        return path
    files = sorted(path.glob("*.xml"))
    if len(files) == 1:
        return files[0]
    from keras_lightnets.export import bundle

    folders = [bundle.versions(p) for p in (path, *path.iterdir())]
    newest = [list(versions.values())[-1] for versions in folders if versions]
    models = [version for version in newest if (version / "saved_model.pb").is_file()]
    if not models:
        raise UserError(
            f"{path} is neither a run (no config.yaml) nor a model (no saved_model.pb or .xml)."
        )
    if len(models) > 1:
        names = ", ".join(sorted(version.parent.name for version in models))
        raise UserError(f"{path} holds several models ({names}). Name one of them.")
    return models[0]


def _about(
    path: pathlib.Path,
) -> tuple[list[str] | None, EvalTransform | None, dict[str, Any] | None]:
    """Reads class names, transform and task from beside a model, where there are any."""
    folder = path / "assets.extra" if path.is_dir() else path.parent
    labels = transform = task = None
    try:
        with contextlib.suppress(FileNotFoundError):
            labels = class_names.read(folder)
        if (folder / "metadata.json").is_file():
            about = json.loads((folder / "metadata.json").read_text(encoding="utf-8"))
            transform, task = EvalTransform.from_dict(about["transform"]), about.get("task")
        elif (folder / "transform.json").is_file():
            transform = EvalTransform.from_dict(json.loads((folder / "transform.json").read_text()))
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"The description in {folder} is damaged: {error}") from None
    return labels, transform, task


def _keras_predict(model: Any, images: int) -> Callable[[np.ndarray], Any]:
    def plain(images):
        return model.predict_on_batch(images.astype(model.inputs[0].dtype))

    if images < _FOLD_FROM_IMAGES:
        return plain
    from keras_lightnets.errors import ExportError
    from keras_lightnets.inference.function import inference_function

    try:
        classify = inference_function(model)
    except ExportError:  # a model of another kind
        return plain
    return lambda images: classify(images.astype("float32")).numpy()


def _load_saved_model(path: pathlib.Path) -> runtimes.Predict:
    import tensorflow as tf

    with literal_path(path) as folder:
        loaded = tf.saved_model.load(str(folder))
    signature = loaded.signatures.get("serving_default")
    if signature is None:
        raise ValueError("it has no signature serving_default")
    ((name, spec),) = signature.structured_input_signature[1].items()

    def predict(images):
        given = {name: tf.cast(images, spec.dtype)}
        return answers.answer(loaded.signatures["serving_default"](**given))

    return predict


def _open_url(url: str) -> Artifact:
    from keras_lightnets.serving import Client, ClientError

    with told(ValueError):
        client = Client(url)
    try:
        client.wait_until_ready(timeout_s=10)
    except ClientError as error:
        client.close()
        raise UserError(str(error)) from None

    def predict(images):
        parts = []
        for start in range(0, len(images), _IMAGES_PER_REQUEST):
            batch = images[start : start + _IMAGES_PER_REQUEST]
            with told(ClientError):
                answer = client.predict({"images": batch})
            if not {"probabilities", "scores", "values"} & answer.keys():
                raise UserError(f"{url} gives no `probabilities`.")
            parts.append(answers.answer(answer))
        return answers.joined(parts)

    return Artifact(None, None, predict, client.close)
