"""How fast is an exported SavedModel in a Session, which is what TensorFlow Serving runs?

    python benchmarks/serving.py [--net mobilenet_v2]

Sides: our folded export in float32 and in bfloat16, and Keras' `model.export` of the peer
(`keras.applications`, or for ShuffleNet the same network from Keras' layers).
"""

from __future__ import annotations

import argparse
import pathlib
import tempfile
from collections.abc import Callable

import common

NETS = ("mobilenet_v1", "mobilenet_v2", "shufflenet_v1", "shufflenet_v2", "squeezenet")
# Measured once against Keras' export: 1.6 for MobileNet v2 in float32, 2.4 in bfloat16.
TARGETS = {"float32": 1.6, "bfloat16": 2.4}


def session(path: pathlib.Path, signature: str, batch: int) -> Callable[[], None]:
    """A function that runs one request of a signature of the model in `path`."""
    import numpy as np
    import tensorflow as tf

    opened = tf.compat.v1.Session(graph=tf.Graph())
    with opened.graph.as_default():
        meta = tf.compat.v1.saved_model.loader.load(opened, ["serve"], str(path))
    definition = meta.signature_def[signature]
    (inputs,) = definition.inputs.values()
    outputs = [tensor.name for tensor in definition.outputs.values()]
    dtype = tf.as_dtype(inputs.dtype).as_numpy_dtype
    images = np.random.default_rng(0).uniform(0, 255, (batch, 224, 224, 3)).astype(dtype)
    repeats = max(1, 8 // batch)

    def run() -> None:
        for _ in range(repeats):
            opened.run(outputs, {inputs.name: images})

    return run


def measure(net: str, batch: int, seconds: float) -> list[common.Row]:
    """Exports all sides and times their requests in turns."""
    import models

    import keras_lightnets

    model = keras_lightnets.create_model(net, include_preprocessing=True)
    if net.startswith("mobilenet"):
        peer_name, peer = "Keras export of keras.applications", models.keras_application(net, 224)
    else:
        peer_name, peer = "Keras export of Keras layers", models.plain_keras(model)
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        peer.export(folder / "peer", verbose=False)
        sides = {peer_name: session(folder / "peer", "serving_default", batch)}
        for precision in TARGETS:
            path = keras_lightnets.export_saved_model(
                model,
                folder,
                name=precision,
                precision=precision,
                max_accuracy_drop=1.0,  # the weights are random
                warmup_batch_sizes=(1,),
            )
            sides[precision] = session(path, "serving_default", batch)
        times = common.interleave(sides, seconds=seconds, warm_up=3)
    return [
        common.compare(
            times,
            precision,
            peer_name,
            case=f"SavedModel in a Session, {net}-224-b{batch} {precision}",
            target=target if net == "mobilenet_v2" else None,
        )
        for precision, target in TARGETS.items()
    ]


def main(arguments: list[str] | None = None) -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--net", nargs="+", choices=NETS, default=["mobilenet_v2", "shufflenet_v1"])
    parser.add_argument("--batch", nargs="+", type=int, default=[1, 16])
    parser.add_argument("--seconds", type=float, default=20.0, help="per case")
    parser.add_argument("--out", type=pathlib.Path, default=common.RESULTS)
    args = parser.parse_args(arguments)
    for net in args.net:
        for batch in args.batch:
            common.save("serving", measure(net, batch, args.seconds), args.out)


if __name__ == "__main__":
    main()
