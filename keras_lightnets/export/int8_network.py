"""A network whose feature maps TensorFlow computes in int8, by oneDNN's quantized convolutions.

Their numbers are levels from 0 to 255. The operations know no zero point but 0; what a tensor's
zero adds to a convolution is the same for all pixels, so that it is part of the bias.
"""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_lightnets import layers as ours
from keras_lightnets.errors import ExportError
from keras_lightnets.export.int8_convolution import Levels, convolution, quantized
from keras_lightnets.export.litert import equalized
from keras_lightnets.inference.folding import copy_weights, rewrite
from keras_lightnets.inference.function import inference_model, is_quantized
from keras_lightnets.layers import fake_quantization as fake
from keras_lightnets.quantization.aware import quantize_aware

_INSTRUCTIONS = {"avx512_vnni", "avx_vnni", "amx_int8"}
_CPU = pathlib.Path("/proc/cpuinfo")


def int8_model(
    model: keras.Model, images: np.ndarray | None, *, equalize: bool = False
) -> keras.Model:
    """Returns a copy of a MobileNet for inference, with feature maps in int8.

    Its convolutions up to the pooled features have int8 weights, with a scale for each output
    channel, and 8-bit inputs and outputs. Ranges are those of the fake quantization in `model`, or
    what `images` give. Pixels and probabilities stay float32, and so does the classifier, whose
    weights are rounded as the others.

    Args:
        model: As for `inference_model`; floating point, or made by `quantize_aware`.
        images: Pixels `(n, height, width, 3)`, uint8, like those to classify; None: only for a
            model that knows its ranges.
        equalize: Whether biases are corrected before; channels are made equally large anyway.

    Raises:
        ExportError: This processor has no instructions for int8, there are no images, a layer gives
            no range, or one has no such form.
    """
    _check_processor()
    if is_quantized(model):
        if equalize:
            raise ExportError("The network is trained for int8: leave out `equalize`.")
    else:
        if images is None:
            raise ExportError("precision='int8' needs representative images to learn ranges from.")
        if equalize:
            model = equalized(inference_model(model, merge_pads=False), images)
        try:
            model = quantize_aware(model, images)
        except ValueError as error:
            raise ExportError(f"int8: {error}") from error
    return with_int8_maps(inference_model(model, merge_pads=False))


def _check_processor() -> None:
    """Without them oneDNN adds up in 16 bits, which overflow."""
    known = _CPU.read_text() if _CPU.exists() else ""
    if not _INSTRUCTIONS & set(known.split()):
        raise ExportError(
            "precision='int8' needs a processor with VNNI or AMX, here and where it is served: "
            f"{_CPU} names neither. Use 'bfloat16' or 'float32'."
        )


def with_int8_maps(network: keras.Model) -> keras.Model:
    """Returns a copy that computes in int8 up to the global pooling; see `int8_model`.

    Args:
        network: Made by `inference_model` of one by `quantize_aware`.
    """
    pools = [layer for layer in network.layers if _is_pooling(layer)]
    if len(pools) != 1:
        raise ExportError("precision='int8' needs a network with one GlobalAveragePooling2D.")
    maps = _Int8Maps(keras.Model(network.inputs, pools[0].input))

    def new_layer(layer: keras.layers.Layer) -> Any:
        """What is left behind the maps; the layers that make them hand these on."""
        config = layer.get_config()
        rebuilt = keras.layers.Dense if isinstance(layer, keras.layers.Dense) else type(layer)
        clone = rebuilt.from_config(config)

        def call(x: Any, step: Any = None, out: Any = None, **options: Any) -> Any:
            x = keras.tree.flatten(x)[0]
            done = isinstance(layer, fake.FakeQuantize) or len(x.shape) == 4
            return x if done and not _is_pooling(layer) else clone(x, **options)

        call.set_weights = lambda _: clone.set_weights(_weights(layer)) if clone.built else None
        return call

    served, pairs = rewrite(network, new_layer, lambda inner: inner, enter=maps)
    copy_weights(pairs)
    return served


def _is_pooling(layer: Any) -> bool:
    return isinstance(layer, keras.layers.GlobalAveragePooling2D)


def _weights(layer: Any) -> list[np.ndarray]:
    """Kernel, as rounded in training, and bias."""
    bias = layer.bias if layer.use_bias else np.zeros(layer.output.shape[-1])
    return [keras.ops.convert_to_numpy(each) for each in (layer.kernel, bias)]


class _Int8Maps(keras.layers.Layer):
    """Images `(batch, height, width, 3)` to feature maps `(batch, height, width, channels)`.

    Keras has no tensors of quantized types: what is between is one layer to it.
    """

    def __init__(self, network: keras.Model) -> None:
        super().__init__(name="int8_maps", dtype="float32")
        # A function, so that Keras does not find the float32 weights.
        forms = {layer.name: _form(layer) for layer in network.layers}
        self._run = lambda images: network._run_through_graph(images, lambda x: forms[x.name])
        self._shape = network.outputs[0].shape

    def compute_output_spec(self, images: keras.KerasTensor) -> keras.KerasTensor:
        return keras.KerasTensor(self._shape, "float32")

    def call(self, images: tf.Tensor) -> tf.Tensor:
        return _computed(self._run(images)).numbers()


@dataclasses.dataclass(frozen=True)
class _Convolution:
    """A convolution that is not computed yet: its range, and what is added, come later."""

    compute: Callable[..., Levels]
    limits: tuple[float, float] | None = None
    added: Levels | None = None

    @functools.cached_property
    def levels(self) -> Levels:
        return self.compute(limits=self.limits, added=self.added)


@dataclasses.dataclass(frozen=True)
class _Padded:
    """What the convolution behind it is to pad."""

    inside: Levels
    padding: Any


def _computed(x: Levels | _Convolution) -> Levels:
    return x.levels if isinstance(x, _Convolution) else x


def _form(layer: Any) -> Callable[..., Any]:
    """What a layer does to `Levels` and to convolutions not yet computed."""
    if isinstance(layer, fake.FakeQuantize):
        return functools.partial(_rounded, limits=_limits(layer))
    if isinstance(layer, keras.layers.Rescaling):
        return lambda x, **_: _computed(x).rescaled(layer.scale, layer.offset)
    if isinstance(layer, keras.layers.ZeroPadding2D):
        return lambda x: _Padded(_computed(x), layer.padding)
    if isinstance(layer, keras.layers.Add):
        return _added
    # The range of a ReLU begins at zero and ends where it ends: to clip is to activate.
    relu = getattr(layer, "activation", None) in (keras.activations.relu, keras.activations.relu6)
    if isinstance(layer, ours.Notes | keras.layers.InputLayer | keras.layers.ReLU) or (
        relu and isinstance(layer, ours.Activation | keras.layers.Activation)
    ):
        return lambda x: x
    if isinstance(layer, fake.QuantizedConv2D | fake.QuantizedDepthwiseConv2D) and _is_known(layer):
        return functools.partial(_convolved, layer, *_weights(layer))
    raise ExportError(
        f"precision='int8': TensorFlow has no int8 form of the layer {layer.name!r} "
        f"({type(layer).__name__}). MobileNet v1 and v2 have one throughout."
    )


def _is_known(layer: Any) -> bool:
    depthwise = isinstance(layer, keras.layers.DepthwiseConv2D)
    single = layer.depth_multiplier == 1 if depthwise else layer.groups == 1
    plain = layer.data_format == "channels_last" and set(layer.dilation_rate) == {1}
    return single and plain and len({*layer.strides}) == 1


def _limits(layer: fake.FakeQuantize) -> tuple[float, float]:
    low, high = layer.ends()
    return float(low), float(high)


def _rounded(x: Any, limits: tuple[float, float], member: int | None = 0, **_: Any) -> Any:
    if member is None:  # what lies between two levels is known from the levels themselves
        return x
    if isinstance(x, _Convolution):
        return dataclasses.replace(x, limits=limits)
    # Pixels that were scaled are as exact as they were.
    return x if isinstance(x, Levels) else quantized(x, limits)


def _convolved(layer: Any, kernel: np.ndarray, bias: np.ndarray, x: Any, **_: Any) -> _Convolution:
    padding = getattr(layer, "pads", None) or layer.padding
    if isinstance(x, _Padded):
        x, padding = x.inside, x.padding
    depthwise, stride = isinstance(layer, keras.layers.DepthwiseConv2D), layer.strides[0]
    compute = functools.partial(
        convolution, _computed(x), kernel, bias, depthwise=depthwise, stride=stride, padding=padding
    )
    return _Convolution(compute)


def _added(both: Sequence[Any], **_: Any) -> _Convolution:
    """A convolution adds the other tensor before it rounds."""
    last = next((x for x in reversed(both) if isinstance(x, _Convolution) and not x.added), None)
    if last is None or len(both) != 2:
        raise ExportError("precision='int8': an Add is not of two tensors, one of a convolution.")
    first = both[0] if last is both[1] else both[1]
    return _Convolution(last.compute, added=_computed(first))
