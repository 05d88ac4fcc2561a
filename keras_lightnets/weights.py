"""`weights=`: finds what is meant, fetches it, loads it, and remembers what it was."""

from __future__ import annotations

import collections
import dataclasses
import inspect
import json
import os
import pathlib
import weakref
from typing import Any

import keras
import numpy as np

from keras_lightnets import convert, downloads, osmr, saved_weights
from keras_lightnets.preprocessing import EvalTransform
from keras_lightnets.registry import MODELS, load_builder
from keras_lightnets.weight_files import read_state_dict
from keras_lightnets.weight_rows import WEIGHTS, WeightsRow

FORMATS = (".keras", ".weights.h5", ".safetensors", ".pth", ".tf2.h5", ".tf2.h5.zip")
# Which published file a model was built from.
_ROWS: weakref.WeakKeyDictionary[keras.Model, WeightsRow] = weakref.WeakKeyDictionary()


@dataclasses.dataclass(frozen=True)
class Source:
    """A weight file on this machine, and its row if it is a published one."""

    path: pathlib.Path
    row: WeightsRow | None = None

    @property
    def mean(self) -> tuple[float, ...] | None:
        return self.row and self.row.mean

    @property
    def std(self) -> tuple[float, ...] | None:
        return self.row and self.row.std


def resolve(weights: Any, network: str, variant: dict[str, Any]) -> Source | None:
    """Finds the file that `weights` means, downloading it if it is a published one.

    Args:
        weights: None, a path, `"imagenet"` or a tag.
        network: Module of the builder.
        variant: Values of all arguments of the builder itself.

    Raises:
        ValueError: If there is no such file or tag.
    """
    if weights is None:
        return None
    if not isinstance(weights, str | os.PathLike):
        raise ValueError(f"`weights` must be None, a path or a tag. Received: {weights!r}")
    text = os.fspath(weights)
    if text.endswith(FORMATS):
        path = pathlib.Path(text).expanduser()
        if not path.is_file():
            raise ValueError(f"`weights` must be an existing file. Received: {text!r}")
        return Source(path)
    rows = published(network, variant)
    tags = [row.tag for row in rows]
    if not rows:
        raise ValueError(
            f"No published weights fit {network} with {variant}; those that have some: "
            f"`keras_lightnets.list_models('{network}*', pretrained=True)`. "
            f"Received: weights={text!r}"
        )
    if text != "imagenet" and text not in tags:
        raise ValueError(
            f"`weights` must be None, a file ({', '.join(FORMATS)}), 'imagenet' or one of "
            f"{', '.join(map(repr, tags))}. Received: {text!r}"
        )
    row = rows[0] if text == "imagenet" else rows[tags.index(text)]
    return Source(downloads.fetch(row), row)


def published(network: str, variant: dict[str, Any]) -> tuple[WeightsRow, ...]:
    """Published weights for exactly this variant, the most accurate first."""
    for row in MODELS.values():
        if row.builder.split(":")[0] == network:
            parameters = inspect.signature(load_builder(row)).parameters
            expected = {key: row.kwargs.get(key, parameters[key].default) for key in variant}
            if expected == variant:
                return WEIGHTS.get(row.name, ())
    return ()


def load(model: keras.Model, source: Source) -> None:
    """Loads a file into the model it was resolved for.

    Raises:
        ValueError: If the file is damaged, or of another network.
    """
    path = source.path
    if path.name.endswith((".keras", ".weights.h5")):
        complete = saved_weights.load(model, path)
    else:
        if path.name.endswith((".tf2.h5", ".tf2.h5.zip")):
            tensors, layout = osmr.read(path, model), "pytorchcv"
        else:
            tensors = read_state_dict(path)
            layout = source.row.source if source.row else convert.detect_source(model, tensors)
        complete = convert.load_state_dict(model, tensors, layout)
    if source.row is not None and complete:
        _ROWS[model] = source.row


def weights_row(model: keras.Model) -> WeightsRow | None:
    """The published weights that `model`, its classifier included, was built with."""
    return _ROWS.get(model)


def class_names(model: keras.Model) -> list[str] | None:
    """Names of the classes, in the order of the outputs; None if they are not known.

    Known are those of published weights (ImageNet's, downloaded once). Two pairs of
    ImageNet's classes have the same name; those get their WordNet identifier behind it.
    """
    if weights_row(model) is None:
        return None
    index = json.loads(downloads.imagenet_index().read_text())
    entries = [index[str(number)] for number in range(len(index))]
    count = collections.Counter(name for _, name in entries)
    return [f"{name} ({wnid})" if count[name] > 1 else name for wnid, name in entries]


def evaluation_transform(model: keras.Model) -> EvalTransform | None:
    """How the published weights of `model` were evaluated; None if it has none."""
    row = weights_row(model)
    if row is None:
        return None
    return EvalTransform(
        image_size=(224, 224),
        resize_shorter=row.resize_shorter,
        interpolation=row.interpolation,
        antialias=row.antialias,
    )


def decode_predictions(
    model: keras.Model,
    probabilities: Any,
    top: int = 5,
    labels: list[str] | None = None,
) -> list[list[tuple[str, float]]]:
    """Names the most probable classes.

    Args:
        model: The model that made the probabilities.
        probabilities: Its output, `(batch, classes)`.
        top: Classes per image.
        labels: Names of the classes; default: those of the model's published weights.

    Returns:
        Per image, pairs of name and probability, the most probable first.

    Raises:
        ValueError: If the names are not known or do not match.
    """
    probabilities = np.asarray(probabilities)
    if probabilities.ndim != 2:
        raise ValueError(
            f"`probabilities` must have shape (batch, classes). Received: {probabilities.shape}"
        )
    if not 1 <= top <= probabilities.shape[1]:
        raise ValueError(
            f"`top` must be from 1 to the number of classes, {probabilities.shape[1]}. "
            f"Received: {top}"
        )
    labels = labels if labels is not None else class_names(model)
    if labels is None:
        raise ValueError(
            f"Model {model.name!r} was not built from published weights: pass `labels`."
        )
    if len(labels) != probabilities.shape[1]:
        raise ValueError(
            f"`labels` must have one name per class, {probabilities.shape[1]}. "
            f"Received: {len(labels)}"
        )
    order = np.argsort(-probabilities, axis=1, kind="stable")[:, :top]
    return [
        [(labels[index], float(row[index])) for index in indices]
        for row, indices in zip(probabilities, order, strict=True)
    ]
