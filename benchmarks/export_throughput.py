"""How much faster is the exported bundle than Keras' own export, in TF Serving's Session?

    python benchmarks/export_throughput.py [--seconds 40]

Both sides take float32 images in one process, in turn; the ratio is the median over the rounds.
"""

from __future__ import annotations

import argparse
import pathlib
import tempfile
import time

import keras
import numpy as np
import tensorflow as tf

from keras_lightnets.preprocessing import EvalTransform
from keras_lightnets.serving.export import make_interface, write_saved_model
from keras_lightnets.serving.inference import inference_model


class Session:
    """A SavedModel's `serving_default`."""

    def __init__(self, path: pathlib.Path) -> None:
        with tf.Graph().as_default():
            self._session = tf.compat.v1.Session()
            graph = tf.compat.v1.saved_model.loader.load(self._session, ["serve"], str(path))
        signature = graph.signature_def["serving_default"]
        (self._input,) = (info.name for info in signature.inputs.values())
        outputs = signature.outputs
        key = "probabilities" if "probabilities" in outputs else next(iter(outputs))
        self._run = self._session.make_callable(outputs[key].name, [self._input])

    def time(self, images: np.ndarray) -> float:
        """Returns the seconds that one batch takes."""
        start = time.perf_counter()
        self._run(images)
        return time.perf_counter() - start


def main() -> None:
    """Prints a CSV row for each precision and batch size."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=40, help="for all comparisons together")
    seconds = parser.parse_args().seconds
    model = keras.applications.MobileNetV2(weights=None)
    interface = make_interface(model, None, EvalTransform((224, 224)), "float32", 5, False)
    print("precision,batch,keras_img_s,bundle_img_s,ratio,ratio_p10,ratio_p90,rounds")
    with tempfile.TemporaryDirectory() as folder:
        model.export(pathlib.Path(folder, "keras"), verbose=False)
        ours = {}
        for precision in ("float32", "bfloat16"):
            path = pathlib.Path(folder, precision)
            write_saved_model(inference_model(model, precision), interface, path)
            ours[precision] = Session(path)
        theirs = Session(pathlib.Path(folder, "keras"))
        for precision, session in ours.items():
            for batch in (16, 1):
                compare(theirs, session, precision, batch, seconds / 4)


def compare(theirs: Session, ours: Session, precision: str, batch: int, seconds: float) -> None:
    """Times the two in turn for some seconds."""
    images = np.random.default_rng(0).uniform(-1, 1, (batch, 224, 224, 3)).astype("float32")
    for _ in range(3):
        theirs.time(images), ours.time(images)
    pairs = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pairs.append((theirs.time(images), ours.time(images)))
    slow, fast = np.array(pairs).T
    low, middle, high = np.percentile(slow / fast, [10, 50, 90])
    rates = [batch / np.median(values) for values in (slow, fast)]
    print(
        f"{precision},{batch},{rates[0]:.1f},{rates[1]:.1f},"
        f"{middle:.2f},{low:.2f},{high:.2f},{len(pairs)}",
        flush=True,
    )


if __name__ == "__main__":
    main()
