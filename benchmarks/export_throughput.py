"""How much faster is the exported bundle than Keras' own export, in TF Serving's Session?

    python benchmarks/export_throughput.py [--seconds 60] [--out results.csv]

* mobilenet_v2: `keras.applications.MobileNetV2(...).export(...)` and the bundle of the same model
  with the same weights.
* shufflenet_v1: three groups, the same network from `Conv2D(groups=3)` and Keras' own batch norm,
  exported by Keras (with the XLA attribute that it puts on grouped convolutions), and the bundle.

Both sides take float32 images in one process, in turn; the ratio is the median over the rounds.
Biases and moving averages are random: with the zeros of a fresh model TensorFlow removes the
addition of the bias, and then no longer fuses the activation behind it.
"""

from __future__ import annotations

import argparse
import datetime
import pathlib
import tempfile
import time

import keras
import numpy as np
import tensorflow as tf

import keras_lightnets
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
    """Writes a CSV row for each network, precision and batch size."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60, help="for all comparisons together")
    parser.add_argument("--out", type=argparse.FileType("w"), default="-", help="CSV file")
    networks = {"mobilenet_v2": mobilenet_v2, "shufflenet_v1": shufflenet_v1}
    parser.add_argument("--network", choices=networks, action="append", help="default: all")
    args = parser.parse_args()
    chosen = args.network or list(networks)
    print(
        "date,network,precision,batch,keras_img_s,bundle_img_s,ratio,ratio_p10,ratio_p90,rounds",
        file=args.out,
        flush=True,
    )
    with tempfile.TemporaryDirectory() as folder:
        for network in chosen:
            keras_model, model = networks[network]()
            path = pathlib.Path(folder, network)
            keras_model.export(path / "keras", verbose=False)
            theirs = Session(path / "keras")
            for precision in ("float32", "bfloat16"):
                ours = bundle(model, precision, path / precision)
                for batch in (16, 1):
                    row = compare(theirs, ours, batch, args.seconds / (4 * len(chosen)))
                    today = datetime.date.today()
                    print(f"{today},{network},{precision},{batch},{row}", file=args.out, flush=True)


def bundle(model: keras.Model, precision: str, path: pathlib.Path) -> Session:
    """Exports as `export_saved_model` does, without the warm-up file and the comparison."""
    interface = make_interface(model, None, EvalTransform((224, 224)), "float32", 5, False)
    path.mkdir(parents=True)
    write_saved_model(inference_model(model, precision), interface, path)
    return Session(path)


def mobilenet_v2() -> tuple[keras.Model, keras.Model]:
    """Returns one model for both sides."""
    model = randomize(keras.applications.MobileNetV2(weights=None))
    return model, model


def shufflenet_v1() -> tuple[keras.Model, keras.Model]:
    """Returns (made of Keras' own layers, as published by this package), of the same weights."""
    model = randomize(keras_lightnets.ShuffleNetV1(groups=3))
    own = {
        keras_lightnets.GroupedConv2D: keras.layers.Conv2D,
        keras_lightnets.FusedBatchNormalization: keras.layers.BatchNormalization,
    }

    def clone_layer(layer: keras.layers.Layer) -> keras.layers.Layer:
        return own.get(type(layer), type(layer)).from_config(layer.get_config())

    keras_model = keras.models.clone_model(model, clone_function=clone_layer)
    keras_model.set_weights(model.get_weights())
    return keras_model, model


def randomize(model: keras.Model) -> keras.Model:
    """Gives a fresh model biases and moving averages that are not zero."""
    rng = np.random.default_rng(0)
    for variable in model.variables:
        if variable.name in ("beta", "bias", "moving_mean"):
            variable.assign(rng.normal(0, 0.2, variable.shape))
    return model


def compare(theirs: Session, ours: Session, batch: int, seconds: float) -> str:
    """Times the two in turn for some seconds and returns the CSV fields."""
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
    return f"{rates[0]:.1f},{rates[1]:.1f},{middle:.2f},{low:.2f},{high:.2f},{len(pairs)}"


if __name__ == "__main__":
    main()
