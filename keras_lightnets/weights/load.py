"""`weights=`: finds what is meant, fetches it, loads it, and notes in the model what it was."""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
import os
import pathlib
import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NoReturn

import keras
import numpy as np

from keras_lightnets.catalogue import imagenet, registry
from keras_lightnets.catalogue.family import Family
from keras_lightnets.catalogue.published import WeightsRow
from keras_lightnets.layers.notes import notes
from keras_lightnets.preprocessing import EvalTransform
from keras_lightnets.weights import convert, downloads, keras_h5, osmr
from keras_lightnets.weights import saved as saved_weights
from keras_lightnets.weights.files import ERRORS, most_bytes, read_member, read_state_dict

FORMATS = (".keras", ".weights.h5", ".safetensors", ".pth", ".tf2.h5", ".tf2.h5.zip", ".h5")
_TRAINED_SIZE = 224  # pixels, of the centre crop that published weights were measured with
_KERAS_SIZES = (96, 128, 160, 192)  # for which `keras.applications` has files of their own


@dataclasses.dataclass(frozen=True)
class Source:
    """A weight file on this machine.

    Attributes:
        path: Where it is.
        row: Its row if it is a published one.
        notes: What is known about how its weights are used: `mean`, `std`, `padding`,
            `bn_epsilon`, `transform`, `class_names`, `weights`.
    """

    path: pathlib.Path
    row: WeightsRow | None = None
    notes: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def resolve(
    weights: Any, family: Family, variant: Mapping[str, Any], size: int | None = None
) -> Source | None:
    """Finds the file that `weights` means, downloading it if it is a published one.

    Args:
        weights: None, a path, `"imagenet"` or a tag.
        family: Catalogue of the network.
        variant: Values of all arguments of the builder itself.
        size: Height and width of the image if they are equal and known.

    Raises:
        ValueError: If there is no such file or tag.
    """
    if weights is None:
        return None
    if not isinstance(weights, str | os.PathLike):
        raise ValueError(f"`weights` must be None, a path or a tag. Received: {weights!r}")
    text = os.fspath(weights)
    rows = family.published(variant)
    if text.endswith(FORMATS):
        path = pathlib.Path(text).expanduser()
        if not path.is_file():
            raise ValueError(f"`weights` must be an existing file. Received: {text!r}")
        return _recognize(path, rows)
    tags = [row.tag for row in rows]
    if text not in ("imagenet", *tags):
        raise ValueError(_unknown(text, family, tags))
    if not rows:
        raise ValueError(
            f"No published weights fit {family.name} with {variant}; those that have some: "
            f"`keras_lightnets.list_models('{family.name}*', pretrained=True)`. "
            f"Received: weights={text!r}"
        )
    row = rows[0] if text == "imagenet" else rows[tags.index(text)]
    if row.source == "keras" and size in _KERAS_SIZES:
        row = _of_size(row, size)
    return Source(_find(row), row, _notes(row))


def _unknown(text: str, family: Family, tags: Sequence[str]) -> str:
    """What to say of a tag that does not fit: the nearest that does, or the network it is for."""
    near = difflib.get_close_matches(text, ("imagenet", *tags), n=1, cutoff=0.5)
    owners = [name for name, rows in family.weights.items() if text in [row.tag for row in rows]]
    hint = f"Did you mean {near[0]!r}? " if near else ""
    if owners:
        hint = f"Tag {text!r} is for {', '.join(owners)}. "
    choices = "".join(f", {tag!r}" for tag in ("imagenet", *tags)) if tags else ""
    return (
        f"`weights` must be None or a file ({', '.join(FORMATS)}){choices and ' or one of '}"
        f"{choices[2:]}. {hint}Received: {text!r}"
    )


def _of_size(row: WeightsRow, size: int) -> WeightsRow:
    """The row of `keras.applications`' file for images of another size."""
    file, url = (text.replace("_224", f"_{size}") for text in (row.file, row.url))
    return dataclasses.replace(row, file=file, url=url)


def _find(row: WeightsRow) -> pathlib.Path:
    """The published file, or that without classifier which `keras.applications` left behind."""
    path = downloads.cached(row)
    without_top = path.with_name(f"{path.stem}_no_top.h5")
    if row.source == "keras" and not path.exists() and without_top.exists():
        return without_top
    return downloads.fetch(row)


def is_of_keras_applications(weights: Any) -> bool:
    """Whether `weights` means a file of `keras.applications`."""
    text = os.fspath(weights) if isinstance(weights, str | os.PathLike) else ""
    return text == "keras" or (
        text.endswith(".h5") and not text.endswith((".weights.h5", ".tf2.h5"))
    )


def _recognize(path: pathlib.Path, fitting: Sequence[WeightsRow]) -> Source:
    """Finds out what a file of somebody's own is: a published one, or one with notes in it."""
    if path.suffix == ".keras":
        return Source(path, None, _notes_in(path))
    if path.name.endswith(".weights.h5"):
        return Source(path)
    if is_of_keras_applications(path):
        rows = [row for row in fitting if row.source == "keras"]
        size = re.search(r"_(\d+)(_tf)?(_no_top)?\.h5$", path.name)
        if rows and size and int(size[1]) in _KERAS_SIZES:
            rows = [_of_size(rows[0], int(size[1]))]
    else:
        rows = [row for _, row in _rows_of(path)]
        if rows and not set(rows) & set(fitting):
            warnings.warn(
                f"{path} is {rows[0].file}, published for another network than the one it is "
                "loaded into.",
                stacklevel=2,
            )
    return Source(path, rows[0], _notes(rows[0])) if rows else Source(path)


def network_of(path: pathlib.Path) -> str | None:
    """Name of the registered network that a published file is for; None: it is none."""
    if is_of_keras_applications(path):
        parts = re.sub(r"_\d+(_tf)?(_no_top)?\.h5$", r"_224\1.h5", path.name)
        return next((name for name, row in registry.published() if row.file == parts), None)
    return next((name for name, _ in _rows_of(path)), None)


def _rows_of(path: pathlib.Path) -> Iterator[tuple[str, WeightsRow]]:
    """Yields networks and rows whose digest a file has, or whose name if they have no digest."""
    found: dict[str, str] = {}
    for name, row in registry.published():
        algorithm, _, expected = (row.digest or "").partition(":")
        if algorithm and algorithm not in found:
            found[algorithm] = ""
            try:
                with downloads.open_content(path) as file:
                    found[algorithm] = hashlib.file_digest(file, algorithm).hexdigest()
            except ERRORS:  # who reads it will say what is wrong
                return
        if found[algorithm].startswith(expected) if algorithm else row.file == path.name:
            yield name, row


def transform_of(row: WeightsRow) -> EvalTransform:
    """How images were prepared when published weights were measured."""
    return EvalTransform(
        image_size=(_TRAINED_SIZE, _TRAINED_SIZE),
        resize_shorter=row.resize_shorter,
        interpolation=row.interpolation,
        antialias=row.antialias,
    )


def _notes(row: WeightsRow) -> dict[str, Any]:
    return {
        "weights": row.file,
        "mean": list(row.mean),
        "std": list(row.std),
        "padding": row.padding,
        "bn_epsilon": row.bn_epsilon,
        "transform": transform_of(row).to_dict(),
        "class_names": list(imagenet.class_names()),
    }


def _notes_in(path: pathlib.Path) -> dict[str, Any]:
    """The notes in a `.keras` file, read without building its model."""
    try:
        with zipfile.ZipFile(path) as archive:
            layers = [json.loads(read_member(archive, "config.json", most_bytes(0)))]
        while layers:  # also of inner models
            layer = layers.pop(0)
            if layer["registered_name"] == "keras_lightnets>Notes":
                return dict(layer["config"]["notes"])
            layers += layer["config"].get("layers", [])
    except ERRORS:  # who loads it will say what is wrong
        pass
    return {}


def load(model: keras.Model, source: Source) -> None:
    """Loads a file into the model it was resolved for.

    Raises:
        ValueError: If the file is damaged, or of another network.
    """
    path = source.path
    network_bytes = sum(int(np.prod(w.shape)) * 4 for w in model.weights)
    most = most_bytes(network_bytes)
    if path.name.endswith((".keras", ".weights.h5")):
        saved_weights.load(model, path, most)
        return
    if is_of_keras_applications(path):
        tensors, layout = keras_h5.read(path, model, most), "keras"
    elif path.name.endswith((".tf2.h5", ".tf2.h5.zip")):
        tensors, layout = osmr.read(path, model, most), "pytorchcv"
    else:
        tensors = read_state_dict(path, network_bytes)
        layout = source.row.source if source.row else convert.detect_source(model, tensors)
    convert.load_state_dict(model, tensors, layout)


def class_names(model: keras.Model) -> list[str] | None:
    """Names of the classes, in the order of the outputs; None if they are not known.

    Known are those of published weights (ImageNet's) and of models that `lightnets train` saved.
    Two pairs of ImageNet's classes have the same name; those get their WordNet identifier behind
    it.
    """
    names = notes(model).get("class_names")
    if names is None or len(model.outputs) != 1 or model.outputs[0].shape[-1] != len(names):
        return None
    return list(names)


def evaluation_transform(model: keras.Model) -> EvalTransform | None:
    """How images were prepared when the weights of `model` were evaluated; None: not known."""
    transform = notes(model).get("transform")
    return None if transform is None else EvalTransform.from_dict(transform)


def preprocess_input(*args: Any, **kwargs: Any) -> NoReturn:
    """Says what to do instead: which normalization is right depends on the weights.

    Raises:
        ValueError: Always.
    """
    raise ValueError(
        "Networks of this package normalize images themselves: build them with "
        "`include_preprocessing=True` and pass RGB pixels from 0 to 255."
    )


def decode_predictions(
    model: keras.Model,
    probabilities: Any = None,
    top: int = 5,
    labels: list[str] | None = None,
) -> list[list[tuple[str, float]]]:
    """Names the most probable classes.

    Args:
        model: The model that made the probabilities.
        probabilities: Its output, `(batch, classes)`.
        top: Classes per image, at most all.
        labels: Names of the classes; default: those of the model's published weights.

    Returns:
        Per image, pairs of name and probability, the most probable first.

    Raises:
        ValueError: If the names are not known or do not match.
    """
    if not isinstance(model, keras.Model) or probabilities is None:
        raise ValueError(
            "The names of the classes are the model's own: "
            "`keras_lightnets.decode_predictions(model, predictions, top=5)`."
        )
    probabilities = np.asarray(probabilities)
    if probabilities.ndim != 2:
        raise ValueError(
            f"`probabilities` must have shape (batch, classes). Received: {probabilities.shape}"
        )
    if top < 1:
        raise ValueError(f"`top` must be at least 1. Received: {top}")
    labels = labels if labels is not None else class_names(model)
    if labels is None:
        raise ValueError(
            f"Model {model.name!r} does not know the names of its classes: pass `labels`."
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
