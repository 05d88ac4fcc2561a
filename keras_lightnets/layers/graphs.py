"""What the layers ask about the graph that they are called in."""

from __future__ import annotations

import tensorflow as tf


def in_cpu_graph(x: tf.Tensor) -> bool:
    """Whether `x` belongs to a graph, so that its origin can be read, and there is no GPU."""
    return tf.is_symbolic_tensor(x) and not tf.config.list_physical_devices("GPU")
