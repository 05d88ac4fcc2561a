"""The network as files for LiteRT, ONNX Runtime, OpenVINO, plain Keras and browsers, each checked.

    DIR/<name>/<version>/formats/model.tflite, model-float16.tflite, model-dynamic.tflite,
                                 model-int8.tflite, model.onnx, model.xml + .bin, model.keras,
                                 web (a folder)
    DIR/<name>/<version>/formats/labels.txt, metadata.json

TensorFlow Serving ignores what it does not know in a version. Without a SavedModel the files go
to DIR/<name>/formats/<version>, since servers ignore directories whose names are no numbers.
"""

from __future__ import annotations

import functools
import pathlib
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_lightnets.errors import ExportError, ParityError
from keras_lightnets.export import bundle, layer_noise, litert, parity, runtimes, web
from keras_lightnets.export.answers import Answer, joined
from keras_lightnets.export.described import Description, with_metadata
from keras_lightnets.export.signatures import Endpoints
from keras_lightnets.inference.function import (
    in_float32,
    inference_model,
    is_quantized,
    with_softmax,
)
from keras_lightnets.inference.plain import plain_keras
from keras_lightnets.inference.rejection import Rejection, rejecting
from keras_lightnets.inference.timing import milliseconds
from keras_lightnets.text import first_line

DIRECTORY = bundle.FORMATS
TOLERANCE = 1e-4  # largest difference of two probabilities; the runtimes sum in other orders
_BATCH_SIZE = 16
_ONNX_OPSET = 17
_WEIGHTS = {"litert": "float32", "litert-float16": "float16", "litert-dynamic": "int8"}


def convert(
    model: keras.Model,
    directory: pathlib.Path,
    formats: Sequence[str],
    held_out: parity.HeldOut,
    about: Description | None = None,
    *,
    timed: bool = False,
    representative: np.ndarray | None = None,
    equalize: bool = False,
    max_accuracy_drop: float = 0.01,
    rejection: Rejection | None = None,
) -> dict[str, Any]:
    """Writes `model` into `directory` in other formats and compares each with it.

    The input of all is float32 `(batch, height, width, 3)`, pixels from 0 to 255; the output
    float32 probabilities `(batch, classes)`. In "litert-int8" both are uint8, see
    `litert.int8_file`. With `rejection` there is a second output, see `rejecting`.

    Args:
        model: As for `export_saved_model`.
        directory: Exists.
        formats: Keys of `runtimes.FILES`.
        held_out: Images to compare on.
        about: What LiteRT, ONNX and OpenVINO files say about themselves, and the page for
            browsers; None: nothing, and no page.
        timed: Whether the milliseconds for one image on this machine are measured.
        representative: Images `(n, height, width, 3)` from which "litert-int8" learns the range
            of every tensor.
        equalize: Whether the network of "litert-int8" is first changed by `litert.equalized`.
        max_accuracy_drop: What formats with rounded weights may lose on `held_out`.
        rejection: When an image is of none of the classes; None: never.

    Returns:
        Format -> file and comparison.

    Raises:
        ExportError: A package is missing, or a converter fails.
        ParityError: A converted network answers differently; that of "litert-int8" names the
            layers where it parts from float.
    """
    runtimes.check_installed(formats)
    if "litert-int8" in formats and representative is None:
        raise ExportError("The format 'litert-int8' needs representative images.")
    quantized = is_quantized(model)
    if equalize and quantized:
        raise ExportError("The network is trained for int8: leave out `equalize`.")
    if rejection is not None and "litert-int8" in formats:
        raise ExportError(
            "'litert-int8' cannot tell which images are known: it computes in 256 steps. Leave it "
            "out, or export it without `rejection`."
        )
    expected = parity.ask(model, held_out.images, rejection)
    network = rejecting(inference_model(model, merge_pads=False), rejection)
    small = network
    if equalize and representative is not None:
        small = litert.equalized(network, representative)
    report = {}
    for name in formats:
        path = directory / runtimes.FILES[name][0]
        drop = max_accuracy_drop if quantized or name in runtimes.ROUNDED else None
        source = small if name == "litert-int8" else network
        try:
            if name == "web":
                if about is None:
                    raise ExportError("The format 'web' needs `about`.")
                path.mkdir()
                _write("onnx", network, path / web.MODEL, None, about)
                found = web.complete(
                    path, about, model, held_out, drop, max_accuracy_drop, TOLERANCE, rejection
                )
            else:
                if name == "keras":
                    source = rejecting(plain_keras(with_softmax(in_float32(model))), rejection)
                received = _written(name, source, path, held_out, representative, about)
                labels = held_out.labels
                found = parity.compare(name, expected, received, labels, drop, TOLERANCE)
        except ParityError as error:
            if name != "litert-int8":
                raise
            advice = layer_noise.advice(small, path.read_bytes(), held_out.images, equalize)
            raise ParityError(f"{error} {advice}") from None
        except (ExportError, OSError):
            raise
        except Exception as error:  # whatever a converter raises
            raise ExportError(f"The conversion to {name} failed: {first_line(error)}") from error
        # OpenVINO's weights are a file of their own.
        files = [path, path.with_suffix(".bin"), *path.glob("*")]
        size = sum(file.stat().st_size for file in files if file.is_file())
        report[name] = {"file": path.name, "bytes": size, **found}
        if timed and name != "web":
            run = runtimes.LOADERS[path.suffix](path)
            taken = milliseconds(functools.partial(run, held_out.images[:1]))
            report[name]["ms_per_image"] = round(taken, 3)
    return report


def _written(
    name: str,
    network: keras.Model,
    path: pathlib.Path,
    held_out: parity.HeldOut,
    representative: Any,
    about: Description | None,
) -> Answer:
    """Writes a file and returns what it answers, read again."""
    if name == "keras":
        network.save(path)
        written = keras.saving.load_model(path, compile=False)
        return parity.ask_on_cpu(written, held_out.images)
    _write(name, network, path, representative, about)
    predict = runtimes.LOADERS[path.suffix](path)
    starts = range(0, len(held_out.images), _BATCH_SIZE)
    batches = (held_out.images[start : start + _BATCH_SIZE] for start in starts)
    return joined(map(predict, batches))


def _write(
    name: str,
    network: keras.Model,
    path: pathlib.Path,
    representative: Any,
    about: Description | None,
) -> None:
    if path.suffix == ".tflite":
        if name == "litert-int8":
            content = litert.int8_file(network, representative)
        else:
            content = litert.float_file(network, weights=_WEIGHTS[name])
        path.write_bytes(with_metadata(content, about) if about else content)
        return
    function, properties = litert.traced(network), about.properties() if about else {}
    if name == "onnx":
        import onnx
        import tf2onnx

        written, _ = tf2onnx.convert.from_function(
            function, function.input_signature, opset=_ONNX_OPSET
        )
        # By name "known" would come first; who asks for one output wants probabilities.
        written.graph.output.sort(key=lambda output: output.name, reverse=True)
        onnx.helper.set_model_props(written, properties)
        onnx.save(written, str(path))
    else:
        _openvino(function, path, properties)


def _openvino(function: Any, path: pathlib.Path, properties: Mapping[str, str]) -> None:
    import openvino

    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        module = Endpoints()
        module.network = function
        tf.saved_model.save(module, folder, signatures=function.get_concrete_function())
        model = openvino.convert_model(folder)
        # Else the file names this folder.
        model.set_rt_info("saved_model", ["conversion_parameters", "input_model"])
        for key, value in properties.items():
            model.set_rt_info(value, ["model_info", key])
        # It rounds weights to float16 unless told not to.
        openvino.save_model(model, str(path), compress_to_fp16=False)
