"""What the layers and the training run on: the one place that answers it.

On TensorFlow the layers of this package have ways of their own to compute. On Keras' other backends
they compute as the layers of Keras that they extend, and `tf` is None.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import keras

TENSORFLOW = keras.backend.backend() == "tensorflow"

if TYPE_CHECKING or TENSORFLOW:
    import tensorflow as tf
    import tensorflow.compiler.tf2xla.python.xla as xla
    from tensorflow.python.framework.config import is_op_determinism_enabled
    from tensorflow.python.ops.control_flow_util import GraphOrParentsInXlaContext
else:
    tf = xla = None


def need_tensorflow(what: str) -> None:
    """Raises a ValueError that says that `what` needs TensorFlow, unless Keras runs on it."""
    if not TENSORFLOW:
        raise ValueError(
            f"{what} needs TensorFlow: set KERAS_BACKEND=tensorflow. "
            f"Keras runs on {keras.backend.backend()}."
        )


def on_gpu(strategy: tf.distribute.Strategy | None = None) -> bool:
    """Whether `strategy`, else the one at work, computes on GPUs.

    A GPU that is in the machine does not count where the strategy names CPUs, nor one that is
    hidden by `tf.config.set_visible_devices`. Does not start TensorFlow's runtime.
    """
    try:
        return "GPU" in (strategy or tf.distribute.get_strategy()).extended.worker_devices[0]
    except RuntimeError:
        # TensorFlow's default strategy names no device: operations prefer GPUs.
        return bool(tf.config.get_visible_devices("GPU"))


def deterministic() -> bool:
    """Whether GPUs must give the same bits again (`enable_op_determinism`)."""
    return is_op_determinism_enabled()


def compiled() -> bool:
    """Whether what is being traced now is compiled by XLA."""
    return GraphOrParentsInXlaContext(tf.compat.v1.get_default_graph())
