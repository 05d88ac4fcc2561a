"""A Keras classifier becomes a numbered SavedModel that TensorFlow Serving provably runs."""

from __future__ import annotations

import datetime
import os
import pathlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_lightnets import class_names as naming
from keras_lightnets import weights
from keras_lightnets._version import __version__
from keras_lightnets.preprocessing import EvalTransform
from keras_lightnets.serving import bundle, deployment, gate, signatures, warmup
from keras_lightnets.serving.errors import ExportError
from keras_lightnets.serving.formats import DIRECTORY, convert
from keras_lightnets.serving.inference import Precision, check_classifier, inference_model


def export_saved_model(
    model: keras.Model,
    base_dir: str | os.PathLike,
    class_names: Sequence[str] | None = None,
    version: int | None = None,
    *,
    name: str | None = None,
    transform: EvalTransform | None = None,
    input_dtype: str = "uint8",
    precision: Precision = "float32",
    whole_batches: bool = False,
    top_k: int = 5,
    features: bool = False,
    warmup_batch_sizes: Iterable[int] | None = None,
    held_out: gate.HeldOut | None = None,
    max_accuracy_drop: float = 0.01,
    formats: Sequence[str] = (),
    representative: np.ndarray | None = None,
    metadata: Mapping[str, Any] | None = None,
    progress: Callable[[str], None] = lambda line: None,
) -> pathlib.Path:
    """Writes `base_dir/<name>/<version>`, a SavedModel for TensorFlow Serving.

    Beside it go the files that start a server for all models of `base_dir`, see `deployment`.
    The version appears whole, by one renaming, or not at all.

    The model becomes float32 (or bfloat16) with batch norms folded and weights as constants. The
    result is read back in a fresh process, by TensorFlow Serving's loader and without XLA, and
    compared with `model` on `held_out`; only then it gets its name. See
    `keras_lightnets.serving.signatures.build` for the endpoints.

    Args:
        model: Functional or sequential classifier, `(batch, height, width, 3)` in, `(batch,
            classes)` probabilities or logits out. Its input are pixels from 0 to 255, unless
            `input_dtype` is "float32" and only `serving_default` is used.
        base_dir: Where the models of one server are.
        class_names: In the order of the output; None: those of the published weights that the
            model was built with, else "0", "1", ...
        version: From 1 to 2**63 - 1; None: one more than the newest when the export is done.
        name: Of the model in URLs; None: that of `model`.
        transform: From image files to the input; None: that of the published weights, else
            resize the whole image to the input size.
        input_dtype: Of `images` in `serving_default`: "uint8" or "float32".
        precision: "bfloat16" computes with eight bits of mantissa, inputs and outputs stay
            float32: about twice as fast on processors that have AVX512-BF16 or AMX.
        whole_batches: Whether the network runs a batch at once, which suits a GPU; else in parts
            that fit into the cache of a processor, see `keras_lightnets.serving.parts`.
        top_k: Number of named classes in the answer, at most all.
        features: Whether to add a signature for the pooled features before the classifier.
        warmup_batch_sizes: For which a warm-up request is written; None: those that
            `base_dir/batching_parameters.txt` allows, if there is one, else 1, 2, 4, ... 32.
        held_out: Pictures for the comparison; None: 16 synthetic ones.
        max_accuracy_drop: For bfloat16 and int8: by how much accuracy on `held_out` may fall,
            from 0 to 1.
        formats: More of them, for `<version>/formats`; see `formats.convert`.
        representative: For the format "litert-int8".
        metadata: More entries for `metadata.json`.
        progress: Called with a line for a person before each step.

    Returns:
        The version's directory.

    Raises:
        ExportError: Something above does not fit, cannot be written, or (ParityError) the
            exported model computes something else. Nothing was published.
    """
    interface = make_interface(model, class_names, transform, input_dtype, top_k, features)
    name = name or model.name
    bundle.check_name(name)
    base_dir = pathlib.Path(base_dir)
    model_dir = base_dir / name
    bundle.choose_version([model_dir, model_dir / DIRECTORY], version)
    bundle.check_same_classes(model_dir, interface.labels)
    held_out = held_out or gate.HeldOut.synthetic(interface.transform.image_size)
    check_held_out(held_out, interface)
    sizes = None if warmup_batch_sizes is None else list(warmup_batch_sizes)
    sizes = deployment.warmup_sizes(base_dir, sizes)
    with (
        clear_errors(model_dir),
        bundle.staging(base_dir) as scratch,
        bundle.staging(model_dir, version) as staged,
    ):
        extra = staged / bundle.EXTRA
        about = dict(metadata or {})
        if formats:
            progress(f"Converting to {', '.join(formats)}")
            about["formats"] = write_formats(
                model,
                staged / DIRECTORY,
                formats,
                interface,
                held_out,
                representative=representative,
                max_accuracy_drop=max_accuracy_drop,
            )
        progress("Writing the SavedModel")
        served = inference_model(model, precision)
        write_saved_model(served, interface, staged, whole_batches=whole_batches)
        progress(f"Comparing it with the Keras model on {len(held_out.images)} images")
        expected = gate.reference(model, held_out, interface.transform)
        report = gate.run(
            staged,
            expected,
            max_accuracy_drop=None if precision == "float32" else max_accuracy_drop,
            scratch=scratch,
        )
        warmup.write_warmup(staged, name, interface, sizes)
        extra.mkdir(exist_ok=True)
        bundle.write_json(extra / bundle.PARITY, report)
        with bundle.locked(base_dir):
            # Others may have published since the start.
            version = bundle.choose_version([model_dir, model_dir / DIRECTORY], version)
            about = describe(name, version, interface, precision, report) | about
            about["warmup_batch_sizes"] = sizes
            bundle.write_extra(extra, interface.labels, about)
            # All that needs space on the disk comes before the version appears.
            ready = scratch / "ready"
            ready.mkdir()
            notes = deployment.stage_ready_files(base_dir, ready, name, version, sizes)
            bundle.publish(staged, model_dir / str(version))
            deployment.place_ready_files(base_dir, ready)
    for note in notes:
        progress(note)
    return model_dir / str(version)


def export_formats(
    model: keras.Model,
    base_dir: str | os.PathLike,
    formats: Sequence[str],
    class_names: Sequence[str] | None = None,
    version: int | None = None,
    *,
    name: str | None = None,
    transform: EvalTransform | None = None,
    held_out: gate.HeldOut | None = None,
    representative: np.ndarray | None = None,
    max_accuracy_drop: float = 0.01,
) -> pathlib.Path:
    """Writes other formats only, to `base_dir/<name>/formats/<version>`, which no server loads.

    Args and errors are those of `export_saved_model`.

    Returns:
        The directory with the files.
    """
    interface = make_interface(model, class_names, transform, "uint8", 5, False)
    name = name or model.name
    bundle.check_name(name)
    model_dir = pathlib.Path(base_dir) / name
    parent = model_dir / DIRECTORY
    bundle.choose_version([model_dir, parent], version)
    bundle.check_same_classes(model_dir, interface.labels)
    held_out = held_out or gate.HeldOut.synthetic(interface.transform.image_size)
    check_held_out(held_out, interface)
    with clear_errors(parent), bundle.staging(parent, version) as staged:
        write_formats(
            model,
            staged,
            formats,
            interface,
            held_out,
            representative=representative,
            max_accuracy_drop=max_accuracy_drop,
        )
        with bundle.locked(pathlib.Path(base_dir)):
            version = bundle.choose_version([model_dir, parent], version)
            bundle.publish(staged, parent / str(version))
    return parent / str(version)


def write_formats(
    model: keras.Model,
    directory: pathlib.Path,
    formats: Sequence[str],
    interface: signatures.Interface,
    held_out: gate.HeldOut,
    **options: Any,
) -> dict[str, Any]:
    """Writes files for other runtimes, and what they are, into `directory`; see `convert`."""
    directory.mkdir(exist_ok=True)
    report = convert(model, directory, formats, held_out, **options)
    about = {"transform": interface.transform.to_dict(), "formats": report}
    bundle.write_extra(directory, interface.labels, about)
    return report


def make_interface(
    model: keras.Model,
    class_names: Sequence[str] | None,
    transform: EvalTransform | None,
    input_dtype: str,
    top_k: int,
    features: bool,
) -> signatures.Interface:
    """Checks what clients will see against the model.

    Raises:
        ExportError: They do not fit.
    """
    check_classifier(model)
    classes = model.outputs[0].shape[-1]
    if class_names is None:
        class_names = weights.class_names(model) or range(classes)
    labels = tuple(map(str, class_names))
    if len(labels) != classes:
        raise ExportError(
            f"{len(labels)} class names were given, but the model has {classes} classes."
        )
    if problem := naming.problem(labels):
        raise ExportError(problem)
    if input_dtype not in ("uint8", "float32"):
        raise ExportError(f'`input_dtype` must be "uint8" or "float32". Received: {input_dtype!r}')
    if top_k < 1:
        raise ExportError(f"`top_k` must be at least 1. Received: {top_k}")
    size = tuple(model.inputs[0].shape[1:3])
    if transform is None:
        published = weights.evaluation_transform(model)
        if published is not None and size in ((None, None), published.image_size):
            transform = published
    if transform is None:
        if None in size:
            raise ExportError(
                f"The model takes images of any size {size}: give a `transform` with the size to "
                "serve."
            )
        transform = EvalTransform(image_size=size)
    if any(a not in (None, b) for a, b in zip(size, transform.image_size, strict=True)):
        raise ExportError(
            f"`transform` gives images of size {transform.image_size}, but the model takes {size}."
        )
    return signatures.Interface(transform, labels, input_dtype, min(top_k, classes), features)


def check_held_out(held_out: gate.HeldOut, interface: signatures.Interface) -> None:
    """Raises ExportError unless the pictures have the model's input size and dtype."""
    images, size = held_out.images, interface.transform.image_size
    if images.dtype != "uint8" or images.shape[1:] != (*size, 3) or len(images) == 0:
        raise ExportError(
            f"`held_out.images` must be uint8 (n, {size[0]}, {size[1]}, 3), n > 0. "
            f"Received: {images.dtype} {images.shape}"
        )


def write_saved_model(
    served: keras.Model,
    interface: signatures.Interface,
    directory: pathlib.Path,
    *,
    whole_batches: bool = False,
) -> None:
    """Writes a SavedModel of a model made by `inference_model` into an existing directory."""
    module, endpoints = signatures.build(served, interface, whole_batches=whole_batches)
    options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
    tf.saved_model.save(module, str(directory), signatures=endpoints, options=options)


def describe(
    name: str,
    version: int,
    interface: signatures.Interface,
    precision: str,
    report: Mapping[str, Any],
) -> dict[str, Any]:
    """Returns the content of `metadata.json`."""
    accuracies = [row.get("accuracy") for row in report["signatures"].values()]
    height, width = interface.transform.image_size
    return {
        "name": name,
        "version": version,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "input": {
            "dtype": interface.input_dtype,
            "shape": [None, height, width, 3],
            "pixels": "RGB, 0 to 255; normalization is part of the model",
        },
        "transform": interface.transform.to_dict(),
        "classes": len(interface.labels),
        "top_k": interface.top_k,
        "precision": precision,
        "held_out_images": report["images"],
        "held_out_accuracy": accuracies[0] if accuracies else None,
        "versions": {
            "keras_lightnets": __version__,
            "keras": keras.__version__,
            "tensorflow": tf.__version__,
        },
    }


class clear_errors:  # noqa: N801 (used as a context manager, like contextlib's)
    """Turns what TensorFlow and the system raise when a disk is full into an ExportError."""

    def __init__(self, target: pathlib.Path) -> None:
        self._target = target

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        if isinstance(error, (OSError, tf.errors.OpError)):
            if not isinstance(error, OSError):
                # "FILE; No space left on device [Op:SaveV2]", a file that nobody will find.
                text = re.sub(r"^[^;]*/[^;]*; | \[Op:\w+\]$", "", error.message)
            else:  # NumPy's has only a text: so many bytes requested, fewer written
                text = error.strerror or f"No space left on device? {error}"
            line = text.splitlines()[0].rstrip(".")
            raise ExportError(f"Cannot write the export to {self._target}: {line}.") from error
