"""Feature maps with a few more channels, a number that suits the processor's vector instructions.

In training on a CPU, `GroupedConv2D(pad_filters=True)` computes a few filters of zeros besides its
own, which costs next to nothing. Its output is still the narrow map, but carries the wide one, as
Keras' tensors carry masks. The layers behind that know of it (`FusedBatchNormalization`,
`Activation`, `DepthwiseConv2D`, `GroupedConv2D`) compute with the wide map and hand theirs on in
the same way; the narrow maps then have no user, and TensorFlow prunes them. Gradients go through
the narrow maps, whose gradients carry their wide form back.
"""

from __future__ import annotations

import math
from typing import Any

from keras_lightnets.layers import placement
from keras_lightnets.layers.placement import tf

_WIDE = "_lightnets_wide"  # attribute of a narrow map

# oneDNN's batch norm takes 16 channels at a time, or 8 or 4, whichever divides their number; else
# it falls back to a plain loop. (16, 28, 28, 58) float32 on two cores, ms forward and backward:
# 58 channels 1.7 and 2.6, 64 channels 0.6 and 0.4; (16, 14, 14, 116): 0.5 and 0.9, 128: 0.5, 0.3.
_FAST, _BEST = 8, 16
_MOST_ADDED = 1 / 8  # of the channels


def suitable(channels: int) -> int:
    """The number of channels to compute instead of `channels`: at most an eighth more."""
    if channels % _FAST == 0:
        return channels
    wide = math.ceil(channels / _BEST) * _BEST
    return wide if wide - channels <= _MOST_ADDED * channels else channels


def pay(x: tf.Tensor) -> bool:
    """Whether more channels than needed pay where `x` is: on CPUs, in a graph, which is pruned."""
    return tf.is_symbolic_tensor(x) and not placement.on_gpu()


def narrow(wide: tf.Tensor, channels: int) -> tf.Tensor:
    """The first `channels` channels, in a graph; `widen` gives all of them back."""
    width = wide.shape.with_rank_at_least(1)[-1]
    if width == channels:
        return wide

    @tf.custom_gradient
    def cut(wide) -> Any:
        y = tf.slice(wide, [0] * len(wide.shape), [-1] * (len(wide.shape) - 1) + [channels])
        return y, lambda dy: fill_up(widen(dy), width)

    y = cut(wide)
    setattr(y, _WIDE, wide)
    return y


def widen(x: tf.Tensor) -> tf.Tensor:
    """The wide map that `x` carries, else `x`. The gradient is that of `x`."""
    wide = getattr(x, _WIDE, None)
    if wide is None:
        return x

    @tf.custom_gradient
    def exchange(x, wide) -> Any:
        return tf.identity(wide), lambda dy: (narrow(dy, x.shape[-1]), None)

    return exchange(x, wide)


def fill_up(x: tf.Tensor, size: int, axis: int = -1) -> tf.Tensor:
    """`x` with zeros behind its values along one axis, which then has the given size."""
    if x.shape[axis] == size:
        return x
    paddings = [[0, 0] for _ in x.shape]
    paddings[axis][1] = size - x.shape.with_rank_at_least(1)[axis]
    return tf.pad(x, paddings)
