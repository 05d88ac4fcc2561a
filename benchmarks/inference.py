"""How fast is inference in a `tf.function` beside `keras.applications`?

    python benchmarks/inference.py [--net mobilenet_v2] [--batch 1 16]

Three sides take turns: the network as built, the same with batch norms folded into convolutions
(what an export holds), and the peer. ShuffleNet's peer is the same network from Keras' layers.
"""

from __future__ import annotations

import argparse
import pathlib
from collections.abc import Callable

import common

TARGET = 1.8
NETS = ("mobilenet_v1", "mobilenet_v2", "shufflenet_v1", "shufflenet_v2", "squeezenet")


def measure(net: str, batch: int, seconds: float) -> list[common.Row]:
    """Times one network at 224 pixels and one batch size."""
    import keras
    import models

    import keras_lightnets

    keras.backend.clear_session()
    ours = keras_lightnets.create_model(net, input_shape=(224, 224, 3))
    if net.startswith("mobilenet"):
        peer_name, peer = "keras.applications", models.keras_application(net, 224)
    else:
        peer_name, peer = "Keras layers", models.plain_keras(ours)
    sides = {
        "keras_lightnets": forward(ours, batch),
        "folded": forward(keras_lightnets.fold_batch_norm(ours), batch),
        peer_name: forward(peer, batch),
    }
    times = common.interleave(sides, seconds=seconds, warm_up=3)
    case = f"inference {net}-224-b{batch}"
    return [
        common.compare(times, "keras_lightnets", peer_name, case=case, target=TARGET),
        common.compare(times, "folded", peer_name, case=f"{case} folded", target=TARGET),
    ]


def forward(model, batch: int) -> Callable[[], None]:
    """A function that runs the model once, in a graph of its own, and waits for it."""
    import tensorflow as tf

    images = tf.random.uniform((batch, 224, 224, 3))
    signature = [tf.TensorSpec.from_tensor(images)]
    graph = tf.function(lambda x: model(x, training=False), input_signature=signature)
    repeats = max(1, 8 // batch)

    def run() -> None:
        for _ in range(repeats):
            graph(images).numpy()

    return run


def main(arguments: list[str] | None = None) -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--net", nargs="+", choices=NETS, default=["mobilenet_v1", "mobilenet_v2"])
    parser.add_argument("--batch", nargs="+", type=int, default=[1, 16])
    parser.add_argument("--seconds", type=float, default=20.0, help="per case")
    parser.add_argument("--out", type=pathlib.Path, default=common.RESULTS)
    args = parser.parse_args(arguments)
    for net in args.net:
        for batch in args.batch:
            common.save("inference", measure(net, batch, args.seconds), args.out)


if __name__ == "__main__":
    main()
