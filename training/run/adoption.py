"""Somebody's network takes the form of those of this package: nothing else knows it from them.

RGB of 0 to 255 in the layer `image`, then `notes`, its own layers with inner models taken apart,
the classifier `logits` (where more follows on it, `logits_NAME`, ..., `logits`), `predictions`.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np

from keras_lightnets.inference.folding import as_functional, is_functional, rewrite
from keras_lightnets.inference.function import gives_logits
from keras_lightnets.layers import FusedBatchNormalization, GroupedConv2D, Notes
from lightnets.optimization import batch_norm, finetune

Change = Callable[[keras.layers.Layer], dict[str, Any]]

# Drop-in replacements of this package: the same numbers, in less time and without XLA.
_OURS = {
    keras.layers.Conv2D: GroupedConv2D,
    keras.layers.BatchNormalization: FusedBatchNormalization,
}


class UnfitError(Exception):
    """Why a network cannot be trained."""


def adopt(
    network: Any,
    name: str,
    *,
    shape: tuple[int, int, int],
    classes: int,
    bn_momentum: float,
    prepare: Callable[[Any], Any],
    from_file: bool,
) -> keras.Model:
    """Returns a copy of a classifier in the form of this package.

    Args:
        network: Somebody's.
        name: Of the copy.
        shape: Of images: height, width, 3.
        classes: How many the copy has.
        bn_momentum: Of all batch norms.
        prepare: From 0..255 images to what the network takes.
        from_file: Then its classifier may be for other classes, and it takes on Keras' precision.

    Raises:
        UnfitError: It cannot be trained here.
    """
    _check_shapes(network, shape, None if from_file else classes)
    changes = _changes(network, bn_momentum, from_file)
    flat = _flat(keras.Model(network.inputs[0], network.outputs[0]), changes)
    ours = _finished(flat, name, shape, classes, prepare)
    _check_state(ours)
    return ours


def _check_shapes(network: Any, shape: tuple[int, ...], classes: int | None) -> None:
    if not is_functional(network):
        raise UnfitError(
            f"it is a {type(network).__name__}, which has no graph of layers: no functional or "
            "sequential model."
        )
    if isinstance(network, keras.Sequential) and not network.built:
        raise UnfitError("it has no weights yet: begin it with keras.Input(input_shape).")
    for what, tensors in (("input", network.inputs), ("output", network.outputs)):
        if len(tensors) != 1:
            raise UnfitError(f"it has {len(tensors)} {what}s, where one is needed.")
    image, output = network.inputs[0], network.outputs[0]
    entry, last = (_maker(tensor).operation.name for tensor in (image, output))
    seen, given = image.shape, output.shape
    if len(seen) != 4 or any(a not in (None, b) for a, b in zip(seen[1:], shape, strict=True)):
        fits = len(seen) == 4 and seen[3] == 3 and None not in seen[1:]
        flag = f": --image-size {seen[1]}x{seen[2]}" if fits else ""
        raise UnfitError(f"layer {entry!r}, its input, takes {seen}, but images are {shape}{flag}.")
    if len(given) != 2 or given[1] is None or classes not in (None, given[1]):
        wanted = "(batch, classes)" if classes is None else f"(None, {classes}): one for each class"
        raise UnfitError(f"layer {last!r}, the last one, gives {given}, not {wanted}.")


def _changes(network: keras.Model, bn_momentum: float, from_file: bool) -> Change:
    """Returns what is to be changed in the configuration of each layer."""
    names = _names(network)

    def change(layer: Any) -> dict[str, Any]:
        if isinstance(layer, keras.Model):
            raise UnfitError(
                f"layer {layer.name!r} ({type(layer).__name__}) has no graph of layers: it is a "
                "model that is neither functional nor sequential."
            )
        config: dict[str, Any] = {"name": names[id(layer)], "trainable": True}
        if from_file:  # a function has made its layers with the precision of the run
            config["dtype"] = keras.config.dtype_policy().name
        if isinstance(layer, keras.layers.BatchNormalization):
            config["momentum"] = bn_momentum
        if isinstance(layer, keras.layers.Normalization) and layer.weights:
            # As constants: what is computed from its weights is not when they are copied.
            config["mean"] = np.asarray(layer.adapt_mean).tolist()
            config["variance"] = np.asarray(layer.adapt_variance).tolist()
        return config

    return change


def _names(network: keras.Model) -> dict[int, str]:
    """Returns the name of each layer by its id, the same in every process; names the rest.

    Keras counts layers and operations without a name over the whole process, and inner models may
    share names.
    """
    names: dict[int, str] = {}
    taken = {"image", "notes", "predictions"}
    for number, leaf in enumerate(_leaves(network)):
        if id(leaf) in names:
            continue
        if not isinstance(leaf, keras.layers.Layer):
            leaf.name = f"operation_{number}"
            continue
        stem = re.sub(r"_\d+$", "", leaf.name)
        counted = stem.replace("_", "") == type(leaf).__name__.lower()
        stem = stem if counted else leaf.name
        if stem.startswith(finetune.HEAD):
            stem = f"net_{stem}"
        others = (f"{stem}_{count}" for count in itertools.count(1))
        names[id(leaf)] = next(
            name for name in itertools.chain([stem], others) if name not in taken
        )
        taken.add(names[id(leaf)])
    return names


def _leaves(model: keras.Model) -> Iterator[Any]:
    """Yields the operations of a model, and in place of inner models theirs."""
    for operation in as_functional(model).operations:
        if is_functional(operation):
            yield from _leaves(operation)
        else:
            yield operation


def _flat(model: keras.Model, change: Change) -> keras.Model:
    """Returns a copy of changed layers, with layers in place of inner models."""

    def in_place(inner: keras.Model) -> Callable:
        flat = _flat(as_functional(inner), change)
        # A `training=False` of the call would be without effect: Keras overrides it.
        return lambda x, **_: flat._run_through_graph(x)

    flat, pairs = rewrite(model, lambda layer: _restored(layer, change(layer)), in_place)
    _copy_weights(pairs)
    return flat


def _restored(layer: keras.layers.Layer, change: dict[str, Any]) -> keras.layers.Layer:
    """Returns a layer as it would be read from a file, which the run writes."""
    try:
        if kind := _OURS.get(type(layer)):
            return kind.from_config(layer.get_config() | change)
        stored = keras.saving.serialize_keras_object(layer)
        stored["config"] |= change
        stored.pop("build_config", None)
        return keras.saving.deserialize_keras_object(stored)
    except Exception:  # from the layer's own code, too
        raise UnfitError(
            f"layer {layer.name!r} ({type(layer).__name__}) cannot be read back from a file. Its "
            "class, and its functions, need @keras.saving.register_keras_serializable() and "
            "get_config()."
        ) from None


def _copy_weights(pairs: list[tuple[Any, Any]]) -> None:
    for layer, clone in pairs:
        if [w.shape for w in layer.weights] == [w.shape for w in clone.weights]:
            clone.set_weights(layer.get_weights())


def _top(model: keras.Model) -> tuple[Any, Any, Any]:
    """Returns where a classifier ends.

    That is: the layer whose size is the number of classes; what gives the logits, that layer or
    something without weights behind it; the layer that is the softmax alone, or None.
    """
    node, softmax = _maker(model.outputs[0]), None
    if not _is_softmax(node.operation):
        if not gives_logits(model):
            raise UnfitError(
                f"layer {node.operation.name!r}, the last one, is neither a softmax nor a linear "
                "Dense layer: end in one of them."
            )
    elif not node.operation.weights:
        softmax, node = node.operation, _maker(node.input_tensors[0])
    last = node.operation
    while not getattr(node.operation, "weights", None) and len(node.input_tensors) == 1:
        node = _maker(node.input_tensors[0])
    head = node.operation
    size = getattr(head, "units", getattr(head, "filters", None))
    plain = isinstance(head, keras.layers.Dense | keras.layers.Conv2D)
    if not plain or size != model.output_shape[1]:
        raise UnfitError(
            f"layer {head.name!r} ({type(head).__name__}) is no Dense or Conv2D layer that gives "
            "each class one number: no classifier was found."
        )
    return head, last, softmax


def _maker(tensor: Any) -> Any:
    history = tensor._keras_history
    return history.operation._inbound_nodes[history.node_index]


def _is_softmax(operation: Any) -> bool:
    if isinstance(operation, keras.layers.Softmax):
        return operation.axis in (-1, 1)
    return getattr(operation, "activation", None) is keras.activations.softmax


def _finished(
    flat: keras.Model, name: str, shape: tuple[int, ...], classes: int, prepare: Callable
) -> keras.Model:
    """Returns a copy with the first and last layers of our networks, and so many classes."""
    head, last, softmax = _top(flat)

    def new_layer(layer: Any) -> Any:
        change: dict[str, Any] = {}
        if layer is head:
            change["units" if isinstance(layer, keras.layers.Dense) else "filters"] = classes
            change["name"] = f"{finetune.HEAD}_{layer.name}"
        if layer is last is head:
            change |= {"name": finetune.HEAD, "dtype": "float32"}
            if _is_softmax(layer):
                change["activation"] = "linear"
        return type(layer).from_config(layer.get_config() | change)

    def enter(image: Any) -> Any:
        return prepare(Notes(name="notes")(image))

    skip = {softmax.name} if softmax else set()
    image = keras.Input(shape, name="image")
    ours, pairs = rewrite(flat, new_layer, lambda inner: inner, skip, enter, image)
    _copy_weights(pairs)
    x = ours.output
    if last is not head:
        x = keras.layers.Activation("linear", dtype="float32", name=finetune.HEAD)(x)
    x = keras.layers.Activation("softmax", dtype="float32", name="predictions")(x)
    ours = keras.Model(image, x, name=name)
    for number, leaf in enumerate(ours.operations):
        if not isinstance(leaf, keras.layers.Layer):
            leaf.name = f"operation_{number}"  # `prepare` made some
    return ours


def _check_state(model: keras.Model) -> None:
    """Raises UnfitError if a call in training changes what a training step would not keep."""
    variables = model.non_trainable_variables
    before = [np.asarray(v) for v in variables]
    images = np.random.default_rng(0).uniform(0, 255, (2, *model.input_shape[1:]))
    trainable = [np.asarray(v) for v in model.trainable_variables]
    _, after = model.stateless_call(trainable, before, images.astype("float32"), training=True)
    kept = {id(v) for v in batch_norm.statistics(model)}
    for variable, old, new in zip(variables, before, after, strict=True):
        known = id(variable) in kept or variable.path.endswith("seed_generator_state")
        if not known and not np.array_equal(old, new):
            raise UnfitError(
                f"layer {variable.path.split('/')[0]!r} changes its {variable.name!r} while it "
                "trains, which only batch norms and random layers may."
            )
