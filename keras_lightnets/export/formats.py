"""The network as a file for LiteRT, ONNX Runtime, OpenVINO and plain Keras, each checked.

    DIR/<name>/<version>/formats/model.tflite, model-int8.tflite, model.onnx, model.xml + .bin,
                                 model.keras
    DIR/<name>/<version>/formats/labels.txt, metadata.json

TensorFlow Serving ignores what it does not know in a version. Without a SavedModel the files go
to DIR/<name>/formats/<version>, since servers ignore directories whose names are no numbers.
"""

from __future__ import annotations

import pathlib
import tempfile
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_lightnets.errors import ExportError
from keras_lightnets.export import bundle, parity, runtimes
from keras_lightnets.export.signatures import Endpoints
from keras_lightnets.inference.function import (
    frozen_function,
    in_float32,
    inference_model,
    with_softmax,
)
from keras_lightnets.inference.plain import plain_keras
from keras_lightnets.layers.grouped_conv2d import Form, GroupedConv2D, grouped_conv_form
from keras_lightnets.text import first_line

DIRECTORY = bundle.FORMATS
TOLERANCE = 1e-4  # largest difference of two probabilities; the runtimes sum in other orders
_BATCH_SIZE = 16
_ONNX_OPSET = 17


def convert(
    model: keras.Model,
    directory: pathlib.Path,
    formats: Sequence[str],
    held_out: parity.HeldOut,
    *,
    representative: np.ndarray | None = None,
    max_accuracy_drop: float = 0.01,
) -> dict[str, Any]:
    """Writes `model` into `directory` in other formats and compares each with it.

    The input of all is float32 `(batch, height, width, 3)`, pixels from 0 to 255; the output
    float32 probabilities `(batch, classes)`.

    Args:
        model: As for `export_saved_model`.
        directory: Exists.
        formats: Keys of `runtimes.FILES`.
        held_out: Images to compare on.
        representative: Images `(n, height, width, 3)` from which "litert-int8" learns the range
            of every tensor.
        max_accuracy_drop: What "litert-int8" may lose on `held_out`.

    Returns:
        Format -> file and comparison.

    Raises:
        ExportError: A package is missing, or a converter fails.
        ParityError: A converted network answers differently.
    """
    runtimes.check_installed(formats)
    if "litert-int8" in formats and representative is None:
        raise ExportError("The format 'litert-int8' needs representative images.")
    expected = parity.predict(model, held_out.images)
    network = inference_model(model, merge_pads=False)
    report = {}
    for name in formats:
        path = directory / runtimes.FILES[name][0]
        try:
            if name == "keras":
                plain_keras(with_softmax(in_float32(model))).save(path)
                written = keras.saving.load_model(path, compile=False)
                received = parity.predict(written, held_out.images)
            else:
                _write(name, network, path, representative)
                predict = runtimes.LOADERS[path.suffix](path)
                received = np.concatenate(
                    [
                        np.array(predict(held_out.images[start : start + _BATCH_SIZE]))
                        for start in range(0, len(held_out.images), _BATCH_SIZE)
                    ]
                )
        except (ExportError, OSError):
            raise
        except Exception as error:  # whatever a converter raises
            raise ExportError(f"The conversion to {name} failed: {first_line(error)}") from error
        drop = max_accuracy_drop if name == "litert-int8" else None
        report[name] = {
            "file": path.name,
            **parity.compare(name, expected, received, held_out.labels, drop, TOLERANCE),
        }
    return report


def _write(name: str, network: keras.Model, path: pathlib.Path, representative: Any) -> None:
    if path.suffix == ".tflite":
        images = representative if name == "litert-int8" else None
        path.write_bytes(_litert(_for_litert(network), images))
    elif name == "onnx":
        import tf2onnx

        function = _traced(network)
        tf2onnx.convert.from_function(
            function, function.input_signature, opset=_ONNX_OPSET, output_path=str(path)
        )
    else:
        _openvino(_traced(network), path)


def _traced(network: keras.Model, batch: int | None = None, form: Form = "native") -> Any:
    spec = tf.TensorSpec((batch, *network.inputs[0].shape[1:]), tf.float32, name="images")
    function = frozen_function(network, spec)
    with grouped_conv_form(form):
        function.get_concrete_function()
    return function


def _for_litert(network: keras.Model) -> Any:
    """Returns a function of `network` that LiteRT's converter takes.

    It refuses a grouped convolution of a batch of unknown size. One of size 1 it takes, and the
    file can be resized to other batches, unless an operation has been given the 1 as a number.
    Then the grouped convolutions are split: ShuffleNet v1 takes 1.3 times as long.
    """
    layers = network._flatten_layers()
    if not any(isinstance(layer, GroupedConv2D) and layer.groups > 1 for layer in layers):
        return _traced(network)
    single = _traced(network, batch=1)
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
    return _traced(network, form="split")


def _litert(function: Any, representative: np.ndarray | None) -> bytes:
    concrete = function.get_concrete_function()
    converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete], tf.Module())
    if representative is not None:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        images = representative.astype("float32")
        converter.representative_dataset = lambda: ([image[None]] for image in images)
    with runtimes.without_notices():
        return converter.convert()


def _openvino(function: Any, path: pathlib.Path) -> None:
    import openvino

    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        module = Endpoints()
        module.network = function
        tf.saved_model.save(module, folder, signatures=function.get_concrete_function())
        model = openvino.convert_model(folder)
        # Else the file names this folder.
        model.set_rt_info("saved_model", ["conversion_parameters", "input_model"])
        # It rounds weights to float16 unless told not to.
        openvino.save_model(model, str(path), compress_to_fp16=False)
