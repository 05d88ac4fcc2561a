"""A Keras classifier becomes a numbered SavedModel that TensorFlow Serving provably runs."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import json
import os
import pathlib
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import keras
import numpy as np
import tensorflow as tf

from keras_lightnets._version import __version__
from keras_lightnets.catalogue import class_names as naming
from keras_lightnets.errors import ExportError
from keras_lightnets.export import (
    bundle,
    deployment,
    known_answers,
    model_card,
    parity,
    runtimes,
    sbom,
    signatures,
    tasks,
    warmup,
)
from keras_lightnets.export.described import PIXELS, Description
from keras_lightnets.export.formats import DIRECTORY, convert
from keras_lightnets.export.int8_network import int8_model
from keras_lightnets.inference.function import (
    Precision,
    check_classifier,
    inference_model,
    is_quantized,
)
from keras_lightnets.inference.rejection import Rejection
from keras_lightnets.layers import placement
from keras_lightnets.layers.notes import Notes, notes
from keras_lightnets.preprocessing import EvalTransform
from keras_lightnets.weights import load as weights


@dataclasses.dataclass(frozen=True)
class ExportOptions:
    """How a classifier is exported.

    Attributes:
        input_dtype: Of `images` in `serving_default`: "uint8" or "float32".
        top_k: Number of named classes in the answer, at most all.
        features: Whether to add a signature for the pooled features before the classifier.
        precision: "bfloat16" computes with eight bits of mantissa, inputs and outputs stay
            float32: about twice as fast on processors that have AVX512-BF16 or AMX. "int8" computes
            the feature maps of MobileNet v1 and v2 in whole numbers, see `int8_model`: faster
            still, on processors that have VNNI or AMX.
        gpu: Whether servers have a GPU: the network then runs a batch at once, not in parts that
            fit into the cache of a processor, and the files beside the models ask for one.
        warmup_batch_sizes: For which a warm-up request is written; None: those that
            `batching_parameters.txt` beside the models allows, if there is one, else 1, 2, ... 32.
        formats: Of other runtimes, for `<version>/formats`; see `formats.convert`.
        timed: Whether `metadata.json` tells the milliseconds that each format takes for one image.
        representative: Images `(n, height, width, 3)` for int8 formats, and for `precision="int8"`
            of a network that was not trained for int8.
        equalize: Whether what is in int8 is made of the network with equally large channels and
            corrected biases (Nagel et al., 2019).
        max_accuracy_drop: For bfloat16, int8 and networks trained for int8: by how much accuracy on
            the held-out pictures may fall, from 0 to 1.
        selftest_images: How many held-out pictures go with a version, for its `selftest.py` to
            compare a server's answers; 0: none, where nobody else may see them.
        rejection: When an image is of none of the classes; None: the output `known` is left out.
    """

    input_dtype: str = "uint8"
    top_k: int = 5
    features: bool = False
    precision: Precision | Literal["int8"] = "float32"
    gpu: bool = False
    warmup_batch_sizes: Sequence[int] | None = None
    formats: Sequence[str] = ()
    timed: bool = False
    representative: np.ndarray | None = None
    equalize: bool = False
    max_accuracy_drop: float = 0.01
    selftest_images: int = 8
    rejection: Rejection | None = None


@dataclasses.dataclass(frozen=True)
class Job:
    """What was asked for, checked."""

    model: keras.Model
    model_dir: pathlib.Path
    version: int | None
    interface: signatures.Interface
    held_out: parity.HeldOut
    options: ExportOptions


def export_saved_model(
    model: keras.Model,
    base_dir: str | os.PathLike,
    class_names: Sequence[str] | None = None,
    version: int | None = None,
    *,
    name: str | None = None,
    transform: EvalTransform | None = None,
    held_out: parity.HeldOut | None = None,
    options: ExportOptions | None = None,
    metadata: Mapping[str, Any] | None = None,
    progress: Callable[[str], None] = lambda line: None,
) -> pathlib.Path:
    """Writes `base_dir/<name>/<version>`, a SavedModel for TensorFlow Serving.

    Beside it go the files that start a server for all models of `base_dir`, see `deployment`.
    The version appears whole, by one renaming, or not at all.

    The model becomes float32 (or bfloat16) with batch norms folded and weights as constants. The
    result is read back in a fresh process, by TensorFlow Serving's loader and without XLA, and
    compared with `model` on `held_out`; only then it gets its name. See
    `keras_lightnets.export.signatures.build` for the endpoints.

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
        held_out: Pictures for the comparison; None: 16 synthetic ones.
        options: None: the defaults of `ExportOptions`.
        metadata: More entries for `metadata.json`.
        progress: Called with a line for a person before each step.

    Returns:
        The version's directory.

    Raises:
        ExportError: Something above does not fit, cannot be written, or (ParityError) the
            exported model computes something else. Nothing was published.
    """
    placement.need_tensorflow("export_saved_model")
    try:
        json.dumps(metadata)
    except (TypeError, ValueError) as error:
        raise ExportError(f"`metadata` must hold what JSON can: {error}.") from None
    job = prepare(model, base_dir, class_names, version, name, transform, held_out, options)
    _warn_about_pixels(model, job.interface.input_dtype)
    return export_job(job, metadata, progress)


def _warn_about_pixels(model: keras.Model, input_dtype: str) -> None:
    """Warns of a network of this package that nothing normalizes pixels for.

    Another model may scale them in any way; in an own one the layer behind `notes` does, or none.
    """
    about = notes(model)
    if input_dtype == "uint8" and "family" in about and "mean" not in about:
        first = next(layer for layer in model.layers if isinstance(layer, Notes))
        if first.input is model.inputs[0]:
            warnings.warn(
                f"Model {model.name!r} was built without `include_preprocessing=True`: it is given "
                "pixels from 0 to 255 as they are. If it was trained with others, export "
                "`keras.Sequential([keras.layers.Rescaling(...), model])`.",
                stacklevel=3,
            )


def export_job(
    job: Job, metadata: Mapping[str, Any] | None, progress: Callable[[str], None]
) -> pathlib.Path:
    """Does the work of `export_saved_model`, whose results and errors it has, after `prepare`."""
    options, base_dir = job.options, job.model_dir.parent
    sizes = deployment.warmup_sizes(base_dir, options.warmup_batch_sizes)
    with (
        _clear_errors(job.model_dir),
        bundle.staging(base_dir) as scratch,
        bundle.staging(job.model_dir, job.version) as staged,
    ):
        about = {"warmup_batch_sizes": sizes, **(metadata or {})}
        if options.formats:
            progress(f"Converting to {', '.join(options.formats)}")
            about["formats"] = _write_formats(job, staged / DIRECTORY)
        progress("Writing the SavedModel")
        if options.precision == "int8":
            served = int8_model(job.model, options.representative, equalize=options.equalize)
        else:
            served = inference_model(job.model, options.precision)
        write_saved_model(served, job.interface, staged, whole_batches=options.gpu)
        progress(f"Comparing it with the Keras model on {len(job.held_out.images)} images")
        expected = parity.reference(
            job.model, job.held_out, job.interface.transform, options.rejection
        )
        # Where numbers are rounded, the last bit of a sum may decide which way.
        rounded = options.precision != "float32" or is_quantized(job.model)
        report = parity.run(
            staged,
            expected,
            max_accuracy_drop=options.max_accuracy_drop if rounded else None,
            scratch=scratch,
            task=job.interface.task,
        )
        warmup.write_warmup(staged, job.model_dir.name, job.interface, sizes)
        known_answers.write(
            staged / bundle.EXTRA,
            expected,
            job.interface.labels,
            rounded,
            options.selftest_images,
            job.interface.task,
        )
        _write_card(job, staged, expected, about)
        published, remarks = _publish(job, staged, scratch, report, about)
    for note in remarks:
        progress(note)
    return published


def export_formats(job: Job) -> pathlib.Path:
    """Writes `options.formats` only, to `base_dir/<name>/formats/<version>`, which no server loads.

    Errors are those of `export_saved_model`.

    Args:
        job: Of `prepare`.

    Returns:
        The directory with the files.
    """
    parent = job.model_dir / DIRECTORY
    with _clear_errors(parent), bundle.staging(parent, job.version) as staged:
        _write_formats(job, staged)
        with bundle.locked(job.model_dir.parent):
            published = parent / str(_number(job))
            bundle.publish(staged, published)
    return published


def prepare(
    model: keras.Model,
    base_dir: str | os.PathLike,
    class_names: Sequence[str] | None,
    version: int | None,
    name: str | None,
    transform: EvalTransform | None,
    held_out: parity.HeldOut | None,
    options: ExportOptions | None,
) -> Job:
    """Checks what is to be exported; arguments and errors are those of `export_saved_model`."""
    options = options or ExportOptions()
    runtimes.check_known(options.formats)
    interface = make_interface(model, class_names, transform, options)
    name = name or model.name
    bundle.check_name(name)
    size = interface.transform.image_size
    held_out = held_out or parity.HeldOut.synthetic(size)
    images = held_out.images
    if images.dtype != "uint8" or images.shape[1:] != (*size, 3) or len(images) == 0:
        raise ExportError(
            f"`held_out.images` must be uint8 (n, {size[0]}, {size[1]}, 3), n > 0. "
            f"Received: {images.dtype} {images.shape}"
        )
    job = Job(model, pathlib.Path(base_dir) / name, version, interface, held_out, options)
    _number(job)
    bundle.check_same_classes(job.model_dir, interface.labels)
    return job


def _number(job: Job) -> int:
    """The version that was asked for, or the next one at this moment."""
    return bundle.choose_version([job.model_dir, job.model_dir / DIRECTORY], job.version)


def _publish(
    job: Job,
    staged: pathlib.Path,
    scratch: pathlib.Path,
    report: Mapping[str, Any],
    about: dict[str, Any],
) -> tuple[pathlib.Path, list[str]]:
    """Gives a version its number and name; returns its directory and lines for a person."""
    base_dir, name = job.model_dir.parent, job.model_dir.name
    extra, ready = staged / bundle.EXTRA, scratch / "ready"
    with bundle.locked(base_dir):
        version = _number(job)
        # All that needs space on the disk comes before the version appears.
        described = _describe(job, version, report)
        bundle.write_extra(extra, job.interface.labels, described | about)
        bundle.write_json(extra / bundle.PARITY, report)
        sbom.write(extra / sbom.NAME, name, version)
        ready.mkdir()
        sizes = about["warmup_batch_sizes"]
        remarks = deployment.stage_ready_files(
            base_dir, ready, name, version, sizes, gpu=job.options.gpu
        )
        bundle.publish(staged, job.model_dir / str(version))
        deployment.place_ready_files(base_dir, ready)
    return job.model_dir / str(version), remarks


def _write_card(
    job: Job, staged: pathlib.Path, expected: parity.Reference, about: Mapping[str, Any]
) -> None:
    """Writes what is known of the model, of its run and of the published weights in it."""
    run = about.get("run")
    config = run.get("config", {}) if isinstance(run, Mapping) else {}
    weights = notes(job.model).get("weights")
    if config:
        weights = model_card.weights_of(job.model, config["model"]["weights"])
    text = model_card.render(
        job.model_dir.name,
        job.interface.labels,
        job.interface.transform,
        job.held_out.labels,
        expected.answers[signatures.IMAGE_BYTES].probabilities,
        data=config["data"]["dataset"] if config else None,
        weights=weights,
        chose=bool(config),
        formats=about.get("formats"),
        rejection=job.options.rejection,
        card=job.interface.task.card,
    )
    (staged / model_card.NAME).write_text(text, encoding="utf-8")


def _write_formats(job: Job, directory: pathlib.Path) -> dict[str, Any]:
    """Writes files for other runtimes, and what they are, into `directory`; see `convert`."""
    directory.mkdir(exist_ok=True)
    report = convert(
        job.model,
        directory,
        job.options.formats,
        job.held_out,
        Description(
            job.model_dir.name,
            job.interface.labels,
            job.interface.transform.to_dict(),
            job.interface.task,
        ),
        timed=job.options.timed,
        representative=job.options.representative,
        equalize=job.options.equalize,
        max_accuracy_drop=job.options.max_accuracy_drop,
        rejection=job.options.rejection,
    )
    if onnx := report.get("onnx", report.get("onnx-int8")):
        size, classes = job.interface.transform.image_size, len(job.interface.labels)
        file = directory / onnx["file"]
        config = deployment.triton_config(file, job.model_dir.name, size, classes)
        (directory / "config.pbtxt").write_text(config, encoding="utf-8")
    about = {
        "transform": job.interface.transform.to_dict(),
        **_task(job.interface),
        **_rejects(job.options),
        "formats": report,
    }
    bundle.write_extra(directory, job.interface.labels, about)
    return report


def make_interface(
    model: keras.Model,
    class_names: Sequence[str] | None,
    transform: EvalTransform | None,
    options: ExportOptions,
) -> signatures.Interface:
    """Checks what clients will see against the model.

    Raises:
        ExportError: They do not fit.
    """
    check_classifier(model)
    classes = model.outputs[0].shape[-1]
    if class_names is None:
        class_names = weights.class_names(model) or [str(number) for number in range(classes)]
    if isinstance(class_names, str | Mapping):
        raise ExportError(
            "`class_names` must be a list of names in the order of the output. "
            f"Received: {class_names!r}"
        )
    labels = tuple(map(str, class_names))
    if len(labels) != classes:
        raise ExportError(
            f"{len(labels)} class names were given, but the model has {classes} classes."
        )
    if problem := naming.problem(labels):
        raise ExportError(problem)
    if options.input_dtype not in ("uint8", "float32"):
        raise ExportError(
            f'`input_dtype` must be "uint8" or "float32". Received: {options.input_dtype!r}'
        )
    for name, least in (("top_k", 1), ("selftest_images", 0)):
        if (value := getattr(options, name)) < least:
            raise ExportError(f"`{name}` must be at least {least}. Received: {value}")
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
    top_k = min(options.top_k, classes)
    task = tasks.of(notes(model).get("task"))
    rejection = options.rejection
    task.check([*options.formats, options.precision, *(["rejection"] if rejection else ())])
    return signatures.Interface(
        transform, labels, options.input_dtype, top_k, options.features, rejection, task
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


def _describe(job: Job, version: int, report: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the content of `metadata.json`."""
    interface = job.interface
    accuracies = [row.get("accuracy") for row in report["signatures"].values()]
    height, width = interface.transform.image_size
    return {
        "name": job.model_dir.name,
        "version": version,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "input": {
            "dtype": interface.input_dtype,
            "shape": [None, height, width, 3],
            "pixels": PIXELS,
        },
        "transform": interface.transform.to_dict(),
        "classes": len(interface.labels),
        "top_k": interface.top_k,
        **_task(interface),
        "precision": job.options.precision,
        **_rejects(job.options),
        "held_out_images": report["images"],
        "held_out_accuracy": accuracies[0] if accuracies else None,
        "versions": {
            "keras_lightnets": __version__,
            "keras": keras.__version__,
            "tensorflow": tf.__version__,
        },
    }


def _task(interface: signatures.Interface) -> dict[str, Any]:
    return {"task": about} if (about := interface.task.about()) else {}


def _rejects(options: ExportOptions) -> dict[str, Any]:
    return {} if options.rejection is None else {"rejection": dict(options.rejection.about)}


@contextlib.contextmanager
def _clear_errors(target: pathlib.Path) -> Iterator[None]:
    """Turns what TensorFlow and the system raise when a disk is full into an ExportError."""
    try:
        yield
    except OSError as error:
        # NumPy's has only a text: so many bytes requested, fewer written
        text = error.strerror or f"No space left on device? {error}"
        raise _cannot_write(target, text) from error
    except tf.errors.OpError as error:
        # "FILE; No space left on device [Op:SaveV2]", a file that nobody will find.
        text = re.sub(r"^[^;]*/[^;]*; | \[Op:\w+\]$", "", error.message)
        raise _cannot_write(target, text) from error


def _cannot_write(target: pathlib.Path, text: str) -> ExportError:
    return ExportError(f"Cannot write the export to {target}: {text.splitlines()[0].rstrip('.')}.")
