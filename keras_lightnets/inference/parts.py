"""A network that runs large batches in parts, whose feature maps stay in the cache."""

from __future__ import annotations

import math
from typing import Any

import tensorflow as tf

_CACHE_BYTES = 10e6
_CHAINS = 2
_LARGEST_PART = 32  # images; a larger part would hold most batches whole


def in_parts(network: Any, input_spec: tf.TensorSpec) -> Any:
    """Returns a function that calls `network` on a few images at a time, two parts side by side.

    From operation to operation, a light network waits for memory: at 224 pixels and 16 images,
    the largest feature map of MobileNet v2 is 77 MB, which one operation writes and the next
    reads. Parts whose largest feature map has at most 10 MB (two images, four in bfloat16; eight
    for ShuffleNet v1) leave it in the cache. And while one part waits for the slowest thread of
    an operation, the other goes on.

    All parts of a batch have the same size: the next smaller one that divides it, but at least
    half as large, else the batch runs whole. OpenVINO, which reads the SavedModel too, aborts on
    parts of different sizes, and oneDNN lays out kernels anew for each.

    On two cores and 16 images, against the whole batch at once: MobileNet v2 and ShuffleNet v1
    1.13 times as fast. One part after the other gains nothing, four side by side less than two:
    they share the cache. It was not measured on more cores. There the operations of a part still
    use all of them, and a busy server runs the parts of other requests; but one large request on
    an idle server may take longer, and on a GPU it surely does. The graph does not ask where it
    runs: `DeviceIndex`, which tells, is an operation that other readers of a SavedModel lack.

    Args:
        network: Function of images `(batch, height, width, 3)`, in which no image depends on
            another, giving `(batch, classes)`, or several such arrays.
        input_spec: Of the images.

    Returns:
        `network` itself, where parts would hold more than 32 images.
    """
    concrete = network.get_concrete_function(input_spec)
    part = images_per_part(concrete.graph)
    if part > _LARGEST_PART:
        return network
    outputs, nest = concrete.structured_outputs, tf.nest
    shapes = nest.map_structure(lambda output: output.shape, outputs)

    @tf.function(input_signature=[input_spec], autograph=False)
    def run(images):
        size = part_size(tf.shape(images)[0], part)
        count = tf.shape(images)[0] // size
        # Not a TensorArray: its lists are what the converters to LiteRT and others lack.
        results = nest.map_structure(
            lambda output: tf.zeros((size * count, *output.shape[1:]), output.dtype), outputs
        )

        def step(i, results):
            rows = i * size + tf.range(size)
            part = network(images[i * size : (i + 1) * size])
            return i + 1, nest.map_structure(
                lambda all, some: tf.tensor_scatter_nd_update(all, rows[:, tf.newaxis], some),
                results,
                part,
            )

        _, results = tf.while_loop(
            lambda i, _: i < count,
            step,
            (0, results),
            shape_invariants=(tf.TensorShape(()), shapes),
            parallel_iterations=_CHAINS,
        )
        return nest.map_structure(tf.ensure_shape, results, shapes)

    return run


def images_per_part(graph: tf.Graph) -> int:
    """Returns how many images' largest feature map fits into the cache.

    A power of two, since it divides the usual batch sizes; at least two.
    """
    shapes = [(t.dtype.size, t.shape) for op in graph.get_operations() for t in op.outputs]
    maps = [
        size * shape[1:].num_elements()
        for size, shape in shapes
        if shape.rank == 4 and shape[0] is None and None not in shape[1:]
    ]
    largest = max(maps, default=1)
    return 2 ** max(1, math.floor(math.log2(_CACHE_BYTES / largest)))


def part_size(batch: tf.Tensor, part: int) -> tf.Tensor:
    """Returns the largest divisor of `batch` from `part / 2` to `part`, else `batch`."""
    sizes = tf.range(part // 2, part + 1)
    divisors = tf.where(batch % sizes == 0, sizes, 0)
    # A batch smaller than all of them is divided by none.
    largest = tf.reduce_max(divisors)
    return tf.where(largest > 0, largest, tf.maximum(batch, 1))
