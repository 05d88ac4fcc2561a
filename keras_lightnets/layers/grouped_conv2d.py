"""Grouped convolution that trains and runs wherever TensorFlow runs."""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterator
from typing import Any, Literal

import keras

from keras_lightnets.layers import placement, recomputation, wide_channels
from keras_lightnets.layers.placement import tf

Form = Literal["native", "split"]

_form: contextvars.ContextVar[Form] = contextvars.ContextVar("grouped_conv_form", default="native")


@contextlib.contextmanager
def grouped_conv_form(form: Form) -> Iterator[None]:
    """Chooses how `GroupedConv2D` layers are traced inside the `with` block.

    Both forms compute the same numbers from the same weights.

    * `"native"` (the default): one grouped convolution, the faster one.
    * `"split"`: a split, one convolution per group and a concatenation. Only for tools that
      refuse a grouped convolution, such as LiteRT's converter where the batch size is unknown.

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
    """`keras.layers.Conv2D`, with groups or without, fast and portable on CPUs.

    A drop-in replacement: same arguments, config, weights (kernel
    `(height, width, in_channels / groups, filters)`) and numbers. Keras compiles every grouped
    convolution with XLA, which is several times slower on a CPU and puts an attribute into
    exported models that TensorFlow Serving refuses to run. This layer uses

    * forward: one grouped `Conv2D` operation;
    * backward, on GPUs: TensorFlow's gradients of that operation. On CPUs those of a split, one
      convolution (a matrix product for 1x1 kernels) per group and a concatenation: TensorFlow has
      its own there only with oneDNN, and only in float32 and bfloat16;
    * `groups=1` and a 1x1 kernel, in training on a CPU: a matrix product. It and its gradients cost
      less per call than oneDNN's convolutions: MobileNet v2 trains 1.1 times as fast.
      In inference a convolution, into which batch norm and activation can be fused.

    So it trains and runs in float32, bfloat16 and float16, with and without oneDNN or XLA.
    `data_format="channels_first"` and other backends take Keras' own path. See `grouped_conv_form`
    for tools that need the split form.

    Args:
        pad_filters: Set it where a `FusedBatchNormalization` follows. If its kernels are slow for
            this number of filters, the convolution computes up to an eighth more, of zeros, in
            training in a graph on a CPU (1x1 kernels without groups or strides only). The output
            is the same; the batch norm and the layers of this package behind it find the
            additional channels with it (see `wide_channels`).
        **options: Those of `keras.layers.Conv2D`.
    """

    def __init__(self, *args: Any, pad_filters: bool = False, **options: Any) -> None:
        super().__init__(*args, **options)
        self.pad_filters = pad_filters

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | ({"pad_filters": True} if self.pad_filters else {})

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        # With `autocast=False` the two may differ, and so they do for images of integers.
        inputs = keras.ops.cast(inputs, self.kernel.dtype)
        if not placement.TENSORFLOW:
            return super().call(inputs)
        # With groups the products' splits cost more than they save: ShuffleNet v1 at 224 pixels
        # takes 1.04 times the processor time.
        if self.groups == 1 and training and self._is_matrix_product():
            outputs = self._train_product(inputs, tf.convert_to_tensor(self.kernel))
            if self.use_bias:
                outputs = tf.nn.bias_add(outputs, tf.cast(self.bias, outputs.dtype))
        elif self.groups > 1 and self.data_format == "channels_last":
            outputs = self.convolution_op(inputs, self.kernel)
            if self.use_bias:
                # Not `tf.nn.bias_add`: see `_native`.
                outputs = outputs + tf.cast(self.bias, outputs.dtype)
        else:
            return super().call(inputs)
        return outputs if self.activation is None else self.activation(outputs)

    def convolution_op(self, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        ours = placement.TENSORFLOW and self.groups > 1 and self.data_format == "channels_last"
        if not ours:
            return super().convolution_op(inputs, kernel)
        kernel = tf.convert_to_tensor(kernel)
        if _form.get() == "split":
            return self._split(inputs, kernel)
        return self._native(inputs, kernel)

    def _is_matrix_product(self) -> bool:
        return (
            self.kernel_size == (1, 1)
            and self.strides == (1, 1)
            and self.data_format == "channels_last"
        )

    def _train_product(self, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        if recomputation.recomputes():
            return recomputation.convolve(inputs, kernel, self._split, self._gradients)
        inputs = wide_channels.widen(inputs)
        kernel = wide_channels.fill_up(kernel, inputs.shape.with_rank(4)[-1], axis=2)
        if self.pad_filters and wide_channels.pay(inputs):
            kernel = wide_channels.fill_up(kernel, wide_channels.suitable(self.filters))
        return wide_channels.narrow(self._split(inputs, kernel), self.filters)

    def _native(self, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        """One grouped operation.

        With oneDNN, Grappler makes one operation of a convolution, its bias and its activation:
        ShuffleNet v1, folded, runs 1.1 to 1.2 times as fast. Without oneDNN it does so too, but
        TensorFlow's own CPU kernel fails: "Fused conv implementation does not support grouped
        convolutions". A bias that is added by a plain addition is what tells the two apart:
        Grappler takes it for a bias only with oneDNN. Where no bias follows, what does is kept
        away by a barrier.
        """

        def forward(x, w):
            y = self._convolve(x, w)
            return y if self.use_bias else fusion_barrier(y)

        return recomputation.convolve(inputs, kernel, forward, self._gradients)

    def _gradients(self, x: tf.Tensor, w: tf.Tensor, dy: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        # On GPUs TensorFlow has gradients of the whole: with 8 groups, 2 operations in place of 33.
        form = self._convolve if placement.on_gpu() else self._split
        # In a graph the recomputed forward pass has no user and is pruned.
        with tf.GradientTape() as tape:
            tape.watch((x, w))
            y = form(x, w)
        gradients: Any = tape.gradient(y, (x, w), [dy])
        return gradients

    def _split(self, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        # On GPUs TensorFlow chooses the layout of convolutions, and transposes around products.
        if self._is_matrix_product() and not placement.on_gpu():
            return self._multiply(inputs, kernel)
        groups = zip(
            tf.split(inputs, self.groups, axis=-1),
            tf.split(kernel, self.groups, axis=-1),
            strict=True,
        )
        return tf.concat([self._convolve(x, w) for x, w in groups], axis=-1)

    def _multiply(self, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        """A 1x1 convolution as one matrix product per group."""
        pixels = tf.reshape(inputs, (-1, inputs.shape[-1]))
        matrix = tf.reshape(kernel, kernel.shape[2:])
        if self.groups == 1:
            outputs = pixels @ matrix
        else:
            groups = zip(
                tf.split(pixels, self.groups, axis=-1),
                tf.split(matrix, self.groups, axis=-1),
                strict=True,
            )
            outputs = tf.concat([x @ w for x, w in groups], axis=-1)
        filters = kernel.shape.with_rank(4)[-1]
        sizes = inputs.shape[:-1].as_list()
        if sizes.count(None) > 1:
            shape = tf.concat([tf.shape(inputs)[:-1], [filters]], axis=0)
        else:
            shape = [-1 if size is None else size for size in (*sizes, filters)]
        outputs = tf.reshape(outputs, shape)
        outputs.set_shape((*sizes, filters))
        return outputs

    def _convolve(self, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        return tf.nn.convolution(
            inputs,
            kernel,
            strides=self.strides,
            padding=self.padding.upper(),
            # TensorFlow's second derivative in eager mode fails without it.
            data_format="NHWC",
            dilations=self.dilation_rate,
        )


def fusion_barrier(x: tf.Tensor) -> tf.Tensor:
    """Keeps Grappler from fusing what follows into the convolution.

    Grappler removes an `Identity` and then fuses; this operation it leaves alone. It does nothing.
    """
    return tf.compat.v1.placeholder_with_default(x, x.shape)
