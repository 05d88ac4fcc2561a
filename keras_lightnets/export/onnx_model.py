"""The network as an ONNX file: in float32, or in int8 between quantization nodes."""

from __future__ import annotations

import pathlib
import tempfile
import types
from typing import Any

import keras
import numpy as np

from keras_lightnets.export import litert
from keras_lightnets.export.described import Description

_OPSET = 17


def write(
    network: keras.Model,
    path: pathlib.Path,
    about: Description | None = None,
    images: np.ndarray | None = None,
    *,
    grouped: bool = True,
) -> None:
    """Writes a file with float32 input and output.

    Args:
        network: Made by `inference_model`.
        path: Of the file.
        about: What it says about itself.
        images: None: it computes in float32. Pixels `(n, height, width, 3)`, at least
            `litert.MIN_IMAGES`: in int8, with weights in int8 with a scale for each output channel,
            activations in uint8 and biases in int32; the softmax stays in float. The range of each
            tensor is that of the fake quantization in `network`, or else what `images` give.
        grouped: Whether grouped convolutions, other than depthwise ones, are in int8, too.

    Raises:
        ExportError: int8 cannot learn from these images; see `litert.int8_file`.
    """
    import onnx

    if images is None:
        model = _float_model(network)
    else:
        images = litert.int8_images(network, images)
        model = _float_model(litert.scaled_once(network))
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            model = _int8_model(model, images, pathlib.Path(folder), grouped)
    onnx.helper.set_model_props(model, about.properties() if about else {})
    onnx.save(model, str(path))


def _float_model(network: keras.Model) -> Any:
    import tf2onnx

    function = litert.traced(network)
    model, _ = tf2onnx.convert.from_function(function, function.input_signature, opset=_OPSET)
    # By name "known" would come first; who asks for one output wants probabilities.
    model.graph.output.sort(key=lambda output: output.name, reverse=True)
    return model


def _int8_model(model: Any, images: np.ndarray, folder: pathlib.Path, grouped: bool) -> Any:
    import onnx
    from onnxruntime.quantization import QuantType, preprocess, quantize_static

    ranges = _without_quantization(model.graph)
    feeds = ({model.graph.input[0].name: image[None]} for image in images)
    given, prepared, written = (str(folder / f"{n}.onnx") for n in range(3))
    onnx.save(model, given)
    # As ONNX Runtime's guide advises. Symbolic shapes are for transformers, and need SymPy.
    preprocess.quant_pre_process(given, prepared, skip_symbolic_shape=True)
    graph = onnx.load(prepared).graph
    tensors = {name for node in graph.node for name in (*node.input, *node.output)}
    known = {tensor: [limits] for tensor, limits in ranges.items() if tensor in tensors}
    quantize_static(
        prepared,
        written,
        types.SimpleNamespace(get_next=lambda: next(feeds, None)),
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        nodes_to_exclude=[
            *(node.name for node in graph.node if node.op_type == "Softmax"),
            *(() if grouped else _grouped(graph)),
        ],
        extra_options={"TensorQuantOverrides": known},
    )
    return onnx.load(written)


def _grouped(graph: Any) -> list[str]:
    """Returns the names of grouped convolutions that are not depthwise."""
    inputs = {each.name: each.dims[1] for each in graph.initializer if len(each.dims) == 4}
    return [
        node.name
        for node in graph.node
        if any(each.name == "group" and each.i > 1 for each in node.attribute)
        and inputs.get(node.input[1], 1) > 1
    ]


def _without_quantization(graph: Any) -> dict[str, dict[str, np.ndarray]]:
    """Takes pairs of quantization nodes out of a graph; returns tensor -> scale and zero point.

    ONNX Runtime adds its own around each operation, in those ranges.
    """
    import onnx

    numbers = {each.name: onnx.numpy_helper.to_array(each) for each in graph.initializer}
    came_from: dict[str, str] = {}
    ranges = {}
    kept = []
    for node in graph.node:  # in the order of the computation
        node.input[:] = [came_from.get(name, name) for name in node.input]
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            tensor, scale, zero_point = node.input
            ranges[tensor] = {"scale": numbers[scale], "zero_point": numbers[zero_point]}
            came_from[node.output[0]] = tensor
            continue
        kept.append(node)
    for node in kept:
        # ONNX Runtime leaves out an activation whose range it takes to begin at zero. One that
        # shares its range with other tensors, as a concatenation asks for, may begin below.
        limits = ranges.get(node.output[0])
        if limits and node.op_type in ("Relu", "Clip"):
            scale, zero = limits.values()
            share = np.float32(255 - zero) / np.float32(255)
            narrow = {"scale": np.asarray(scale * share), "zero_point": np.zeros_like(zero)}
            ranges[node.output[0]] = narrow
    used = {name for node in kept for name in node.input}
    initializers = [each for each in graph.initializer if each.name in used]
    for own, rest in ((graph.node, kept), (graph.initializer, initializers)):
        del own[:]
        own.extend(rest)
    return ranges
