"""Folding of batch normalization into the convolution before it, for inference."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import keras
import numpy as np

from keras_lightnets.layers import DepthwiseConv2D, GroupedConv2D

# Layer -> the weight that multiplies the output channels, and how a vector of one number per
# output channel is shaped to multiply that weight. Exact classes only: what a subclass computes
# is not known, and the first two are ours.
_LAST_AXIS = lambda scale, kernel: scale  # noqa: E731
_DEPTHWISE = lambda scale, kernel: scale.reshape(kernel.shape[-2:])  # noqa: E731
_TRANSPOSED = lambda scale, kernel: scale[:, np.newaxis]  # noqa: E731
_FOLDABLE: dict[type, tuple[str, Callable]] = {
    GroupedConv2D: ("kernel", _LAST_AXIS),
    DepthwiseConv2D: ("kernel", _DEPTHWISE),
    keras.layers.Conv1D: ("kernel", _LAST_AXIS),
    keras.layers.Conv2D: ("kernel", _LAST_AXIS),
    keras.layers.Conv3D: ("kernel", _LAST_AXIS),
    keras.layers.Dense: ("kernel", _LAST_AXIS),
    keras.layers.DepthwiseConv1D: ("kernel", _DEPTHWISE),
    keras.layers.DepthwiseConv2D: ("kernel", _DEPTHWISE),
    keras.layers.SeparableConv1D: ("pointwise_kernel", _LAST_AXIS),
    keras.layers.SeparableConv2D: ("pointwise_kernel", _LAST_AXIS),
    keras.layers.Conv1DTranspose: ("kernel", _TRANSPOSED),
    keras.layers.Conv2DTranspose: ("kernel", _TRANSPOSED),
    keras.layers.Conv3DTranspose: ("kernel", _TRANSPOSED),
}


def fold_batch_norm(model: keras.Model) -> keras.Model:
    """Returns a copy of `model` for inference, without the batch norms that follow a convolution.

    At inference a batch norm is one multiplication and one addition per channel, which the kernel
    and bias of the layer before it can take over (Jacob et al., CVPR 2018,
    https://arxiv.org/abs/1712.05877, section 3.2). The copy computes the same numbers up to
    rounding, in about two thirds of the time on a CPU; the original is left as it is.

    Folded: a `keras.layers.BatchNormalization` (or `FusedBatchNormalization`) over the channels
    whose input is a convolution (1-D, 2-D, 3-D, depthwise, separable, transposed, grouped) or
    `Dense` layer. Inner functional models are folded too.

    Left alone, with unchanged results: a batch norm after anything else (concatenation, addition,
    pooling, activation, padding, another batch norm, the input); after a layer that has its own
    activation, is frozen to another data format, has several users, is an output of the model, or
    is shared; a batch norm that is shared, masked, over another axis, or called with
    `training=True`; a subclass of one of the layers; a quantized or LoRA layer.

    Args:
        model: A built functional or sequential model.

    Raises:
        ValueError: The model is neither functional nor sequential, or has no weights yet.
    """
    model = as_functional(model)
    folds = _find_folds(model)

    def new_layer(layer: keras.layers.Layer) -> keras.layers.Layer:
        bias = {"use_bias": True} if layer.name in folds else {}
        return type(layer).from_config(layer.get_config() | bias)

    folded, pairs = rewrite(
        model, new_layer, fold_batch_norm, skip={norm.name for norm in folds.values()}
    )
    for layer, clone in pairs:
        if layer.name in folds:
            _set_folded_weights(clone, layer, folds[layer.name])
        elif clone.built:
            clone.set_weights(layer.get_weights())
    return folded


def is_functional(layer: Any) -> bool:
    """Whether `layer` is a functional or sequential model, whose inside can be rewritten."""
    return isinstance(layer, keras.Sequential) or (
        isinstance(layer, keras.Model) and hasattr(layer, "_nodes_by_depth")
    )


def as_functional(model: keras.Model) -> keras.Model:
    """Returns `model` as a functional one that shares its layers.

    Raises:
        ValueError: The model is neither functional nor sequential, or has no weights yet.
    """
    if isinstance(model, keras.Sequential):
        if not model.built:
            raise ValueError(
                f"The model {model.name!r} has no weights yet: build it with an input shape first."
            )
        return keras.Model(model.inputs[0], model.outputs[0], name=model.name)
    if not is_functional(model):
        raise ValueError(
            "Only functional and sequential models can be rewritten. "
            f"Received: {type(model).__name__}"
        )
    return model


def rewrite(
    model: keras.Model,
    new_layer: Callable[[keras.layers.Layer], Any],
    rewrite_inner: Callable[[keras.Model], Any],
    skip: Collection[str] = (),
    enter: Callable[[keras.KerasTensor], keras.KerasTensor] | None = None,
    inputs: Any = None,
) -> tuple[keras.Model, list[tuple[keras.layers.Layer, keras.layers.Layer]]]:
    """Rebuilds a functional model from other layers, connected in the same way.

    Args:
        new_layer: Gives the layer that takes the place of an old one.
        rewrite_inner: Gives the new model for an inner functional model.
        skip: Names of layers with one input to leave out; their input becomes their output.
        enter: What is done to the inputs of the model first.
        inputs: Of the new model; None: such as those of the old one.

    Returns:
        The new model, and `(old, new)` of all layers outside of inner models. Weights are not
        copied.
    """
    pairs = []

    def clone(operation: Any) -> Any:
        if is_functional(operation):
            return rewrite_inner(operation)
        if not isinstance(operation, keras.layers.Layer):
            return operation  # such as `x + y`: it has no weights and can serve both models
        pairs.append((operation, new_layer(operation)))
        return pairs[-1][1]

    def call(operation: Any, *args: Any, **kwargs: Any) -> Any:
        args, kwargs = keras.tree.map_structure(
            lambda value: entered.get(id(value), value), (args, kwargs)
        )
        if getattr(operation, "name", None) in skip:
            return args[0] if args else next(iter(kwargs.values()))
        return operation(*args, **kwargs)

    if inputs is None:  # Keras would name them after the tensors, not after the input layers
        inputs = keras.tree.map_structure(_same_input, model.input)
    entered = {id(x): enter(x) for x in keras.tree.flatten(inputs)} if enter else {}
    rewritten = keras.models.clone_model(model, inputs, clone_function=clone, call_function=call)
    return rewritten, pairs


def _same_input(tensor: Any) -> Any:
    name = tensor._keras_history.operation.name
    return keras.Input(batch_shape=tensor.shape, dtype=tensor.dtype, name=name)


def _find_folds(model: keras.Model) -> dict[str, keras.layers.BatchNormalization]:
    """Returns {name of the layer that takes over: the batch norm behind it}."""
    return {
        layer.name: norm
        for layer, tensor, norm in only_pairs(model)
        if _is_plain_norm(norm) and _takes_over(layer, norm, tensor)
    }


def copy_weights(pairs: Iterable[tuple[Any, Any]]) -> None:
    """Gives each clone of `rewrite` the weights of its layer."""
    for layer, clone in pairs:
        if layer.weights:
            clone.set_weights(layer.get_weights())


def calls_of(model: keras.Model) -> list[Any]:
    """Returns the calls of operations inside a functional model, Keras' nodes.

    Keras has no public view of the graph. A layer may have been called elsewhere too; those
    calls are not among them.
    """
    return [node for level in model._nodes_by_depth.values() for node in level]


def tensor_name(tensor: Any) -> str:
    """Returns the name of the operation that makes a tensor; of further outputs with a number."""
    history = tensor._keras_history
    further = f":{history.tensor_index}" if history.tensor_index else ""
    return f"{history.operation.name}{further}"


def only_pairs(model: keras.Model) -> list[tuple[Any, Any, Any]]:
    """Finds the operations behind one another between which nothing else stands.

    Returns:
        `(first, tensor, second)`: `second` has the output of `first` as its only input, nothing
        else has it, both are called once, and `second` without `training=True` or a mask.
    """
    nodes = calls_of(model)
    calls = Counter(id(node.operation) for node in nodes)
    users = Counter(id(tensor) for node in nodes for tensor in node.input_tensors)
    users.update(id(tensor) for tensor in model.outputs)
    producer = {id(tensor): node.operation for node in nodes for tensor in node.outputs}

    pairs = []
    for node in nodes:
        if calls[id(node.operation)] > 1 or len(node.input_tensors) != 1:
            continue
        if node.arguments.kwargs.get("training") or node.arguments.kwargs.get("mask") is not None:
            continue
        tensor = node.input_tensors[0]
        first = producer.get(id(tensor))
        if users[id(tensor)] == 1 and calls[id(first)] == 1:
            pairs.append((first, tensor, node.operation))
    return pairs


def _is_plain_norm(operation: Any) -> bool:
    if not isinstance(operation, keras.layers.BatchNormalization):
        return False
    ours = type(operation).__module__.startswith("keras_lightnets.")
    return ours or type(operation) is keras.layers.BatchNormalization


def _takes_over(layer: Any, norm: keras.layers.BatchNormalization, between: Any) -> bool:
    if type(layer) not in _FOLDABLE:
        return False
    return (
        layer.activation is keras.activations.linear
        and getattr(layer, "data_format", "channels_last") == "channels_last"
        and norm.axis in (-1, len(between.shape) - 1)
        and getattr(layer, "quantization_mode", None) is None
        and not getattr(layer, "lora_enabled", False)
    )


def _set_folded_weights(
    layer: keras.layers.Layer,
    original: keras.layers.Layer,
    norm: keras.layers.BatchNormalization,
) -> None:
    scale, shift = _scale_and_shift(norm)
    kernel_name, shaped = _FOLDABLE[type(original)]
    weights = _weights_by_name(original)
    bias = weights.get("bias", 0.0)
    kernel = weights[kernel_name]
    weights[kernel_name] = kernel * shaped(scale, kernel)
    weights["bias"] = bias * scale + shift
    for variable in layer.weights:
        variable.assign(weights[variable.name])


def _scale_and_shift(norm: keras.layers.BatchNormalization) -> tuple[np.ndarray, np.ndarray]:
    """The two vectors that the batch norm applies at inference, in float64."""
    values: Mapping[str, np.ndarray] = _weights_by_name(norm)
    variance = values["moving_variance"]
    scale = values.get("gamma", np.ones_like(variance)) / np.sqrt(variance + norm.epsilon)
    return scale, values.get("beta", 0.0) - values["moving_mean"] * scale


def _weights_by_name(layer: keras.layers.Layer) -> dict[str, np.ndarray]:
    return {
        variable.name: keras.ops.convert_to_numpy(variable).astype("float64")
        for variable in layer.weights
    }
