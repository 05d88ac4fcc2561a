"""How fast is inference in a `tf.function` beside `keras.applications`?

    python benchmarks/inference.py [--net mobilenet_v2] [--batch 1 16]

Three sides take turns: the network as built, the same as `inference_function` makes it (what an
export holds), and the peer. ShuffleNet's peer is the same network from Keras' layers. Biases and
moving averages are not zero, see `models.randomize`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import common

TARGET = 1.8


def measure(net: str, batch: int, seconds: float) -> list[common.Row]:
    """Times one network at 224 pixels and one batch size."""
    import keras
    import models

    import keras_lightnets

    keras.backend.clear_session()
    ours = models.randomize(keras_lightnets.create_model(net, input_shape=(224, 224, 3)))
    peer_name, peer = models.peer(net, ours)
    sides = {
        "keras_lightnets": forward(graph(ours, batch), batch),
        "inference_function": forward(keras_lightnets.inference_function(ours), batch),
        peer_name: forward(graph(peer, batch), batch),
    }
    times = common.interleave(sides, seconds=seconds, warm_up=3)
    case = f"inference {net}-224-b{batch}"
    return [
        common.compare(times, "keras_lightnets", peer_name, case=case, target=TARGET),
        common.compare(
            times, "inference_function", peer_name, case=f"{case} folded", target=TARGET
        ),
    ]


def graph(model: Any, batch: int) -> Callable[[Any], Any]:
    """A `tf.function` of the model at one batch size."""
    import tensorflow as tf

    signature = [tf.TensorSpec((batch, 224, 224, 3), tf.float32)]
    return tf.function(lambda x: model(x, training=False), input_signature=signature)


def forward(function: Callable[[Any], Any], batch: int) -> Callable[[], None]:
    """A function that runs another on about eight images, at least one batch, and waits."""
    import tensorflow as tf

    images = tf.random.uniform((batch, 224, 224, 3))
    repeats = max(1, 8 // batch)

    def run() -> None:
        for _ in range(repeats):
            function(images).numpy()

    return run


def main(arguments: list[str] | None = None) -> None:
    """Runs the benchmark."""
    nets = ("mobilenet_v1", "mobilenet_v2")
    common.network_main("inference", __doc__, measure, nets, arguments)


if __name__ == "__main__":
    main()
