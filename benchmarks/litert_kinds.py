"""Which convolutions of MobileNet v2 does int8 make faster in LiteRT, and which slower?

    python benchmarks/litert_kinds.py [--threads 2]

Each convolution of the network for one image of 224 pixels, with bias and ReLU6, is a file of its
own, in float32 and in int8. A turn runs all those of one kind, each as often as the network does.
"""

from __future__ import annotations

import argparse
import collections
import os
import pathlib
from collections.abc import Callable
from typing import Any

import common


def kinds() -> dict[str, collections.Counter]:
    """Kind -> (depthwise, window, stride, pixels, channels, filters) -> number of layers."""
    import keras

    import keras_lightnets

    model = keras_lightnets.create_model("mobilenet_v2", input_shape=(224, 224, 3))
    found = collections.defaultdict(collections.Counter)
    for layer in model.layers:
        depthwise = isinstance(layer, keras.layers.DepthwiseConv2D)
        if not depthwise and not isinstance(layer, keras.layers.Conv2D):
            continue
        window, stride = layer.kernel_size[0], layer.strides[0]
        kind = "depthwise" if depthwise else "1x1" if window == 1 else "first"
        pixels = layer.output.shape[1] * stride
        shape = (depthwise, window, stride, pixels, layer.input.shape[-1], layer.output.shape[-1])
        found[kind][shape] += 1
    return found


def file(shape: tuple, int8: bool) -> bytes:
    """A convolution as a LiteRT file."""
    import numpy as np
    import tensorflow as tf

    from keras_lightnets.export import runtimes

    depthwise, window, stride, pixels, channels, filters = shape
    rng = np.random.default_rng(0)
    size = (window, window, channels, 1 if depthwise else filters)
    kernel, bias = (rng.normal(size=each).astype("float32") for each in (size, filters))
    convolution = tf.nn.depthwise_conv2d if depthwise else tf.nn.conv2d

    @tf.function(input_signature=[tf.TensorSpec((1, pixels, pixels, channels))])
    def convolve(x: Any) -> Any:
        return tf.nn.relu6(convolution(x, kernel, (1, stride, stride, 1), "SAME") + bias)

    concrete = [convolve.get_concrete_function()]
    converter = tf.lite.TFLiteConverter.from_concrete_functions(concrete, tf.Module())
    if int8:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        image = rng.uniform(0, 6, (1, pixels, pixels, channels)).astype("float32")
        converter.representative_dataset = lambda: [[image]]
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.int8
    with runtimes.without_notices():
        return converter.convert()


def all_of(shapes: collections.Counter, int8: bool, threads: int) -> Callable[[], None]:
    """A function that runs the convolutions of one kind, ten times."""
    from keras_lightnets.export import runtimes

    runs = [
        (runtimes.litert_interpreter(file(shape, int8), threads), count)
        for shape, count in shapes.items()
    ]

    def run() -> None:
        for interpreter, count in runs:
            for _ in range(10 * count):
                interpreter.invoke()

    return run


def measure(seconds: float, threads: int) -> list[common.Row]:
    """One row for each kind."""
    rows = []
    for kind, shapes in kinds().items():
        sides = {name: all_of(shapes, name == "int8", threads) for name in ("int8", "float32")}
        times = common.interleave(sides, seconds=seconds, warm_up=3)
        case = f"LiteRT, {kind} convolutions of mobilenet_v2-224-b1, {threads} threads"
        rows.append(common.compare(times, "int8", "float32", case=case, scale=100))
    return rows


def main(arguments: list[str] | None = None) -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--seconds", type=float, default=20.0, help="per kind")
    parser.add_argument("--out", type=pathlib.Path, default=common.RESULTS)
    args = parser.parse_args(arguments)
    common.save("litert_kinds", measure(args.seconds, args.threads), args.out)


if __name__ == "__main__":
    main()
