"""How fast is an exported SavedModel in a Session, which is what TensorFlow Serving runs?

    python benchmarks/serving.py [--net mobilenet_v2] [--batch 1 16]

Sides: the bundle in float32 and in bfloat16, and Keras' `model.export` of the peer:
`keras.applications`, or the same network from Keras' own layers (with the XLA attribute that Keras
puts on grouped convolutions). All take float32 images and have biases and moving averages that are
not zero, see `models.randomize`.
"""

from __future__ import annotations

import pathlib
import tempfile
from collections.abc import Callable
from typing import Any

import common

PRECISIONS = ("float32", "bfloat16")
# (network, batch, precision) -> hoped for.
TARGETS = {
    ("mobilenet_v2", 16, "float32"): 1.9,
    ("mobilenet_v2", 1, "float32"): 1.75,
    ("mobilenet_v2", 16, "bfloat16"): 2.5,
    ("shufflenet_v1", 16, "float32"): 2.0,
    ("shufflenet_v1", 1, "float32"): 2.0,
}


class Served:
    """The `serving_default` of a SavedModel, with a batch of noise to ask it about."""

    def __init__(self, path: pathlib.Path, batch: int) -> None:
        import numpy as np
        import tensorflow as tf

        with tf.Graph().as_default():
            self.session = tf.compat.v1.Session()
            meta = tf.compat.v1.saved_model.loader.load(self.session, ["serve"], str(path))
        signature = meta.signature_def["serving_default"]
        (self.input,) = (tensor.name for tensor in signature.inputs.values())
        outputs = signature.outputs
        key = "probabilities" if "probabilities" in outputs else next(iter(outputs))
        self.output = outputs[key].name
        shape = (batch, 224, 224, 3)
        self.images = np.random.default_rng(0).uniform(-1, 1, shape).astype("float32")

    def requests(self) -> Callable[[], None]:
        """A function that runs requests of about eight images, at least one."""
        request = self.session.make_callable(self.output, [self.input])
        repeats = max(1, 8 // len(self.images))

        def run() -> None:
            for _ in range(repeats):
                request(self.images)

        return run


def write_bundle(model: Any, precision: str, path: pathlib.Path) -> pathlib.Path:
    """Exports as `export_saved_model` does, without the comparison and the files beside it."""
    from keras_lightnets.inference.function import inference_model

    return write_served(model, inference_model(model, precision), path)


def write_served(model: Any, served: Any, path: pathlib.Path) -> pathlib.Path:
    """Writes what was made for serving out of `model`."""
    from keras_lightnets.export import saved_model as export
    from keras_lightnets.preprocessing import EvalTransform

    transform, options = EvalTransform((224, 224)), export.ExportOptions(input_dtype="float32")
    interface = export.make_interface(model, None, transform, options)
    path.mkdir(parents=True)
    export.write_saved_model(served, interface, path)
    return path


def measure(net: str, batch: int, seconds: float) -> list[common.Row]:
    """Exports all sides and times their requests in turns."""
    import keras
    import models

    import keras_lightnets

    keras.backend.clear_session()
    model = models.randomize(keras_lightnets.create_model(net))
    peer_name, peer = models.peer(net, model)
    peer_name = f"Keras export of {peer_name}"
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        peer.export(folder / "peer", verbose=False)
        sides = {peer_name: Served(folder / "peer", batch).requests()}
        for precision in PRECISIONS:
            path = write_bundle(model, precision, folder / precision)
            sides[precision] = Served(path, batch).requests()
        times = common.interleave(sides, seconds=seconds, warm_up=3)
    return [
        common.compare(
            times,
            precision,
            peer_name,
            case=f"SavedModel in a Session, {net}-224-b{batch} {precision}",
            target=TARGETS.get((net, batch, precision)),
        )
        for precision in PRECISIONS
    ]


def main(arguments: list[str] | None = None) -> None:
    """Runs the benchmark."""
    common.network_main("serving", __doc__, measure, common.NETS, arguments)


if __name__ == "__main__":
    main()
