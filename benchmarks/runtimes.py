"""Which of the files that an export writes runs fastest on this machine?

    python benchmarks/runtimes.py [--net mobilenet_v2] [--batch 1 16]

One trained-like network (see `models.randomize`) in float32, as `lightnets export --formats
tf_serving,litert,onnx,onnx-int8,openvino,openvino-int8` writes it: the SavedModel in a Session,
which is what TensorFlow Serving runs, against the others in their own runtimes, each with as many
threads as cores.
"""

from __future__ import annotations

import os
import pathlib
import tempfile
from collections.abc import Callable

import common
import serving

# Format -> its runtime.
RUNTIMES = {"litert": "LiteRT", "onnx": "ONNX Runtime", "openvino": "OpenVINO"}
RUNTIMES |= {"onnx-int8": "ONNX Runtime, int8", "openvino-int8": "OpenVINO, int8"}


def measure(net: str, batch: int, seconds: float) -> list[common.Row]:
    """Exports one network to all formats and times their answers in turns."""
    import keras
    import models
    import numpy as np

    import keras_lightnets
    from keras_lightnets.export import formats
    from keras_lightnets.export import parity as gate

    keras.backend.clear_session()
    model = models.randomize(keras_lightnets.create_model(net))
    images = np.random.default_rng(0).uniform(0, 255, (batch, 224, 224, 3)).astype("float32")
    ours = "SavedModel in a Session"
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        saved = serving.write_bundle(model, "float32", folder / "saved")
        formats.convert(
            model,
            folder,
            list(RUNTIMES),
            gate.HeldOut.synthetic((224, 224), 4),
            representative=gate.HeldOut.synthetic((224, 224), 32).images,
            max_accuracy_drop=1,
        )
        sides = {ours: serving.Served(saved, batch).requests()}
        for name, runtime in RUNTIMES.items():
            sides[runtime] = repeated(name, folder, images)
        times = common.interleave(sides, seconds=seconds, warm_up=3)
    return [
        common.compare(times, ours, runtime, case=f"runtime, {net}-224-b{batch}")
        for runtime in RUNTIMES.values()
    ]


def repeated(name: str, folder: pathlib.Path, images) -> Callable[[], None]:
    """A function that has about eight images classified, as `Served.requests` does."""
    from keras_lightnets.export import runtimes

    path = folder / runtimes.FILES[name][0]
    # The others take all cores unless told otherwise.
    more = {"threads": os.cpu_count()} if name == "litert" else {}
    predict = runtimes.LOADERS[path.suffix](path, **more)

    def run() -> None:
        for _ in range(max(1, 8 // len(images))):
            predict(images)

    return run


def main(arguments: list[str] | None = None) -> None:
    """Runs the benchmark."""
    common.network_main("runtimes", __doc__, measure, common.NETS, arguments)


if __name__ == "__main__":
    main()
