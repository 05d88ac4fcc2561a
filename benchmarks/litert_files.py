"""Is LiteRT faster from our folded network than from the Keras model, and from int8?

    python benchmarks/litert_files.py [--net mobilenet_v2 shufflenet_v1]

Both sides are `.tflite` files in LiteRT's interpreter (XNNPACK), with as many threads as cores:
ours as `lightnets export --formats litert` writes it, the peer's by `export(format="litert")` from
the same network of Keras' own layers, whose converter folds batch norms as well. Then our int8 file
beside our float file: time for one image, and size.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import tempfile
from collections.abc import Callable

import common

TARGET, INT8_TARGET, INT8_SIZE = 1.0, 1.6, 1 / 0.27
NETS = ("mobilenet_v1", "mobilenet_v2", "shufflenet_v1", "shufflenet_v2", "squeezenet")


def measure(net: str, seconds: float) -> list[common.Row]:
    """Times one network at 224 pixels and batch 1."""
    import keras

    import keras_lightnets
    from keras_lightnets.export import formats
    from keras_lightnets.export import parity as gate
    from keras_lightnets.export.described import Description

    keras.backend.clear_session()
    ours = keras_lightnets.create_model(net, input_shape=(224, 224, 3), include_preprocessing=True)
    peer = keras_lightnets.plain_keras(ours)
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        images = gate.HeldOut.synthetic((224, 224), 32)
        kinds = ["litert", "litert-int8"]
        about = Description(net, [str(number) for number in range(1000)], {})
        formats.convert(
            ours, folder, kinds, images, about, representative=images.images, max_accuracy_drop=1
        )
        peer.export(str(folder / "peer.tflite"), format="litert", verbose=False)
        sides = {
            "folded": interpreter(folder / "model.tflite"),
            "unfolded Keras model": interpreter(folder / "peer.tflite"),
            "int8": interpreter(folder / "model-int8.tflite", "uint8"),
        }
        times = common.interleave(sides, seconds=seconds, warm_up=3)
        files = ("model-int8.tflite", "model.tflite")
        small, large = ((folder / file).stat().st_size / 1e6 for file in files)
    case = f"LiteRT, {net}-224-b1"
    size = common.Row(
        case=f"LiteRT, {net} file",
        ours="int8",
        peer="float32",
        **dict.fromkeys(("ratio", "low", "high", "best"), large / small),
        processor=None,
        ours_value=small,
        peer_value=large,
        unit="MB",
        turns=1,
        target=INT8_SIZE,
    )
    common.print_row(size)
    return [
        common.compare(times, "folded", "unfolded Keras model", case=case, target=TARGET),
        common.compare(times, "int8", "folded", case=f"{case} int8", target=INT8_TARGET),
        size,
    ]


def interpreter(path: pathlib.Path, dtype: str = "float32") -> Callable[[], None]:
    """A function that runs a `.tflite` file on one image, ten times."""
    import numpy as np

    from keras_lightnets.export import runtimes

    predict = runtimes.load_litert(path, os.cpu_count())
    image = np.random.default_rng(0).uniform(0, 255, (1, 224, 224, 3)).astype(dtype)

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
        common.save("litert", measure(net, args.seconds), args.out)


if __name__ == "__main__":
    main()
