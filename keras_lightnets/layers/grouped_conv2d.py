"""Grouped convolution that trains and runs wherever TensorFlow runs."""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterator
from typing import Literal

import keras
import tensorflow as tf

Form = Literal["native", "split"]

_form: contextvars.ContextVar[Form] = contextvars.ContextVar("grouped_conv_form", default="native")


@contextlib.contextmanager
def grouped_conv_form(form: Form) -> Iterator[None]:
    """Chooses how `GroupedConv2D` layers are traced inside the `with` block.

    Both forms compute the same numbers from the same weights.

    * `"native"` (the default): one grouped convolution, the faster one.
    * `"split"`: a split, one convolution per group and a concatenation. Only for tools that
      refuse a grouped convolution, such as LiteRT's converter, which wants its batch size fixed.

    A function that was traced outside the block keeps its form: export, or build a new
    `tf.function`, inside it.

        with grouped_conv_form("split"):
            model.export(path, format="litert")
    """
    if form not in ("native", "split"):
        raise ValueError(f"`form` must be 'native' or 'split'. Received: form={form!r}")
    token = _form.set(form)
    try:
        yield
    finally:
        _form.reset(token)


@keras.saving.register_keras_serializable(package="keras_lightnets")
class GroupedConv2D(keras.layers.Conv2D):
    """`keras.layers.Conv2D(groups=...)` that is fast and portable on CPUs.

    A drop-in replacement: same arguments, config, weights (kernel
    `(height, width, in_channels / groups, filters)`) and numbers. Keras compiles every grouped
    convolution with XLA, which is several times slower on a CPU and puts an attribute into
    exported models that TensorFlow Serving refuses to run. This layer uses

    * forward: one grouped `Conv2D` operation;
    * backward: the gradients of a split, one convolution (a matrix product for 1x1 kernels) per
      group and a concatenation. TensorFlow has its own gradient of a grouped convolution only
      with oneDNN, and there only in float32 and bfloat16.

    So it trains and runs in float32, bfloat16 and float16, with and without oneDNN or XLA.
    `groups=1` and `data_format="channels_first"` take Keras' own path. See `grouped_conv_form`
    for tools that need the split form.
    """

    def convolution_op(self, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        if self.groups == 1 or self.data_format != "channels_last":
            return super().convolution_op(inputs, kernel)
        inputs = keras.ops.convert_to_tensor(inputs)
        kernel = tf.cast(keras.ops.convert_to_tensor(kernel), inputs.dtype)
        if _form.get() == "split":
            return self._split_convolution(inputs, kernel)
        return self._native_convolution(inputs, kernel)

    def _native_convolution(self, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        @tf.custom_gradient
        def convolve(x, w):
            def gradients(dy):
                # In a graph the recomputed forward pass has no user and is pruned.
                with tf.GradientTape() as tape:
                    tape.watch((x, w))
                    y = self._split_convolution(x, w)
                return tape.gradient(y, (x, w), dy)

            return _fusion_barrier(self._convolve(x, w)), gradients

        return convolve(inputs, kernel)

    def _split_convolution(self, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        kernels = tf.split(kernel, self.groups, axis=-1)
        if self.kernel_size != (1, 1) or self.strides != (1, 1):
            parts = tf.split(inputs, self.groups, axis=-1)
            outputs = [self._convolve(x, w) for x, w in zip(parts, kernels, strict=True)]
            return tf.concat(outputs, axis=-1)
        # A 1x1 convolution is a matrix product, whose gradients cost oneDNN less per call.
        pixels = tf.reshape(inputs, (-1, inputs.shape[-1]))
        parts = tf.split(pixels, self.groups, axis=-1)
        outputs = [x @ w[0, 0] for x, w in zip(parts, kernels, strict=True)]
        shape = tf.concat([tf.shape(inputs)[:-1], [self.filters]], axis=0)
        outputs = tf.reshape(tf.concat(outputs, axis=-1), shape)
        outputs.set_shape([*inputs.shape[:-1], self.filters])
        return outputs

    def _convolve(self, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        return tf.nn.convolution(
            inputs,
            kernel,
            strides=self.strides,
            padding=self.padding.upper(),
            dilations=self.dilation_rate,
        )


def _fusion_barrier(x: tf.Tensor) -> tf.Tensor:
    """Keeps Grappler from fusing what follows into the convolution.

    TensorFlow's own CPU kernels, which run where oneDNN is off, have grouped convolutions but not
    their fused forms: "Fused conv implementation does not support grouped convolutions". Grappler
    removes an `Identity` and then fuses; this operation it leaves alone. It does nothing.
    """
    return tf.compat.v1.placeholder_with_default(x, x.shape)
