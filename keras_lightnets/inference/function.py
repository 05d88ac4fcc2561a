"""The network as it is served: one dtype, batch norms folded, probabilities out."""

from __future__ import annotations

from typing import Any, Literal

import keras
import tensorflow as tf

from keras_lightnets.errors import ExportError
from keras_lightnets.inference.folding import (
    as_functional,
    copy_weights,
    fold_batch_norm,
    is_functional,
    rewrite,
)
from keras_lightnets.inference.padding import merge_padding
from keras_lightnets.inference.parts import in_parts
from keras_lightnets.layers import FakeQuantize, placement

Precision = Literal["float32", "bfloat16"]
PRECISIONS = ("float32", "bfloat16")


def inference_model(
    model: keras.Model, precision: Precision = "float32", *, merge_pads: bool = True
) -> keras.Model:
    """Returns a copy of a classifier made for inference only; the original is left as it is.

    Whatever the policy of `model`, the copy takes float32 images and gives float32
    probabilities. Batch norms and zero padding are merged into the convolutions where that can be
    done. Its weights are float32 or, with `precision="bfloat16"`, rounded once to bfloat16 in all
    layers between the first weights and the pooled features.

    Args:
        model: Functional or sequential; one input `(batch, height, width, 3)`, one output
            `(batch, classes)`.
        merge_pads: Whether zero padding is merged, as suits TensorFlow. Without, the network has
            the layers of `model` but for its batch norms.

    Raises:
        ExportError: The model is no such classifier.
    """
    placement.need_tensorflow("inference_function")
    if precision not in PRECISIONS:
        raise ExportError(f"`precision` must be one of {PRECISIONS}. Received: {precision!r}")
    check_classifier(model)
    if precision != "float32" and is_quantized(model):
        raise ExportError(
            "The network is trained for int8, in float32: leave out precision='bfloat16'."
        )
    model = _folded(model, merge_pads)
    if precision == "bfloat16":
        model = with_dtype(model, _Bfloat16Body())
    return with_softmax(model)


def inference_function(
    model: keras.Model, precision: Precision = "float32", *, whole_batches: bool | None = None
) -> Any:
    """Returns a `tf.function` of a classifier for fast inference in Python; see `inference_model`.

    What an exported model computes, without an export: batch norms and padding merged into the
    convolutions, weights as constants, and large batches in parts that fit into the cache (see
    `keras_lightnets.inference.parts`). Later changes of the weights of `model` do not reach it.

        classify = keras_lightnets.inference_function(model)
        probabilities = classify(images)

    Args:
        model: Functional or sequential; one input `(batch, height, width, 3)`, one output
            `(batch, classes)`, probabilities or logits.
        precision: "float32" or "bfloat16", of the arithmetic.
        whole_batches: Whether to run a batch at once; None: on a GPU, which it suits.

    Returns:
        A function of float32 images giving float32 probabilities `(batch, classes)`.

    Raises:
        ExportError: A ValueError; the model is no such classifier.
    """
    model = inference_model(model, precision)
    spec = tf.TensorSpec((None, *model.inputs[0].shape[1:]), tf.float32, name="images")
    if whole_batches is None:
        whole_batches = placement.on_gpu()
    return served_function(model, spec, whole_batches=whole_batches)


def features_function(model: keras.Model) -> Any:
    """Returns a `tf.function` of a classifier, from 0..255 images to their pooled features.

    Made for inference as `inference_function` is, and folded like it.

    Args:
        model: Functional or sequential, with one input `(batch, height, width, 3)`.

    Returns:
        A function of float32 images giving float32 features `(batch, channels)`.

    Raises:
        ExportError: The model has no classifier on top.
    """
    network = _folded(features_model(model), merge_pads=True)
    spec = tf.TensorSpec((None, *network.inputs[0].shape[1:]), tf.float32, name="images")
    return served_function(network, spec, whole_batches=placement.on_gpu())


def _folded(model: keras.Model, merge_pads: bool) -> keras.Model:
    model = fold_batch_norm(in_float32(model))
    return merge_padding(model) if merge_pads else model


def served_function(
    model: keras.Model, input_spec: tf.TensorSpec, *, whole_batches: bool = False
) -> Any:
    """Returns `frozen_function`, large batches in parts unless they are to be run whole."""
    network = frozen_function(model, input_spec)
    return network if whole_batches else in_parts(network, input_spec)


def check_classifier(model: keras.Model) -> None:
    """Raises ExportError unless `model` is a functional image classifier."""
    if not is_functional(model):
        raise ExportError(
            "Only functional and sequential models can be exported. "
            f"Received: {type(model).__name__}"
        )
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise ExportError(
            "An exported classifier has one input and one output. Received: "
            f"{len(model.inputs)} and {len(model.outputs)}"
        )
    image, output = model.inputs[0].shape, model.outputs[0].shape
    if len(image) != 4 or image[-1] != 3 or len(output) != 2 or output[-1] is None:
        raise ExportError(
            "An exported classifier takes (batch, height, width, 3) and gives (batch, classes). "
            f"Received: {tuple(image)} -> {tuple(output)}"
        )
    if output[-1] == 1 and gives_logits(model):
        raise ExportError(
            f"The model {model.name!r} ends in one number, whose softmax is always 1: end it in a "
            'sigmoid if that is what it means. Values are for "lightnets train --task regression".'
        )


def with_dtype(model: keras.Model, dtype_of: Any) -> keras.Model:
    """Rebuilds a functional model with another dtype policy per layer and the same weights.

    Args:
        dtype_of: Function of a layer, called in the order of the graph, giving its dtype.
    """

    def new_layer(layer: keras.layers.Layer) -> keras.layers.Layer:
        return type(layer).from_config(layer.get_config() | {"dtype": dtype_of(layer)})

    def rewrite_inner(inner: keras.Model) -> keras.Model:
        return with_dtype(as_functional(inner), dtype_of)

    rebuilt, pairs = rewrite(model, new_layer, rewrite_inner)
    copy_weights(pairs)
    return rebuilt


def in_float32(model: keras.Model) -> keras.Model:
    """Returns the functional `model`, or a copy where a layer computes in another dtype."""
    model = as_functional(model)
    if all(layer.compute_dtype == "float32" for layer in model._flatten_layers(include_self=False)):
        return model
    return with_dtype(model, lambda layer: "float32")


class _Bfloat16Body:
    """bfloat16 from the first layer with weights on, for all layers that give feature maps.

    The normalization of the pixels before it and the classifier behind it stay float32: they
    cost nothing, and eight bits would be lost there.
    """

    def __init__(self) -> None:
        self.started = False

    def __call__(self, layer: keras.layers.Layer) -> str:
        self.started = self.started or bool(layer.weights)
        # A layer may have several outputs, such as both halves of the channels.
        output = keras.tree.flatten(layer.output)[0]
        return "bfloat16" if self.started and len(output.shape) == 4 else "float32"


def is_quantized(model: keras.Model) -> bool:
    """Whether a model was made by `quantize_aware`: it knows its ranges."""
    return any(isinstance(layer, FakeQuantize) for layer in model.layers)


def gives_logits(model: keras.Model) -> bool:
    """Whether a classifier ends in logits instead of probabilities.

    They come from a linear layer or, as SqueezeNet's, from a ReLU; what only averages, reshapes or
    casts them may follow.
    """
    last, node, _ = model.outputs[0]._keras_history
    if is_functional(last):
        return gives_logits(as_functional(last))
    while isinstance(last, _HARMLESS) or _is_cast(last):
        last, node, _ = last._inbound_nodes[node].input_tensors[0]._keras_history
    return getattr(last, "activation", None) in (keras.activations.linear, keras.activations.relu)


_HARMLESS = (
    FakeQuantize,
    keras.layers.Flatten,
    keras.layers.GlobalAveragePooling2D,
    keras.layers.Reshape,
)


def _is_cast(layer: Any) -> bool:
    """Whether a layer only ends mixed precision, in the way of Keras' guide."""
    return (
        isinstance(layer, keras.layers.Activation) and layer.activation is keras.activations.linear
    )


def with_softmax(model: keras.Model) -> keras.Model:
    """Appends a softmax to a model that ends in logits."""
    if not gives_logits(model):
        return model
    outputs = keras.layers.Activation("softmax", dtype="float32")(model.outputs[0])
    return keras.Model(model.inputs[0], outputs, name=model.name)


def features_model(model: keras.Model) -> keras.Model:
    """Returns the part of a classifier that gives `(batch, channels)` features.

    Raises:
        ExportError: No layer is named `logits...` and none is a `Dense` one.
    """
    heads = [layer for layer in model.layers if layer.name.startswith("logits") and layer.weights]
    heads = heads or [layer for layer in model.layers if isinstance(layer, keras.layers.Dense)][-1:]
    if not heads:
        raise ExportError(f"No classifier was found in {model.name!r}: no features to export.")
    features = keras.tree.flatten(heads[0].input)[0]  # a quantized layer has its step, too
    if len(features.shape) == 4:
        features = keras.layers.GlobalAveragePooling2D(dtype="float32")(features)
    return keras.Model(model.inputs[0], features, name=f"{model.name}_features")


def frozen_function(model: keras.Model, input_spec: tf.TensorSpec) -> Any:
    """Returns a concrete function of `model` with its weights as constants, float32 out.

    oneDNN lays out a constant kernel once for the processor; that of a variable at each call.

    Args:
        model: Made by `inference_model`.
        input_spec: Of the images; other dtypes than the model's are cast.
    """
    trainable = [keras.ops.convert_to_numpy(v) for v in model.trainable_variables]
    fixed = [keras.ops.convert_to_numpy(v) for v in model.non_trainable_variables]

    @tf.function(input_signature=[input_spec], autograph=False)
    def network(images):
        images = tf.cast(images, model.inputs[0].dtype)
        outputs, _ = model.stateless_call(trainable, fixed, images, training=False)
        return tf.nest.map_structure(lambda output: tf.cast(output, tf.float32), outputs)

    return network
