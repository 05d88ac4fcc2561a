"""Runs an exported SavedModel as TensorFlow Serving does, in a process of its own.

    python readback.py SAVED_MODEL INPUTS OUTPUTS.npz BATCH_SIZE PARENT

TensorFlow Serving loads a SavedModel by this loader into a Session, and switches XLA off. Run as
a file: it imports nothing of this package, which a server does not have either. The folder
`INPUTS` holds the images, and the image files one behind the other with their lengths. It ends
with the process whose number is `PARENT`.
"""

import ctypes
import os
import pathlib
import signal
import sys
from typing import Any

import numpy as np

IMAGES_FILE, BLOB_FILE, LENGTHS_FILE = "images.npy", "files.bin", "lengths.npy"

# prctl(2): which signal a process gets when its parent ends.
_PR_SET_PDEATHSIG = 1


def main(saved_model: str, inputs: str, outputs: str, batch_size: int, parent: int) -> None:
    """Writes `<signature>/<output>` of all inputs, and `xla_disabled`, to `outputs`."""
    _end_with(parent)
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    import tensorflow as tf

    tf.get_logger().setLevel("ERROR")
    results: dict[str, Any] = {"xla_disabled": np.array(disable_xla(tf))}
    folder = pathlib.Path(inputs)
    with (folder / BLOB_FILE).open("rb") as blob:
        files = [blob.read(length) for length in np.load(folder / LENGTHS_FILE)]
    # Mapped: two of these processes run side by side and share the pages.
    images = np.load(folder / IMAGES_FILE, mmap_mode="r")
    given = {"images": images, "image_bytes": np.array(files, object)}
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        meta_graph = tf.compat.v1.saved_model.loader.load(session, ["serve"], saved_model)
        for name, signature in meta_graph.signature_def.items():
            if signature.method_name != "tensorflow/serving/predict":
                continue
            ((key, tensor),) = signature.inputs.items()
            fetches = {key: info.name for key, info in signature.outputs.items()}
            values = given[key]
            dtype = tf.as_dtype(tensor.dtype).as_numpy_dtype
            parts = [
                session.run(
                    fetches, {tensor.name: values[start : start + batch_size].astype(dtype)}
                )
                for start in range(0, len(values), batch_size)
            ]
            for output in fetches:
                joined = np.concatenate([part[output] for part in parts])
                # Strings come as objects, which would have to be pickled.
                results[f"{name}/{output}"] = joined.astype("S") if joined.dtype == "O" else joined
    imported = [module for module in sys.modules if module.startswith("keras_lightnets")]
    if imported:
        raise RuntimeError(f"The read-back must not import {imported[0]}")
    np.savez(outputs, **results)


def _end_with(parent: int) -> None:
    """A killed export must leave no process behind; where Linux is not, it ends by itself."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it was killed before that
        sys.exit("the export has ended")


def disable_xla(tf) -> bool:
    """Switches XLA off for this process, for good, as TensorFlow Serving does at its start.

    Returns:
        Whether TensorFlow's library has the function for it.
    """
    for path in pathlib.Path(tf.__file__).parent.glob("libtensorflow_cc*"):
        try:
            ctypes.CDLL(str(path))["_ZN10tensorflow21DisableXlaCompilationEv"]()
        except (OSError, AttributeError):
            continue
        return True
    return False


if __name__ == "__main__":
    saved_model, inputs, outputs, batch_size, parent = sys.argv[1:]
    main(saved_model, inputs, outputs, int(batch_size), int(parent))
