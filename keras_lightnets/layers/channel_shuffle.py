"""The channel shuffle of ShuffleNet v1 and v2."""

from __future__ import annotations

from typing import Any

import keras

from keras_lightnets.layers.placement import tf


@keras.saving.register_keras_serializable(package="keras_lightnets")
class ChannelShuffle(keras.layers.Layer):
    """Mixes the channels of `groups` groups so that the next grouped layer sees all of them.

    The channels are read as a `(groups, channels / groups)` matrix, which is transposed and
    flattened: output channel `i * groups + j` is input channel `j * (channels / groups) + i`.
    This is the convention of the paper and of torchvision. The authors' own release and
    tensorpack split the other way round; their shuffle is `ChannelShuffle(channels / groups)`,
    which also undoes `ChannelShuffle(groups)`.

    Zhang et al., CVPR 2018, https://arxiv.org/abs/1707.01083, figure 1.

    Args:
        groups: Number of groups of the grouped convolution before the shuffle; it must divide
            the number of channels. 1 leaves the channels as they are.

    Input and output: `(batch, ..., channels)`, channels last, any dtype; every size but the
    number of channels may be unknown.
    """

    def __init__(self, groups: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not isinstance(groups, int) or groups < 1:
            raise ValueError(f"`groups` must be a positive integer. Received: groups={groups!r}")
        self.groups = groups
        self.supports_masking = True

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        channels = input_shape[-1]
        if channels is None:
            raise ValueError(
                "ChannelShuffle needs a known number of channels (the last axis). "
                f"Received: input_shape={tuple(input_shape)}"
            )
        if channels % self.groups:
            raise ValueError(
                f"`groups` must divide the number of channels. Received: groups={self.groups}, "
                f"input_shape={tuple(input_shape)}"
            )
        self.input_spec = keras.layers.InputSpec(min_ndim=2, axes={-1: channels})

    def call(self, inputs: Any) -> Any:
        return shuffle(inputs, self.groups)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "groups": self.groups}


def shuffle(inputs: Any, groups: int) -> Any:
    """See `ChannelShuffle`."""
    channels = inputs.shape[-1]
    if groups in (1, channels):
        return inputs
    # Only the last two axes move, so the rest is one long axis: a rank-3 transpose, whatever
    # the rank and the unknown sizes of the input.
    x = keras.ops.reshape(inputs, (-1, groups, channels // groups))
    x = keras.ops.reshape(keras.ops.transpose(x, (0, 2, 1)), shape_for_reshape(inputs))
    if None in inputs.shape:  # as TensorFlow alone has it
        # With several unknown sizes, only this keeps the number of channels in the static shape.
        x.set_shape(inputs.shape)
    return x


def shape_for_reshape(x: Any) -> Any:
    """The shape of `x`, without a run-time `Shape` op where at most one size is unknown.

    If all are known, the first is left open: a LiteRT file then takes other batches too.
    """
    sizes = list(x.shape)
    if sizes.count(None) > 1:
        return tf.shape(x)
    if None not in sizes:
        sizes[0] = None
    return [-1 if size is None else size for size in sizes]
