"""Which devices train, in which precision: `train.devices` -> a `tf.distribute` strategy."""

from __future__ import annotations

import contextlib
import re

import tensorflow as tf

from keras_lightnets.layers import placement
from keras_lightnets.text import first_line
from lightnets.config.keys import TrainConfig
from lightnets.distribution import rendezvous
from lightnets.distribution.workers import Cluster
from lightnets.support import console
from lightnets.support.errors import UsageError, UserError


def create(
    devices: str, members: Cluster | None = None, gpu_memory: str = "all"
) -> tf.distribute.Strategy:
    """Returns the strategy that trains on the `devices` of this machine, or of all workers.

    TensorFlow sees no other GPUs from then on, and takes no memory of them.

    Args:
        devices: `all` (every GPU, or the CPU where there is none), GPU numbers such as
            `0,1`, or `cpu:N` for N logical CPUs, which share the cores: for tests.
        members: All workers; each has the same number of GPUs, or one replica on its CPU.
        gpu_memory: `all`, or `grow`: no more than is needed at a time.

    Raises:
        UsageError: `devices` is none of these.
        UserError: A named device is not there.
    """
    if members is not None and devices not in ("all", "cpu", "cpu:1"):
        raise UsageError(
            "With several workers train.devices is all or cpu:1; choose GPUs by "
            f"CUDA_VISIBLE_DEVICES. Received: {devices!r}."
        )
    cpus = re.fullmatch(r"cpu(?::(\d+))?", devices)
    gpus = [] if cpus else _named_gpus(devices)
    _show_only(gpus, grow=gpu_memory == "grow")
    if members is not None:
        return _of_workers(members, on_gpus=bool(gpus))
    visible = tf.config.get_visible_devices("GPU")
    if hidden := [gpu.name for gpu in gpus if gpu not in visible]:
        raise UserError(f"{hidden[0]} was hidden when TensorFlow started. Use another process.")
    names = [f"/gpu:{visible.index(gpu)}" for gpu in gpus]
    names = names or _logical_cpus(int(cpus[1] or 1) if cpus else 1)
    if len(names) == 1:
        return tf.distribute.OneDeviceStrategy(names[0])
    # The default reduction fails inside the loop of `steps_per_execution` (TF 2.21); NCCL
    # and the reduction to one device do not. NCCL exists for GPUs only.
    reduction = (
        tf.distribute.NcclAllReduce() if gpus else tf.distribute.ReductionToOneDevice("/cpu:0")
    )
    return tf.distribute.MirroredStrategy(names, cross_device_ops=reduction)


def _of_workers(members: Cluster, on_gpus: bool) -> tf.distribute.Strategy:
    communication = tf.distribute.experimental.CommunicationImplementation
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
        tf.train.ClusterSpec({"worker": list(members.addresses)}),
        task_type="worker",
        task_id=members.index,
        rpc_layer="grpc",
    )
    if members.is_chief:
        console.line(f"Waiting for {len(members.addresses)} workers.")
    rendezvous.meet(members)
    try:
        return tf.distribute.MultiWorkerMirroredStrategy(
            resolver,
            tf.distribute.experimental.CommunicationOptions(
                implementation=communication.NCCL if on_gpus else communication.RING
            ),
        )
    except (tf.errors.UnknownError, tf.errors.InvalidArgumentError) as error:
        raise UserError(
            f"Worker {members.index} cannot listen on {members.addresses[members.index]}: "
            f"{first_line(error)}."
        ) from None


def _named_gpus(devices: str) -> list[tf.config.PhysicalDevice]:
    found = tf.config.list_physical_devices("GPU")
    if devices == "all":
        return found
    if not re.fullmatch(r"\d+(,\d+)*", devices):
        raise UsageError(
            f"train.devices must be all, GPU numbers such as 0,1, or cpu:N. Received: {devices!r}."
        )
    numbers = [int(number) for number in devices.split(",")]
    if missing := [number for number in numbers if number >= len(found)]:
        raise UserError(
            f"train.devices asks for GPU {missing[0]}, but TensorFlow finds {len(found)} GPUs. "
            "Use cpu:1 to train on the CPU."
        )
    if len(set(numbers)) != len(numbers):
        raise UsageError(f"train.devices names a GPU twice: {devices!r}.")
    return [found[number] for number in numbers]


def _show_only(gpus: list[tf.config.PhysicalDevice], grow: bool) -> None:
    with contextlib.suppress(RuntimeError):  # TensorFlow is running already
        tf.config.set_visible_devices(gpus, "GPU")
        for gpu in gpus if grow else ():
            tf.config.experimental.set_memory_growth(gpu, True)


def _logical_cpus(count: int) -> list[str]:
    if not 1 <= count <= 64:
        raise UsageError(f"train.devices takes cpu:1 to cpu:64. Received: cpu:{count}.")
    if count > 1:
        cpu = tf.config.list_physical_devices("CPU")[0]
        try:
            tf.config.set_logical_device_configuration(
                cpu, [tf.config.LogicalDeviceConfiguration()] * count
            )
        except RuntimeError:  # TensorFlow is running already: what it has must do.
            found = len(tf.config.list_logical_devices("CPU"))
            if found < count:
                raise UserError(
                    f"train.devices=cpu:{count} must be set before TensorFlow starts; "
                    f"this process has {found} logical CPUs."
                ) from None
    return [f"/cpu:{number}" for number in range(count)]


def precision(wanted: str, strategy: tf.distribute.Strategy) -> str:
    """Returns the Keras dtype policy for `train.precision`; `auto` goes by the device.

    GPUs since Ampere compute in bfloat16 (which needs no loss scaling), older ones with
    tensor cores in float16, CPUs in float32: their gain is eaten by conversions.
    """
    if wanted != "auto":
        return wanted
    gpus = tf.config.get_visible_devices("GPU") if placement.on_gpu(strategy) else []
    capabilities = [
        tf.config.experimental.get_device_details(gpu).get("compute_capability", (0, 0))
        for gpu in gpus
    ]
    if not capabilities or min(capabilities) < (7, 0):
        return "float32"
    return "mixed_bfloat16" if min(capabilities) >= (8, 0) else "mixed_float16"


def jit(wanted: str, strategy: tf.distribute.Strategy, sync_bn: bool) -> bool:
    """Returns whether XLA compiles the forward and backward pass of each replica.

    Args:
        wanted: `on`, `off`, or `auto`: on GPUs, where it works. On CPUs XLA makes depthwise and
            grouped convolutions many times slower.
        strategy: What trains.
        sync_bn: Whether batch statistics span its replicas.

    Raises:
        UsageError: `on` where it does not work.
    """
    obstacle = None
    if placement.deterministic():
        obstacle = "train.deterministic=true: its gradient of max pooling varies"
    elif sync_bn and strategy.num_replicas_in_sync > 1:
        obstacle = "train.sync_bn=true on several devices: it compiles no sums over them"
    if wanted == "on" and obstacle:
        raise UsageError(f"XLA does not work with {obstacle}. Use train.jit=off.")
    return wanted == "on" or (wanted == "auto" and not obstacle and placement.on_gpu(strategy))


def check_batch(config: TrainConfig, replicas: int) -> None:
    """Raises UsageError unless every replica gets equally many images in every part."""
    parts = replicas * config.accumulate
    if config.batch_size % parts:
        lower = config.batch_size // parts * parts
        choices = f"{lower} or {lower + parts}" if lower else f"{parts}"
        raise UsageError(
            f"train.batch_size (={config.batch_size}) must be divisible by {replicas} replicas "
            f"x train.accumulate (={config.accumulate}): try {choices}."
        )


def eval_batch(config: TrainConfig, replicas: int) -> int:
    """Returns the global evaluation batch, rounded up to a multiple of the replicas."""
    wanted = config.eval_batch_size or config.batch_size
    return -(-wanted // replicas) * replicas
