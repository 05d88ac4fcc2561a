"""Weights of other implementations -> a model of this package."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import keras
import numpy as np

from keras_lightnets.catalogue import registry
from keras_lightnets.catalogue.family import Family
from keras_lightnets.layers.notes import notes
from keras_lightnets.text import listed

# PyTorch -> Keras: (out, in, h, w) -> (h, w, in, out), and depthwise (c, 1, h, w) -> (h, w, c, 1).
_CONV = (2, 3, 1, 0)
_DEPTHWISE = (2, 3, 0, 1)
# Layers that depend on the number of classes have this prefix, in every network.
HEAD_PREFIX = "logits"
# Layers that models without top, or with `features_only`, are built without.
HEAD_PREFIXES = (HEAD_PREFIX, "head_")


class Slot(NamedTuple):
    """One variable and the tensor that belongs into it."""

    variable: keras.Variable
    tensor: str
    axes: tuple[int, ...] | None  # of the transposition to Keras' layout
    optional: bool  # zeros if the tensor does not exist

    def convert(self, array: np.ndarray) -> np.ndarray:
        """Brings a tensor into Keras' layout."""
        if self.axes is None and array.ndim == 4 and array.shape[:2] == (1, 1):
            # Already in it: of `keras.applications`, whose v1 ends in a 1x1 convolution.
            return array.reshape(array.shape[2:]) if len(self.variable.shape) == 2 else array
        if self.axes == (1, 0) and array.ndim == 4 and array.shape[2:] == (1, 1):
            array = array[:, :, 0, 0]  # a 1x1 convolution as the classifier
        if self.axes is not None and array.ndim == len(self.axes):
            array = array.transpose(self.axes)
        return array


def load_state_dict(model: keras.Model, state_dict: Mapping[str, Any], source: str) -> bool:
    """Copies the weights of another implementation into `model`, strictly.

    Every tensor is used exactly once, every variable is set, all shapes are equal; else
    nothing is changed. Only the classifier may differ in its number of classes: then it is
    left as it is, with a warning.

    Args:
        model: A model of this package.
        state_dict: Tensor name -> array (NumPy, or PyTorch), in PyTorch's layouts.
        source: Whose names these are: `"torchvision"`, `"timm"`, `"pytorchcv"` (osmr),
            `"d-li14"` (MobileNet v2), `"sequential"` (MobileNet v1 as numbered modules
            `model.N.M`) or `"keras"` (our own names, Keras' layouts).

    Returns:
        Whether the classifier, if the model has one, was loaded too.

    Raises:
        ValueError: Lists by name what is missing, left over or of another shape.
    """
    tensors = {
        name: _numpy(value)
        for name, value in state_dict.items()
        if not name.endswith(".num_batches_tracked")
    }
    slots, omitted = tensor_slots(model, source)
    arrays, problems, head = [], [], []
    for slot in slots:
        path = slot.variable.path
        if slot.tensor not in tensors:
            if not slot.optional:
                problems.append(f"missing: {slot.tensor} (for {path})")
            arrays.append(np.zeros(slot.variable.shape, "float32"))
            continue
        array = slot.convert(tensors[slot.tensor])
        if array.shape != tuple(slot.variable.shape):
            line = f"{slot.tensor}: {array.shape}, but {path} has {tuple(slot.variable.shape)}"
            is_head = path.split("/")[0].startswith(HEAD_PREFIX)
            (head if is_head and _classes_differ(array, slot.variable) else problems).append(line)
        arrays.append(array)
    used = {slot.tensor for slot in slots}
    problems += [
        f"left over: {name}"
        for name in tensors
        if name not in used and name.rpartition(".")[0] not in omitted
    ]
    if problems:
        raise ValueError(_message(model, source, problems))
    for slot, array in zip(slots, arrays, strict=True):
        if not (head and slot.variable.path.split("/")[0].startswith(HEAD_PREFIX)):
            slot.variable.assign(array)
    if head:
        warn_about_head(model)
    return not head


def warn_about_head(model: keras.Model) -> None:
    """Says that the classifier was not loaded."""
    warnings.warn(
        f"The weights are for another number of classes than model {model.name!r} has: "
        "everything but the classifier was loaded.",
        stacklevel=3,
    )


def tensor_slots(model: keras.Model, source: str) -> tuple[list[Slot], set[str]]:
    """Pairs every variable of `model` with a tensor name, in the source's order.

    Returns:
        The pairs, and the source's modules that `model` was built without (classifier and
        last convolution of a model without top).

    Raises:
        ValueError: If the source has no such network, or the network layers that the
            source's has not.
    """
    names = layer_names(model, source)
    unbiased = family_of(model).without_bias.get(source, ())
    layers = {layer.name: layer for layer in model.layers if layer.weights}
    unknown = [name for name in layers if name not in names]
    if unknown:
        raise ValueError(
            f"{source} has no weights for these layers of model {model.name!r}: {listed(unknown)}"
        )
    slots = [
        slot
        for name, module in names.items()
        if name in layers
        for slot in _layer_slots(layers[name], module, source == "keras", name in unbiased)
    ]
    has_top = any(name.startswith(HEAD_PREFIX) for name in layers)
    omitted = set() if has_top else {names[name] for name in names if name not in layers}
    return slots, omitted


def layer_names(model: keras.Model, source: str) -> dict[str, str]:
    """Our layer -> the source's module, in the source's order, those of a top that it lacks too.

    Raises:
        ValueError: If the source has no such network.
    """
    family = family_of(model)
    if source not in family.tensor_names:
        raise ValueError(
            f"`source` must be one of {', '.join(map(repr, family.tensor_names))} for "
            f"{family.name}. Received: {source!r}"
        )
    layers = {layer.name for layer in model.layers if layer.weights}
    names = family.tensor_names[source](layers, notes(model)["variant"])
    return {
        name: module
        for name, module in names.items()
        if name in layers or name.startswith(HEAD_PREFIXES)
    }


def detect_source(model: keras.Model, tensors: Collection[str]) -> str:
    """The source whose names occur most among `tensors`.

    Raises:
        ValueError: If none occurs.
    """
    family = family_of(model)
    found = {
        source: sum(f"{module}.weight" in tensors for module in layer_names(model, source).values())
        for source in family.tensor_names
    }
    best = max(found, key=found.__getitem__, default=None)
    if best is None or not found[best]:
        raise ValueError(
            f"These are not the weights of a {family.name} by {' or '.join(found) or 'anybody'}. "
            f"Tensors begin with: {', '.join(list(tensors)[:3])}"
        )
    return best


def family_of(model: keras.Model) -> Family:
    """The family of a model that a builder made, wherever it was saved or copied to.

    Raises:
        ValueError: Somebody else built it.
    """
    name = notes(model).get("family")
    if name not in registry.FAMILIES:
        raise ValueError(f"Model {model.name!r} is none of {', '.join(registry.FAMILIES)}.")
    return registry.FAMILIES[name]


def head_layers(model: keras.Model) -> list[keras.layers.Layer]:
    """The layers whose weights depend on the number of classes."""
    return [layer for layer in model.layers if layer.name.startswith(HEAD_PREFIX) and layer.weights]


def _layer_slots(
    layer: keras.layers.Layer, module: str, in_keras_layout: bool, unbiased: bool
) -> list[Slot]:
    if isinstance(layer, keras.layers.BatchNormalization):
        parts = (
            ("gamma", "weight"),
            ("beta", "bias"),
            ("moving_mean", "running_mean"),
            ("moving_variance", "running_var"),
        )
        return [Slot(getattr(layer, o), f"{module}.{t}", None, False) for o, t in parts]
    if in_keras_layout:
        axes = None
    elif isinstance(layer, keras.layers.DepthwiseConv2D):
        axes = _DEPTHWISE
    elif isinstance(layer, keras.layers.Dense):
        axes = (1, 0)
    else:
        axes = _CONV
    slots = [Slot(layer.kernel, f"{module}.weight", axes, False)]
    if layer.use_bias:
        slots.append(Slot(layer.bias, f"{module}.bias", None, unbiased))
    return slots


def _classes_differ(array: np.ndarray, variable: keras.Variable) -> bool:
    """Whether only the last axis, the classes, is of another size."""
    return array.shape[:-1] == tuple(variable.shape)[:-1]


def _numpy(value: Any) -> np.ndarray:
    if hasattr(value, "detach"):  # a PyTorch tensor; bfloat16 has no NumPy type
        value = value.detach().cpu().float().numpy()
    return np.asarray(value)


def _message(model: keras.Model, source: str, problems: list[str]) -> str:
    return (
        f"These are not {source}'s weights of model {model.name!r} "
        f"({len(problems)} mistakes): {listed(problems)}"
    )
