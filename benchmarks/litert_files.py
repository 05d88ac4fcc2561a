"""Is LiteRT faster from our folded network than from the unfolded Keras model?

    python benchmarks/litert_files.py [--net mobilenet_v2 shufflenet_v1]

Both sides are `.tflite` files in LiteRT's interpreter (XNNPACK), with as many threads as cores:
ours as `lightnets export --formats litert` writes it, the peer's by `export(format="litert")` from
the same network of Keras' own layers, whose converter folds batch norms as well.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import tempfile
from collections.abc import Callable

import common

TARGET = 1.0
NETS = ("mobilenet_v1", "mobilenet_v2", "shufflenet_v1", "shufflenet_v2", "squeezenet")


def measure(net: str, seconds: float) -> common.Row:
    """Times one network at 224 pixels and batch 1."""
    import keras
    import models

    import keras_lightnets
    from keras_lightnets.export import formats
    from keras_lightnets.export import parity as gate

    keras.backend.clear_session()
    ours = keras_lightnets.create_model(net, input_shape=(224, 224, 3), include_preprocessing=True)
    peer = models.plain_keras(ours)
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        formats.convert(ours, folder, ["litert"], gate.HeldOut.synthetic((224, 224), 4))
        peer.export(str(folder / "peer.tflite"), format="litert", verbose=False)
        sides = {
            "folded": interpreter(folder / "model.tflite"),
            "unfolded Keras model": interpreter(folder / "peer.tflite"),
        }
        times = common.interleave(sides, seconds=seconds, warm_up=3)
    return common.compare(
        times, "folded", "unfolded Keras model", case=f"LiteRT, {net}-224-b1", target=TARGET
    )


def interpreter(path: pathlib.Path) -> Callable[[], None]:
    """A function that runs a `.tflite` file on one image, ten times."""
    import numpy as np

    from keras_lightnets.export import runtimes

    predict = runtimes.load_litert(path, os.cpu_count())
    image = np.random.default_rng(0).uniform(0, 255, (1, 224, 224, 3)).astype("float32")

    def run() -> None:
        for _ in range(10):
            predict(image)

    return run


def main(arguments: list[str] | None = None) -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--net", nargs="+", choices=NETS, default=["mobilenet_v2", "shufflenet_v1"])
    parser.add_argument("--seconds", type=float, default=30.0, help="per case")
    parser.add_argument("--out", type=pathlib.Path, default=common.RESULTS)
    args = parser.parse_args(arguments)
    for net in args.net:
        common.save("litert", [measure(net, args.seconds)], args.out)


if __name__ == "__main__":
    main()
