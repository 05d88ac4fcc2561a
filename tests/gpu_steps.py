"""Training steps traced as where a GPU is, and what TensorFlow's library has for them."""

from __future__ import annotations

import collections
import os
import pathlib
import re

import keras
import tensorflow as tf
from tensorflow.python.framework import kernels, op_def_registry

import keras_lightnets
from keras_lightnets.layers import placement
from lightnets.config.keys import Config, OptimizerConfig, TrainConfig
from lightnets.distribution import strategy
from lightnets.optimization import batch_norm, optimizers
from lightnets.optimization.ema import WeightAverage
from lightnets.optimization.step import LoopState, TrainStep

SIZE, CLASSES, BATCH = 64, 10, 8


def batch_specs(batch: int, size: int, classes: int) -> list[tf.TensorSpec]:
    """Of the images, labels and weights of a batch."""
    return [
        tf.TensorSpec((batch, size, size, 3), tf.uint8),
        tf.TensorSpec((batch, classes), tf.float32),
        tf.TensorSpec((batch,), tf.float32),
    ]


SPECS = batch_specs(BATCH, SIZE, CLASSES)
# Nodes that are no operations of their own.
_CALLS = {"PartitionedCall", "StatefulPartitionedCall", "While", "StatelessWhile", "If"}
_ENDS = {"Placeholder", "NoOp", "_Arg", "_Retval"}
# What raises an error on GPUs under determinism, as the messages in TensorFlow's library say.
_VARYING = {
    "Bincount",
    "CropAndResizeGradImage",
    "DenseBincount",
    "MaxPoolGradWithArgmax",
    "ResizeNearestNeighborGrad",
    "SoftmaxCrossEntropyWithLogits",
    "SparseSoftmaxCrossEntropyWithLogits",
    "UnsortedSegmentSum",
}


def network(
    family: str, policy: str, size: int = SIZE, classes: int = CLASSES, **options
) -> keras.Model:
    """A network with logits."""
    keras.config.set_dtype_policy(policy)
    try:
        return keras_lightnets.create_model(
            family,
            input_shape=(size, size, 3),
            classes=classes,
            include_preprocessing=True,
            classifier_activation=None,
            **options,
        )
    finally:
        keras.config.set_dtype_policy("float32")


def train_step(
    model: keras.Model, policy: str, ema: float = 0.0, clip: float | None = None, **keys
):
    """The step of a run with these keys of `train`."""
    config = Config(
        optimizer=OptimizerConfig(global_clipnorm=clip),
        train=TrainConfig(batch_size=2 * BATCH, ema=ema, **keys),
    )
    average = WeightAverage(model.trainable_variables, ema) if ema else None
    return TrainStep(
        model,
        optimizers.build(config, 100, model),
        LoopState(policy == "mixed_float16"),
        config.train,
        config.optimizer,
        average,
    )


def missing_of_step(
    family: str, policy: str, devices: str, *, deterministic: bool = False, **keys
) -> list[str]:
    """Operations of a step that a GPU has no kernel for; in a process of its own."""
    chosen = strategy.create(devices)
    placement.on_gpu = lambda strategy=None: True
    if deterministic:
        tf.config.experimental.enable_op_determinism()
    with chosen.scope():
        model = network(family, policy)
        if deterministic:  # frozen batch norms let gradients through
            for layer in list(batch_norm.layers(model))[-2:]:
                layer.trainable = False
    graph = traced(chosen, model, policy, SPECS, **keys).as_graph_def()
    found = missing(graph)
    if deterministic:
        found += sorted({node.op for node in nodes(graph) if varies(node)})
    return found


def traced(
    chosen: tf.distribute.Strategy,
    model: keras.Model,
    policy: str,
    specs: list[tf.TensorSpec],
    **keys,
) -> tf.Graph:
    """The graph of a step with these keys of `train`, `specs` being those of a replica's batch."""
    with chosen.scope():
        if keys.get("sync_bn"):
            batch_norm.synchronize(model)
        step = train_step(model, policy, **keys)

    @tf.function(autograph=False)
    def run(*batch):
        wishes = chosen.run(step, args=(*batch, tf.zeros((2,))))
        return chosen.experimental_local_results(wishes)[0]

    return run.get_concrete_function(*specs).graph


def missing_of_inference(family: str) -> list[str]:
    """Operations of evaluation and of inference functions that a GPU has no kernel for."""
    placement.on_gpu = lambda strategy=None: True
    model = network(family, "float32")
    judge = tf.function(lambda images: model(tf.cast(images, tf.float32), training=False))
    graphs = [judge.get_concrete_function(SPECS[0]).graph]
    for precision in ("float32", "bfloat16"):
        classify = keras_lightnets.inference_function(model, precision)
        graphs.append(classify.get_concrete_function().graph)
    return [name for graph in graphs for name in missing(graph.as_graph_def())]


def nodes(graph: tf.compat.v1.GraphDef):
    """All nodes of a graph and of its functions."""
    yield from graph.node
    for function in graph.library.function:
        yield from function.node_def


def varies(node) -> bool:
    """Whether a GPU refuses the operation where the same bits are wanted again."""
    if node.op == "FusedBatchNormGradV3":
        return not node.attr["is_training"].b
    return node.op in _VARYING


def missing(graph: tf.compat.v1.GraphDef) -> list[str]:
    """Operations, with their types, for which TensorFlow has no kernel on GPUs."""
    found = collections.Counter()
    for node in nodes(graph):
        if node.op not in _CALLS | _ENDS and not on_gpus(node):
            types = sorted(
                f"{name}={tf.as_dtype(value.type).name}"
                for name, value in node.attr.items()
                if value.WhichOneof("value") == "type"
            )
            found[f"{node.op} {' '.join(types)}"] += 1
    return sorted(found)


def on_gpus(node) -> bool:
    """Whether there is a kernel for GPUs, or one for any device, of the types of a node."""
    return kernel(node) is not None


def kernel(node):
    """The kernel for GPUs, or for any device, of the types of a node; None if there is none."""
    found = [
        kernel
        for kernel in kernels.get_registered_kernels_for_op(node.op).kernel
        if kernel.device_type in ("GPU", "DEFAULT")
        and not kernel.label
        and all(fits(node, constraint) for constraint in kernel.constraint)
    ]
    return min(found, key=lambda kernel: kernel.device_type == "DEFAULT", default=None)


def fits(node, constraint) -> bool:
    """Whether the types of a node are among those of a kernel."""
    value = node.attr.get(constraint.name)
    if value is None:
        attributes = op_def_registry.get(node.op).attr
        value = next(a.default_value for a in attributes if a.name == constraint.name)
    types = list(value.list.type) or [value.type]
    return set(types) <= set(constraint.allowed_values.list.type)


def lowered(family: str, policy: str, **keys) -> str:
    """Forward and backward pass of a step as XLA gets it for a GPU, its HLO."""
    backward, specs = backward_pass(network(family, policy), policy, BATCH, **keys)
    return backward.experimental_get_compiler_ir(*specs)(stage="hlo", platform_name="GPU")


def temporary_bytes(folder: str, family: str, policy: str, **keys) -> int:
    """What forward and backward pass need besides arguments and results, as XLA reports it.

    Of the compiler for CPUs, which compiles without a device. It removes barriers first, unlike the
    one for GPUs; that is switched off.
    """
    passes = "cse_barrier_expander"
    os.environ["XLA_FLAGS"] = f"--xla_dump_to={folder} --xla_disable_hlo_passes={passes}"
    backward, specs = backward_pass(network(family, policy, size=96), policy, batch=32, **keys)
    backward.experimental_get_compiler_ir(*specs)(stage="optimized_hlo")
    (report,) = pathlib.Path(folder).glob("*memory-usage-report.txt")
    found = re.search(r"size ([\d.]+)MiB, preallocated-temp", report.read_text())
    return round(float(found[1]) * 2**20)


def backward_pass(model: keras.Model, policy: str, batch: int, **keys):
    """Forward and backward pass of a step, of all they need as arguments, and their specs."""
    placement.on_gpu = lambda strategy=None: True
    step = train_step(model, policy, **keys)
    # Only what takes all variables as arguments can be lowered for a device that is not here.
    step._state.loss_scale = tf.constant(1.0)
    variables = model.variables

    @tf.function(jit_compile=True, autograph=False)
    def backward(images, labels, weights, *values):
        class Tape(tf.GradientTape):
            def __enter__(self):
                super().__enter__()
                self.watch([v for v in values if v.dtype.is_floating])
                return self

        before, tf.GradientTape = tf.GradientTape, Tape
        try:
            with keras.StatelessScope(state_mapping=zip(variables, values, strict=True)):
                seeds = [tf.zeros(2, tf.int32) for _ in step._generators]
                return step._gradients(images, labels, weights, tf.constant(float(batch)), seeds)
        finally:
            tf.GradientTape = before

    return backward, [
        *batch_specs(batch, model.input_shape[1], model.output_shape[-1]),
        *(tf.TensorSpec(v.shape, v.dtype) for v in variables),
    ]
