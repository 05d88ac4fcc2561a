"""The parity gate: an export is published only if it computes what the Keras model computes."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_lightnets.errors import ParityError
from keras_lightnets.export import readback
from keras_lightnets.export.answers import Answer, answer, joined
from keras_lightnets.export.signatures import FEATURES, IMAGE_BYTES, IMAGES
from keras_lightnets.export.tasks import CLASSIFICATION, Classification
from keras_lightnets.inference.function import in_float32, with_softmax
from keras_lightnets.inference.rejection import Rejection, rejecting
from keras_lightnets.paths import literal_path
from keras_lightnets.preprocessing import EvalTransform, evaluation_image

TOLERANCE = 1e-5  # largest difference of two probabilities computed in float32
KNOWN_TOLERANCE = 1e-3  # largest share of images that are known to one and not to the other
_BATCH_SIZE = 16


@dataclasses.dataclass(frozen=True)
class HeldOut:
    """Pictures that the exported model is compared on.

    Attributes:
        images: uint8 `(n, height, width, 3)`, as the network gets them.
        labels: Class numbers `(n,)`, or what else is right; None if that is not known.
        files: The image files that the evaluation transform makes `images` of, as they are on
            the disk. None: the images themselves, as PNG.
    """

    images: np.ndarray
    labels: np.ndarray | None = None
    files: Sequence[bytes] | None = None

    @classmethod
    def synthetic(cls, image_size: tuple[int, int], count: int = 16) -> HeldOut:
        """Returns smooth random pictures, for models that come without data."""
        coarse = np.random.default_rng(0).integers(0, 256, (count, 4, 4, 3))
        images = tf.image.resize(coarse, image_size, method="bicubic")
        return cls(tf.saturate_cast(images, tf.uint8).numpy())


@dataclasses.dataclass(frozen=True)
class Reference:
    """What the Keras model answers, and the inputs it was asked with."""

    held_out: HeldOut
    files: list[bytes]
    answers: Mapping[str, Answer]  # by signature


def reference(
    model: keras.Model,
    held_out: HeldOut,
    transform: EvalTransform,
    rejection: Rejection | None = None,
) -> Reference:
    """Asks the Keras model, in float32 whatever its policy, about the held-out pictures."""
    model = in_float32(model)
    on_images = ask(model, held_out.images, rejection)
    if held_out.files is not None:
        both = {IMAGES: on_images, IMAGE_BYTES: on_images}
        return Reference(held_out, list(held_out.files), both)
    files = [tf.io.encode_png(image).numpy() for image in held_out.images]
    decode = tf.function(lambda contents: evaluation_image(contents, transform))
    decoded = np.stack([decode(tf.constant(file)).numpy() for file in files])
    both = {IMAGES: on_images, IMAGE_BYTES: ask(model, decoded, rejection)}
    return Reference(held_out, files, both)


def ask(model: keras.Model, images: np.ndarray, rejection: Rejection | None = None) -> Answer:
    """Returns what a Keras classifier says of images in float32, whatever its policy."""
    return ask_on_cpu(rejecting(with_softmax(in_float32(model)), rejection), images)


def ask_on_cpu(model: keras.Model, images: np.ndarray) -> Answer:
    """Returns what a Keras model says of images.

    Computed on the CPU: GPUs since Ampere round the factors of float32 products to 11 bits.
    """

    @tf.function(autograph=False, reduce_retracing=True)
    def on_cpu(images):
        with tf.device("CPU:0"):
            return model(tf.cast(images, model.inputs[0].dtype), training=False)

    starts = range(0, len(images), _BATCH_SIZE)
    return joined(answer(on_cpu(images[start : start + _BATCH_SIZE])) for start in starts)


def run(
    saved_model: pathlib.Path,
    expected: Reference,
    *,
    max_accuracy_drop: float | None = None,
    scratch: pathlib.Path | None = None,
    task: Classification = CLASSIFICATION,
) -> dict[str, Any]:
    """Reads a SavedModel back with oneDNN on and off and compares every signature.

    Args:
        saved_model: The directory.
        expected: From `reference`.
        scratch: Where the held-out images lie meanwhile; None: the system's temporary folder,
            which is often small.
        max_accuracy_drop: None: same top-1 and probabilities within `TOLERANCE`. A number: for
            rounded weights; accuracy (or agreement, without labels) may fall by this share.
        task: What the numbers mean.

    Returns:
        The report.

    Raises:
        ParityError: It cannot be loaded, or a signature answers differently.
    """
    report: dict[str, Any] = {"images": len(expected.files), "signatures": {}}
    for onednn, outputs in zip(
        ("on", "off"), _read_back(saved_model, expected, scratch), strict=True
    ):
        report["xla_disabled"] = bool(outputs.pop("xla_disabled"))
        for signature in (IMAGES, IMAGE_BYTES):
            where = f"{signature}, oneDNN {onednn}"
            if not outputs.get(f"{signature}/valid", np.array(True)).all():
                raise ParityError(f"{where}: a held-out image is reported as not valid.")
            names = [name for name in (task.output, "known") if f"{signature}/{name}" in outputs]
            report["signatures"][where] = compare(
                where,
                expected.answers[signature],
                answer({name: outputs[f"{signature}/{name}"] for name in names}),
                expected.held_out.labels,
                max_accuracy_drop,
                task=task,
            )
        features = outputs.get(f"{FEATURES}/features")
        if features is not None and not np.isfinite(features).all():
            raise ParityError(f"{FEATURES}, oneDNN {onednn}: not finite.")
    return report


def compare(
    where: str,
    expected: Answer,
    received: Answer,
    labels: np.ndarray | None,
    max_accuracy_drop: float | None,
    tolerance: float = TOLERANCE,
    task: Classification = CLASSIFICATION,
) -> dict[str, Any]:
    """Compares the numbers of a task, and which images are known where that is told; see `run`.

    Raises:
        ParityError: They differ by more than allowed.
    """
    numbers = expected.probabilities, received.probabilities
    result = task.compare(where, *numbers, labels, max_accuracy_drop, tolerance)
    return result | _compare_known(where, expected.known, received.known, max_accuracy_drop)


def _compare_known(
    where: str,
    expected: np.ndarray | None,
    received: np.ndarray | None,
    max_accuracy_drop: float | None,
) -> dict[str, float]:
    if expected is None:
        return {}
    if received is None:
        raise ParityError(f"{where}: it does not tell which images are known.")
    differ = float(np.mean(expected != received))
    allowed = max(KNOWN_TOLERANCE, max_accuracy_drop or 0.0)
    if differ > allowed:
        raise ParityError(
            f"{where}: {differ:.4f} of the images are known to one of the export and the Keras "
            f"model alone (at most {allowed})."
        )
    return {"known_agreement": 1 - differ}


def _read_back(
    saved_model: pathlib.Path, expected: Reference, scratch: pathlib.Path | None
) -> list[dict[str, np.ndarray]]:
    """Returns the outputs with oneDNN on and with oneDNN off; the two run side by side."""
    with tempfile.TemporaryDirectory(dir=scratch) as name, literal_path(saved_model) as served:
        folder = pathlib.Path(name)
        np.save(folder / readback.IMAGES_FILE, expected.held_out.images)
        np.save(folder / readback.LENGTHS_FILE, [len(file) for file in expected.files])
        with (folder / readback.BLOB_FILE).open("wb") as blob:
            blob.writelines(expected.files)
        results = [folder / f"onednn_{flag}.npz" for flag in ("1", "0")]
        processes = [
            _start(flag, [served, folder, result, _BATCH_SIZE])
            for flag, result in zip(("1", "0"), results, strict=True)
        ]
        try:
            for process in processes:
                _, log = process.communicate()
                if process.returncode:
                    raise ParityError(f"The export cannot be run: {_reason(log)}")
        finally:
            for process in processes:
                with process:  # waits for its end, closes its pipe
                    process.kill()
        return [_load(path) for path in results]


def _start(onednn: str, arguments: Sequence[Any]) -> subprocess.Popen:
    # -P: the folder of the script must not become a place to import from.
    return subprocess.Popen(
        [sys.executable, "-P", readback.__file__, *map(str, arguments), str(os.getpid())],
        env=os.environ | {"TF_ENABLE_ONEDNN_OPTS": onednn, "CUDA_VISIBLE_DEVICES": "-1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def _reason(log: str) -> str:
    """Returns the line of a traceback that says what happened, not the node it happened in."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    errors = [line for line in lines if "Error: " in line or "disabled" in line]
    return (errors or lines or ["no message"])[-1]


def _load(path: pathlib.Path) -> dict[str, np.ndarray]:
    with np.load(path) as archive:
        return dict(archive)
