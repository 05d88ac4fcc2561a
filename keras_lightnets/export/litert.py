"""The network as a LiteRT file: in float32, with smaller weights, or whole numbers throughout."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_lightnets.errors import ExportError
from keras_lightnets.export import runtimes
from keras_lightnets.inference.equalization import correct_biases, equalize
from keras_lightnets.inference.folding import calls_of, rewrite, tensor_name
from keras_lightnets.inference.function import frozen_function, is_quantized, with_dtype
from keras_lightnets.layers import FakeQuantize
from keras_lightnets.layers.grouped_conv2d import Form, GroupedConv2D, grouped_conv_form

MIN_IMAGES = 32
_BATCH_SIZE = 4  # the outputs of all layers at once: 30 MB an image for MobileNet v2 at 224 pixels


def float_file(network: keras.Model, *, weights: str = "float32") -> bytes:
    """Returns a file with float32 input and output.

    Args:
        network: Made by `inference_model`.
        weights: "float32", "float16", or "int8": the dynamic range of activations is then found
            while the file runs.
    """
    converter = _converter(_for_float(network))
    if weights != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if weights == "float16":
        converter.target_spec.supported_types = [tf.float16]
    return _converted(converter)


def int8_file(network: keras.Model, images: np.ndarray) -> bytes:
    """Returns a file that computes in whole numbers only.

    Weights are int8 with a scale for each output channel, activations int8, biases int32. The
    input is uint8 pixels `(1, height, width, 3)`, the output uint8 probabilities `(1, classes)` in
    steps of 1/256. The range of each tensor is that of the fake quantization in `network`
    (`tf.quantization.fake_quant_with_min_max_vars`), or else what `images` give.

    Args:
        network: Made by `inference_model`. With fake quantization it must have it on the pixels
            too, from 0 to 255.
        images: Pixels `(n, height, width, 3)`, at least `MIN_IMAGES`.

    Raises:
        ExportError: There are fewer images; a layer gives NaN, or the same number for all of
            them; or an operation would stay in float.
    """
    images = int8_images(network, images)
    converter = _converter(traced(scaled_once(network), batch=1))
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.inference_input_type = converter.inference_output_type = tf.uint8
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    # Where the network has fake quantization, the converter takes its ranges.
    converter.representative_dataset = lambda: ([image[None]] for image in images)
    content = _converted(converter)
    for tensor in runtimes.litert_interpreter(content).get_tensor_details():
        if np.issubdtype(tensor["dtype"], np.floating):
            raise ExportError(f"LiteRT cannot compute {tensor['name']!r} in whole numbers.")
    return content


def int8_images(network: keras.Model, images: np.ndarray) -> np.ndarray:
    """Returns images as float32, from which int8 may learn its ranges; see `int8_file`."""
    if len(images) < MIN_IMAGES:
        raise ExportError(
            f"int8 learns its ranges from at least {MIN_IMAGES} images. Received: {len(images)}"
        )
    images = images.astype("float32")
    # The step of the input is then 1: pixels go in as they are.
    images[0].flat[:2] = 0, 255
    _check_ranges(network, images)
    return images


def equalized(network: keras.Model, images: np.ndarray) -> keras.Model:
    """Returns a copy with equally large channels and corrected biases, for `int8_file`.

    Args:
        network: Made by `inference_model`.
        images: Pixels `(n, height, width, 3)`.
    """
    network = with_dtype(network, lambda layer: "float32")
    equalize(network)
    sums: dict[str, np.ndarray] = {}
    for values in _in_batches(layer_outputs(network), images):
        for name, value in values.items():
            mean = value.mean(tuple(range(1, value.ndim - 1))).sum(0)
            sums[name] = sums.get(name, 0) + mean
    correct_biases(network, {name: total / len(images) for name, total in sums.items()})
    return network


def traced(network: keras.Model, batch: int | None = None, form: Form = "native") -> Any:
    """Returns a function of float32 images, see `frozen_function`, traced once.

    Args:
        network: Made by `inference_model`. Layers that round compute in real numbers: converters
            make whole ones of them by themselves.
        batch: Its size; None: any.
        form: Of grouped convolutions.
    """
    spec = tf.TensorSpec((batch, *network.inputs[0].shape[1:]), tf.float32, name="images")
    function = frozen_function(_in_real_numbers(network), spec)
    with grouped_conv_form(form):
        function.get_concrete_function()
    return function


def _in_real_numbers(network: keras.Model) -> keras.Model:
    def same_layer(layer: keras.layers.Layer) -> Any:
        if type(layer).__module__ != FakeQuantize.__module__:
            return layer
        return lambda *inputs, out=None, mean=False, **options: layer(*inputs, **options)

    return (
        rewrite(network, same_layer, lambda inner: inner)[0] if is_quantized(network) else network
    )


def layer_outputs(network: keras.Model) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """Returns a function from images to what each layer gives, by `tensor_name`, in their order."""
    calls = reversed(calls_of(network))  # Keras lists the last one first
    # Without numbers that are not of an image, such as the step between two levels.
    tensors = [tensor for node in calls for tensor in node.outputs if tensor.shape]
    outputs = {tensor_name(tensor): tensor for tensor in tensors}
    model = keras.Model(network.inputs, list(outputs.values()))
    run = tf.function(lambda images: model(images, training=False), autograph=False)

    def ask(images: np.ndarray) -> dict[str, np.ndarray]:
        with tf.device("CPU:0"):
            values = run(tf.constant(images, tf.float32))
        return {name: value.numpy() for name, value in zip(outputs, values, strict=True)}

    return ask


def _check_ranges(network: keras.Model, images: np.ndarray) -> None:
    """Raises ExportError for the first layer whose output has no range."""
    low: dict[str, float] = {}
    high: dict[str, float] = {}
    for values in _in_batches(layer_outputs(network), images):
        for name, value in values.items():
            if not np.isfinite(value).all():
                raise ExportError(f"int8: the layer {name!r} gives NaN or infinity for an image.")
            low[name] = min(low.get(name, np.inf), value.min())
            high[name] = max(high.get(name, -np.inf), value.max())
    for name in low:
        if high[name] - low[name] <= 1e-6 * max(abs(low[name]), abs(high[name])):
            raise ExportError(
                f"int8: the layer {name!r} gives {high[name]:g} everywhere for all "
                f"{len(images)} images, so it has no range. Are they the images it was trained on?"
            )


def _in_batches(ask: Callable, images: np.ndarray) -> Iterator[dict[str, np.ndarray]]:
    for start in range(0, len(images), _BATCH_SIZE):
        yield ask(images[start : start + _BATCH_SIZE])


def scaled_once(network: keras.Model) -> keras.Model:
    """Makes normalization of pixels a depthwise convolution of 1x1.

    As a multiplication and an addition it would be rounded twice, the first time in a range that
    wastes half of the steps.
    """
    scalings = {}

    def new_layer(layer: keras.layers.Layer) -> keras.layers.Layer:
        if type(layer) is not keras.layers.Rescaling or layer.output.shape[-1:] != (3,):
            return layer
        scalings[layer.name] = layer
        return keras.layers.DepthwiseConv2D(1, name=layer.name)

    scaled, pairs = rewrite(network, new_layer, lambda inner: inner)
    for layer, clone in pairs:
        if layer.name in scalings:
            scale, offset = (np.broadcast_to(x, 3) for x in (layer.scale, layer.offset))
            clone.set_weights([scale.reshape(1, 1, 3, 1), offset])
    return scaled


def _for_float(network: keras.Model) -> Any:
    """Returns a function of `network` that LiteRT's converter takes.

    It refuses a grouped convolution of a batch of unknown size. One of size 1 it takes, and the
    file can be resized to other batches, unless an operation has been given the 1 as a number.
    Then the grouped convolutions are split: ShuffleNet v1 takes 1.3 times as long.
    """
    layers = network._flatten_layers()
    if not any(isinstance(layer, GroupedConv2D) and layer.groups > 1 for layer in layers):
        return traced(network)
    single = traced(network, batch=1)
    graph = single.get_concrete_function().graph
    reshapes = [
        op
        for op in graph.get_operations()
        # A constant, such as the mean of the pixels, has no batch.
        if op.type == "Reshape" and tf.get_static_value(op.inputs[0]) is None
    ]
    shapes = [tf.get_static_value(op.inputs[1]) for op in reshapes]
    if all(shape is not None and shape[0] == -1 for shape in shapes):
        return single
    return traced(network, form="split")


def _converter(function: Any) -> Any:
    concrete = function.get_concrete_function()
    return tf.lite.TFLiteConverter.from_concrete_functions([concrete], tf.Module())


def _converted(converter: Any) -> bytes:
    with runtimes.without_notices():
        return converter.convert()
