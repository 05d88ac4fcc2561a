"""How much faster is a SavedModel in int8 than one in bfloat16, in a Session as a server has it?

    python benchmarks/serving_int8.py [--net mobilenet_v2] [--batch 1 16]

All are exports of one network that takes float32 pixels. Then kinds of convolution by themselves,
in batches: the quantized operation against bfloat16 and float32 at shapes of MobileNet v2, with
bias and ReLU6. Needs a processor with VNNI or AMX.
"""

from __future__ import annotations

import pathlib
import tempfile
from collections.abc import Callable
from typing import Any

import common

# Of a request in int8 against one in bfloat16, at 16 images.
TARGETS = {("mobilenet_v2", 16): 1.5}
# Depthwise or not, window, stride, pixels, channels, filters.
SHAPES = (
    (False, 3, 2, 224, 3, 32),
    (False, 1, 1, 112, 16, 96),
    (True, 3, 2, 112, 96, 96),
    (True, 3, 1, 56, 144, 144),
    (True, 3, 1, 14, 384, 384),
    (False, 1, 1, 14, 576, 96),
    (False, 1, 1, 7, 320, 1280),
)


def measure(net: str, batch: int, seconds: float) -> list[common.Row]:
    """Times requests to the exports of one network, and for MobileNet v2 single operations."""
    import keras
    import models
    import numpy as np
    import serving

    import keras_lightnets
    from keras_lightnets.export import int8_network, parity
    from keras_lightnets.inference.function import inference_model

    keras.backend.clear_session()
    model = keras_lightnets.create_model(net, input_shape=(224, 224, 3), include_preprocessing=True)
    models.randomize(model)
    images = parity.HeldOut.synthetic((224, 224), 64).images
    exports = {kind: inference_model(model, kind) for kind in serving.PRECISIONS}
    exports["int8"] = int8_network.int8_model(model, images)
    with tempfile.TemporaryDirectory() as temporary:
        sides = {}
        for kind, served in exports.items():
            path = serving.write_served(model, served, pathlib.Path(temporary) / kind)
            asked = serving.Served(path, batch)
            asked.images = images[:batch].astype(np.float32)
            sides[kind] = asked.requests()
        times = common.interleave(sides, seconds=seconds, warm_up=3)
    case = f"SavedModel in a Session, {net}-224-b{batch} int8"
    target = TARGETS.get((net, batch))
    rows = [common.compare(times, "int8", "bfloat16", case=case, target=target)]
    rows.append(common.compare(times, "int8", "float32", case=case))
    if net == "mobilenet_v2" and batch > 1:
        for shape in SHAPES:
            rows += measure_operation(batch, seconds / 6, *shape)
    return rows


def measure_operation(
    batch: int,
    seconds: float,
    depthwise: bool,
    window: int,
    stride: int,
    pixels: int,
    channels: int,
    filters: int,
) -> list[common.Row]:
    """Times one convolution in three types."""
    import numpy as np
    import tensorflow as tf

    from keras_lightnets.export import int8_convolution

    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(window, window, channels, 1 if depthwise else filters))
    bias = rng.normal(size=filters)
    levels = rng.integers(0, 256, (batch, pixels, pixels, channels)).astype("uint8")
    limits = (0.0, 6.0)

    def convolve(x: Any, dtype: Any) -> Any:
        convolution = tf.nn.depthwise_conv2d if depthwise else tf.nn.conv2d
        strides = (1, stride, stride, 1)
        x = convolution(x, tf.constant(kernel, dtype), strides, "SAME")
        return tf.nn.relu6(tf.nn.bias_add(x, tf.constant(bias, dtype)))

    def convolve_int8(x: Any) -> Any:
        x = int8_convolution.Levels(tf.bitcast(x, tf.quint8), np.float64(6 / 255), np.float64(0))
        options = {"depthwise": depthwise, "stride": stride, "padding": "same"}
        return int8_convolution.convolution(x, kernel, bias, limits=limits, **options).levels

    floats = levels * np.float32(6 / 255)
    sides = {
        "int8": _operation(convolve_int8, levels),
        "bfloat16": _operation(
            lambda x: convolve(x, tf.bfloat16), floats.astype(tf.bfloat16.as_numpy_dtype)
        ),
        "float32": _operation(lambda x: convolve(x, tf.float32), floats),
    }
    times = common.interleave(sides, seconds=seconds, warm_up=3)
    kind = "depthwise" if depthwise else "convolution"
    case = f"{kind} {window}x{window}, {pixels} pixels, {channels} to {filters} channels, b{batch}"
    case += f", stride {stride}" if stride > 1 else ""
    return [common.compare(times, "int8", peer, case=case) for peer in ("bfloat16", "float32")]


def _operation(make: Callable[[Any], Any], values: Any) -> Callable[[], None]:
    """A function that runs one operation on values that lie in TensorFlow's memory."""
    import tensorflow as tf

    with tf.Graph().as_default():
        session = tf.compat.v1.Session()
        held = tf.compat.v1.placeholder(values.dtype, values.shape)
        variable = tf.compat.v1.get_variable("held", initializer=held, use_resource=True)
        session.run(variable.initializer, {held: values})
        run = session.make_callable(make(variable.read_value()).op)

    def three() -> None:
        for _ in range(3):
            run()

    return three


def main(arguments: list[str] | None = None) -> None:
    """Runs the benchmark."""
    nets = ("mobilenet_v1", "mobilenet_v2")
    common.network_main("serving_int8", __doc__, measure, nets, arguments)


if __name__ == "__main__":
    main()
