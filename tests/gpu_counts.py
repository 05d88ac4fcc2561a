"""What a training step asks of a GPU, counted in the graph that TensorFlow would run there.

TensorFlow's own optimizer, Grappler, makes that graph on any machine: it is told of a GPU and asks
nothing else of it. What is counted of its operations is a rule, not a measurement:

- A launch is an operation with a kernel for GPUs that writes to their memory. Those that only hand
  a buffer on are none: constants, reshapes, reading a variable and assigning to it. Some kernels
  launch more than once, a matrix product some libraries' own.
- Bytes are the sizes of all inputs and outputs of launches: as if no cache held anything.
- Transposes are those of maps of more than a megabyte: from one layout into another, and the
  shuffles of ShuffleNets.
"""

from __future__ import annotations

import collections
import os
from typing import NamedTuple

import tensorflow as tf
from tensorflow.core.protobuf import config_pb2, device_properties_pb2
from tensorflow.python.framework import op_def_registry
from tensorflow.python.grappler import cluster, tf_optimizer
from tensorflow.python.ops import resource_variable_ops

from keras_lightnets.layers import placement
from lightnets.distribution import strategy
from tests import gpu_steps

_PLACE = "/job:localhost/replica:0/task:0/device:"
_HANDS_ON = {
    "AssignVariableOp",
    "Const",
    "ExpandDims",
    "Identity",
    "IdentityN",
    "PlaceholderWithDefault",
    "PreventGradient",
    "ReadVariableOp",
    "Reshape",
    "Squeeze",
    "StopGradient",
    "VarHandleOp",
}


class Launch(NamedTuple):
    """An operation that launches a kernel."""

    kind: str
    name: str
    size: int  # bytes it reads and writes


def launches_of_step(
    family: str,
    policy: str,
    *,
    batch: int = 256,
    size: int = 224,
    classes: int = 1000,
    replicas: int = 1,
    options: dict | None = None,
    **keys,
) -> list[Launch]:
    """What one of `replicas` launches in a step without XLA; in a process of its own.

    Args:
        family: Network.
        policy: Keras' name of the type it computes in.
        batch: Images of a replica.
        size: Their height and width.
        classes: Number of classes.
        replicas: GPUs.
        options: Of the network.
        **keys: Of the configuration, section `train`.
    """
    # Read by TensorFlow where it chooses layouts; `lightnets train` sets it, too.
    os.environ["TF_USE_CUDNN_BATCHNORM_SPATIAL_PERSISTENT"] = "1"
    chosen = strategy.create(f"cpu:{replicas}")
    placement.on_gpu = lambda strategy=None: True
    with chosen.scope():
        model = gpu_steps.network(family, policy, size, classes, **(options or {}))
    specs = gpu_steps.batch_specs(batch, size, classes)
    graph = gpu_steps.traced(chosen, model, policy, specs, **keys)
    return [
        launch
        for op in optimized(graph, replicas).get_operations()
        if op.device.endswith("GPU:0") and (launch := _launch(op))
    ]


def summary(launches: list[Launch]) -> dict[str, float]:
    """Numbers of launches and of transposes, and gigabytes moved."""
    transposes = [each for each in launches if each.kind == "Transpose" and each.size > 1e6]
    return {
        "launches": len(launches),
        "transposes": len(transposes),
        "gigabytes": sum(each.size for each in launches) / 1e9,
    }


def by_kind(launches: list[Launch]) -> dict[str, tuple[int, float]]:
    """Number and gigabytes of each kind of operation, the most frequent first."""
    counts = collections.Counter(each.kind for each in launches)
    return {
        kind: (count, sum(each.size for each in launches if each.kind == kind) / 1e9)
        for kind, count in counts.most_common()
    }


def optimized(graph: tf.Graph, gpus: int = 1) -> tf.Graph:
    """The graph of a function, traced on CPUs, as Grappler would have it for so many H100."""
    placed = _placed(graph)
    with tf.Graph().as_default() as imported:
        tf.import_graph_def(placed, name="")
    whole = tf.compat.v1.train.export_meta_graph(graph_def=placed, graph=imported)
    wanted = [each.name for each in (*graph.outputs, *graph.control_outputs)]
    whole.collection_def["train_op"].node_list.value.extend(wanted)
    config = config_pb2.ConfigProto()
    config.graph_options.rewrite_options.min_graph_nodes = -1
    result = tf_optimizer.OptimizeGraph(config, whole, verbose=False, cluster=_machine(gpus))
    with tf.Graph().as_default() as graph:
        tf.import_graph_def(result, name="")
    return graph


def _placed(graph: tf.Graph) -> tf.compat.v1.GraphDef:
    """The graph on GPUs in place of CPUs, with variables in place of the handles it was given."""
    definition = tf.compat.v1.GraphDef.FromString(graph.as_graph_def().SerializeToString())
    handles = {
        inner.op.name: outer for outer, inner in graph.captures if outer.dtype == tf.resource
    }
    for node in definition.node:
        number = 1 if node.device.endswith("CPU:1") else 0
        if node.name in handles:
            (held,) = resource_variable_ops.get_eager_safe_handle_data(
                handles[node.name]
            ).shape_and_type
            number = 1 if handles[node.name].device.endswith("CPU:1") else 0
            node.op = "VarHandleOp"
            node.attr.clear()
            node.attr["dtype"].type = held.dtype
            node.attr["shape"].shape.CopyFrom(held.shape)
            node.attr["shared_name"].s = node.name.encode()
        stays = node.op in ("Placeholder", "NoOp", "VarHandleOp") or gpu_steps.on_gpus(node)
        node.device = f"{_PLACE}GPU:{number}" if stays else f"{_PLACE}CPU:0"
    return definition


def _machine(gpus: int) -> cluster.Cluster:
    """What Grappler asks about a machine with H100."""
    device, properties = device_properties_pb2.NamedDevice, device_properties_pb2.DeviceProperties
    cpu = properties(type="CPU", frequency=3000, num_cores=16, memory_size=128 << 30)
    gpu = properties(
        type="GPU",
        vendor="NVIDIA",
        frequency=1980,
        num_cores=132,
        memory_size=78 << 30,
        bandwidth=3_350_000_000,
        environment={"architecture": "9.0", "cuda": "12050", "cudnn": "9300"},
    )
    devices = [device(name=f"{_PLACE}CPU:0", properties=cpu)]
    devices += [device(name=f"{_PLACE}GPU:{number}", properties=gpu) for number in range(gpus)]
    return cluster.Cluster(devices=devices)


def _launch(op: tf.Operation) -> Launch | None:
    kernel = gpu_steps.kernel(op.node_def)
    outputs = {output.name for output in op_def_registry.get(op.type).output_arg}
    on_host = bool(outputs) and outputs <= set(kernel.host_memory_arg) if kernel else True
    if on_host or op.type in _HANDS_ON | gpu_steps._ENDS:
        return None
    tensors = [t for t in (*op.inputs, *op.outputs) if t.dtype not in (tf.resource, tf.string)]
    # Unknown is only what a batch norm reserves for its gradient.
    sizes = [(t.shape.num_elements() or 0) * t.dtype.size for t in tensors]
    return Launch(op.type, op.name, sum(sizes))
