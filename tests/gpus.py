"""Machines with GPUs that are not there, as far as TensorFlow is asked about them."""

from __future__ import annotations

import keras
import tensorflow as tf
from tensorflow.python.eager import context

from keras_lightnets.layers import placement
from lightnets.distribution import strategy


def pretend(count: int, capability: tuple[int, int] = (9, 0)) -> None:
    """Adds GPUs to those that TensorFlow has found; in a process where it has not started."""
    here = context.context()
    here._initialize_physical_devices()
    for number in range(count):
        gpu = tf.config.PhysicalDevice(f"/physical_device:GPU:{number}", "GPU")
        here._physical_devices.append(gpu)
        here._visible_device_list.append(gpu)
        here._memory_growth_map[gpu] = None
    tf.config.experimental.get_device_details = lambda gpu: {"compute_capability": capability}


def of_three(
    devices: str,
    gpu_memory: str = "all",
    started: bool = False,
    hidden: bool = False,
    deterministic: bool = False,
    sync_bn: bool = False,
) -> dict:
    """What is chosen where there are three GPUs, and how TensorFlow then starts."""
    pretend(3)
    if deterministic:
        tf.config.experimental.enable_op_determinism()
    if hidden:
        tf.config.set_visible_devices([], "GPU")
    if started:
        tf.zeros(())
    chosen = strategy.create(devices, gpu_memory=gpu_memory)
    with chosen.scope():
        in_scope = placement.on_gpu()
    config = context.context().config
    return {
        "replicas": [name.rpartition("device:")[2] for name in chosen.extended.worker_devices],
        "on_gpu": [placement.on_gpu(chosen), in_scope],
        "precision": strategy.precision("auto", chosen),
        "jit": strategy.jit("auto", chosen, sync_bn),
        "gpus": config.device_count["GPU"],
        "numbers": config.gpu_options.visible_device_list,
        "grows": config.gpu_options.allow_growth,
    }


def tensor_float_32(monkeypatch) -> None:
    """Dense layers compute as on a GPU since Ampere, except where a graph says CPU."""
    exact = keras.layers.Dense.call

    def call(self, inputs, training=None):
        if "CPU" not in tf.identity(inputs).device:
            bits = tf.bitcast(inputs, tf.int32)  # of 23 bits behind the first, 10 stay
            inputs = tf.bitcast((bits + (1 << 12)) & ~((1 << 13) - 1), tf.float32)
        return exact(self, inputs)

    monkeypatch.setattr(keras.layers.Dense, "call", call)
