"""Other runtimes than TensorFlow: the names of their formats, and how a file of each is run."""

from __future__ import annotations

import contextlib
import difflib
import importlib
import os
import pathlib
import sys
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from keras_lightnets.errors import ExportError
from keras_lightnets.export.answers import Answer, answer, joined
from keras_lightnets.text import first_line

Predict = Callable[[Any], Answer]

_ONNX = ("onnx", "tf2onnx", "onnxruntime")
# Format -> (file or folder, packages that write and run it).
FILES = {
    "litert": ("model.tflite", ()),
    "litert-float16": ("model-float16.tflite", ()),
    "litert-dynamic": ("model-dynamic.tflite", ()),
    "litert-int8": ("model-int8.tflite", ()),
    "onnx": ("model.onnx", _ONNX),
    "onnx-int8": ("model-int8.onnx", _ONNX),
    "openvino": ("model.xml", ("openvino",)),
    "openvino-int8": ("model-int8.xml", (*_ONNX, "openvino")),
    "keras": ("model.keras", ()),
    "web": ("web", ("onnx", "tf2onnx")),
}
INT8 = {"litert-int8", "onnx-int8", "openvino-int8"}  # weights and activations
ROUNDED = INT8 | {"litert-float16", "litert-dynamic"}  # may lose a little accuracy
TF_SERVING = "tf_serving"
FORMATS = (TF_SERVING, *FILES)


def parse_formats(text: str) -> list[str]:
    """Returns the formats in a comma-separated list, each once; "all" stands for all but "web".

    That one needs a browser.

    Raises:
        ValueError: One is not known; the message names the nearest.
    """
    if text.strip() == "all":
        return [name for name in FORMATS if name != "web"]
    names = list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    check_known(names, FORMATS)
    if not names:
        raise ValueError(f"No format was given. Known are {', '.join(FORMATS)}.")
    return names


def check_known(formats: Sequence[str], known: Collection[str] = FILES) -> None:
    """Raises ExportError if one of `formats` is not known, with the nearest that is."""
    for name in formats:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1, cutoff=0.5)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise ExportError(f"Unknown format {name!r}.{hint} Known are {', '.join(known)}.")


def check_installed(formats: Sequence[str]) -> None:
    """Raises ExportError if a package or program that one of `formats` needs is missing."""
    if "web" in formats:
        from keras_lightnets.export import web  # imports TensorFlow

        web.program()
        web.runtime()
    for name in formats:
        for package in FILES.get(name, ("", ()))[1]:
            _import(package, f"The format {name!r}")


def _import(package: str, what: str) -> Any:
    try:
        return importlib.import_module(package)
    except ImportError:
        raise ExportError(
            f"{what} needs {package}, which is not installed: "
            "pip install 'keras-lightnets[convert]'"
        ) from None


@contextlib.contextmanager
def without_notices() -> Iterator[None]:
    """Drops what is written to file descriptor 2, where LiteRT announces what it does.

    No log level stops it. What goes wrong is raised, not only written.
    """
    sys.stderr.flush()
    kept = os.dup(2)
    with open(os.devnull, "w") as nowhere:  # noqa: PTH123
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def litert_interpreter(
    file: pathlib.Path | bytes, threads: int | None = None, *, keep_all: bool = False
) -> Any:
    """Returns LiteRT's interpreter of a `.tflite` file, ready to run.

    It is that of the package `ai-edge-litert`, or where that is not installed TensorFlow's own,
    which will be removed.

    Args:
        file: Its path or content.
        threads: At most so many; None: LiteRT's own choice.
        keep_all: Whether the outputs of all operations can be read afterwards; slower.
    """
    try:
        litert = importlib.import_module("ai_edge_litert.interpreter")
    except ImportError:
        litert = importlib.import_module("tensorflow.lite.python.interpreter")
    kind = litert.OpResolverType
    source = {"model_content": file} if isinstance(file, bytes) else {"model_path": str(file)}
    with warnings.catch_warnings(), without_notices():
        warnings.filterwarnings("ignore", "(?s).*tf.lite.Interpreter is deprecated", UserWarning)
        interpreter = litert.Interpreter(
            **source,
            num_threads=threads,
            experimental_preserve_all_tensors=keep_all,
            experimental_op_resolver_type=(
                kind.BUILTIN_WITHOUT_DEFAULT_DELEGATES if keep_all else kind.AUTO
            ),
        )
        interpreter.allocate_tensors()
    return interpreter


def load_litert(path: pathlib.Path, threads: int | None = None) -> Predict:
    """Returns a function from images to answers that runs a `.tflite` file.

    Args:
        path: The file. What its input and output stand for, where they are whole numbers, it says
            itself.
        threads: At most so many; None: LiteRT's own choice.
    """
    interpreter = litert_interpreter(path, threads)
    (given,), outputs = interpreter.get_input_details(), {"": interpreter.get_output_details()[0]}
    if len(interpreter.get_signature_list()) == 1:  # it has their names
        outputs = interpreter.get_signature_runner().get_output_details()
    prepared = tuple(given["shape"])

    def run(images):
        nonlocal prepared
        if images.shape != prepared:
            interpreter.resize_tensor_input(given["index"], images.shape)
            interpreter.allocate_tensors()
            prepared = images.shape
        interpreter.set_tensor(given["index"], quantized(images, given))
        interpreter.invoke()
        return answer(
            {
                name: dequantized(interpreter.get_tensor(details["index"]), details)
                for name, details in outputs.items()
            }
        )

    if given["shape_signature"][0] == -1:
        return run
    return lambda images: joined(run(image[None]) for image in images)


def quantized(values: np.ndarray, details: Mapping[str, Any]) -> np.ndarray:
    """Returns numbers as LiteRT's tensor of these `details` holds them."""
    scale, zero = details["quantization"]
    if scale and (values.dtype != details["dtype"] or (scale, zero) != (1, 0)):
        limits = np.iinfo(details["dtype"])
        values = np.clip(np.round(values / scale) + zero, limits.min, limits.max)
    return values.astype(details["dtype"])


def dequantized(values: np.ndarray, details: Mapping[str, Any]) -> np.ndarray:
    """Returns what the content of LiteRT's tensor stands for, float32."""
    scale, zero = details["quantization"]
    return ((values.astype("float32") - zero) * scale) if scale else values


def load_onnx(path: pathlib.Path) -> Predict:
    """Returns a function from images to answers that runs an `.onnx` file.

    Raises:
        ExportError: onnxruntime is not installed, or cannot load the file.
    """
    onnxruntime = _import("onnxruntime", str(path))
    try:
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions derive from Exception itself
        raise ExportError(str(error)) from None
    (given,) = session.get_inputs()
    dtype = "uint8" if given.type == "tensor(uint8)" else "float32"
    names = [output.name for output in session.get_outputs()]

    def run(images):
        values = session.run(None, {given.name: images.astype(dtype)})
        return answer(dict(zip(names, values, strict=True)))

    return run


def load_openvino(path: pathlib.Path) -> Predict:
    """Returns a function from images to answers that runs an OpenVINO `.xml` file.

    Raises:
        ExportError: openvino is not installed, or cannot load the file.
    """
    openvino = _import("openvino", str(path))
    # It may choose bfloat16 by itself on processors that have it.
    settings = {"INFERENCE_PRECISION_HINT": "f32"}
    try:
        with without_notices():
            model = openvino.Core().compile_model(str(path), "CPU", settings)
    except RuntimeError as error:
        raise ExportError(first_line(error)) from None
    dtype = model.inputs[0].element_type.to_dtype()
    names = [next(iter(output.names), str(place)) for place, output in enumerate(model.outputs)]
    return lambda images: answer(
        dict(zip(names, model([images.astype(dtype)]).values(), strict=True))
    )


def load_keras(path: pathlib.Path) -> Predict:
    """Returns a function from images to answers that runs a `.keras` file."""
    import keras

    model = keras.saving.load_model(path, compile=False)
    return lambda images: answer(model.predict_on_batch(images.astype("float32")))


LOADERS: dict[str, Callable[[pathlib.Path], Predict]] = {
    ".tflite": load_litert,
    ".onnx": load_onnx,
    ".xml": load_openvino,
    ".keras": load_keras,
}
