"""The network as files for LiteRT, ONNX Runtime, OpenVINO, plain Keras and browsers, each checked.

    DIR/<name>/<version>/formats/model.tflite, model-float16.tflite, model-dynamic.tflite,
                                 model-int8.tflite, model.onnx, model-int8.onnx, model.xml + .bin,
                                 model-int8.xml + .bin, model.keras, web (a folder)
    DIR/<name>/<version>/formats/labels.txt, metadata.json

TensorFlow Serving ignores what it does not know in a version. Without a SavedModel the files go
to DIR/<name>/formats/<version>, since servers ignore directories whose names are no numbers.
"""

from __future__ import annotations

import functools
import pathlib
import tempfile
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_lightnets.errors import ExportError, ParityError
from keras_lightnets.export import (
    bundle,
    layer_noise,
    litert,
    onnx_model,
    parity,
    runtimes,
    tasks,
    web,
)
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
from keras_lightnets.layers.notes import notes
from keras_lightnets.text import first_line

DIRECTORY = bundle.FORMATS
TOLERANCE = 1e-4  # largest difference of two probabilities; the runtimes sum in other orders
_BATCH_SIZE = 16
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
    float32 probabilities `(batch, classes)`, or what else its task has. In "litert-int8" both are
    uint8, see `litert.int8_file`. With `rejection` there is a second output, see `rejecting`.

    Args:
        model: As for `export_saved_model`.
        directory: Exists.
        formats: Keys of `runtimes.FILES`.
        held_out: Images to compare on.
        about: What LiteRT, ONNX and OpenVINO files say about themselves, and the page for
            browsers; None: nothing, and no page.
        timed: Whether the milliseconds for one image on this machine are measured.
        representative: Images `(n, height, width, 3)` from which int8 formats learn the range of
            every tensor.
        equalize: Whether the network of int8 formats is first changed by `litert.equalized`.
        max_accuracy_drop: What formats with rounded weights may lose on `held_out`.
        rejection: When an image is of none of the classes; None: never.

    Returns:
        Format -> file and comparison.

    Raises:
        ExportError: A package is missing, or a converter fails.
        ParityError: A converted network answers differently. For "litert-int8" the message names
            the layers where it parts from float.
    """
    runtimes.check_installed(formats)
    task = tasks.of(notes(model).get("task"))
    task.check(formats)
    int8 = [name for name in formats if name in runtimes.INT8]
    if int8 and representative is None:
        raise ExportError(f"The format {int8[0]!r} needs representative images.")
    quantized = is_quantized(model)
    if equalize and quantized:
        raise ExportError("The network is trained for int8: leave out `equalize`.")
    if rejection is not None and int8:
        raise ExportError(
            f"{int8[0]!r} cannot tell which images are known: it computes in 256 steps. Leave it "
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
        source = small if name in runtimes.INT8 else network
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
                found = parity.compare(name, expected, received, labels, drop, TOLERANCE, task)
        except ParityError as error:
            if name not in runtimes.INT8:
                raise
            advice = layer_noise.advice(equalized=equalize, trained=quantized)
            if name == "litert-int8":
                found = layer_noise.told(small, path.read_bytes(), held_out.images)
                advice = f"{found} {advice}"
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
    images = representative if name in runtimes.INT8 else None
    if path.suffix == ".tflite":
        if images is not None:
            content = litert.int8_file(network, images)
        else:
            content = litert.float_file(network, weights=_WEIGHTS[name])
        path.write_bytes(with_metadata(content, about) if about else content)
    elif path.suffix == ".onnx":
        onnx_model.write(network, path, about, images)
    else:
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            if images is not None:
                source = pathlib.Path(folder, "model.onnx")
                # OpenVINO 2026.4 answers wrongly for groups of 80 channels in int8.
                onnx_model.write(network, source, images=images, grouped=False)
            else:
                source = pathlib.Path(folder, "saved_model")
                module, function = Endpoints(), litert.traced(network)
                module.network = function
                tf.saved_model.save(module, source, signatures=function.get_concrete_function())
            _openvino(source, path, about)


def _openvino(source: pathlib.Path, path: pathlib.Path, about: Description | None) -> None:
    import openvino

    model = openvino.convert_model(source)
    # Else the file names the folder of this process.
    model.set_rt_info(source.name, ["conversion_parameters", "input_model"])
    for key, value in (about.properties() if about else {}).items():
        model.set_rt_info(value, ["model_info", key])
    # It rounds weights to float16 unless told not to.
    openvino.save_model(model, str(path), compress_to_fp16=False)
