"""ShuffleNet v1: grouped 1x1 convolutions, with a channel shuffle in between.

Zhang et al., CVPR 2018, https://arxiv.org/abs/1707.01083; tables and figures below are the
paper's. Two things the paper leaves open follow osmr's implementation, whose weights are
the only public ones for all groups: units with stride 2 concatenate the main branch first,
then the pooled input; and the shuffle is the paper's reshape to (groups, channels /
groups), of which the authors' own code applies the inverse.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Unpack

import keras

from keras_lightnets.catalogue.shufflenet_v1 import FAMILY
from keras_lightnets.layers.channel_shuffle import ChannelShuffle
from keras_lightnets.networks.blocks import (
    activate,
    average_pool,
    conv_bn,
    depthwise_bn,
    max_pool,
    squeeze_excite,
)
from keras_lightnets.networks.network import Network
from keras_lightnets.networks.options import NetworkOptions, check_choice, shared_options

# Groups -> channels of stages 2, 3, 4 at width 1 (Table 1).
CHANNELS = {
    1: (144, 288, 576),
    2: (200, 400, 800),
    3: (240, 480, 960),
    4: (272, 544, 1088),
    8: (384, 768, 1536),
}
ALPHAS = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0)
REPEATS = (4, 8, 4)  # units in stages 2, 3, 4; the first has stride 2 (Table 1)
STEM_FILTERS = 24
SE_REDUCTION = 16  # gives the 527 million operations of Table 5 for 2x with SE


def channels(groups: int, alpha: float, stem_filters: int | None = None) -> tuple[int, ...]:
    """Channels of the stem and of stages 2, 3, 4.

    Stages are rounded up to multiples of `4 * groups`, since a quarter of them is divided
    into groups; the stem to a multiple of `groups`, since the first unit adds the
    difference by a grouped convolution. At width 1.5 the stem keeps its 24 channels: so
    does the authors' release, and only then the operations are the paper's 292 million.
    """
    if stem_filters is None:
        scale = 1.0 if alpha == 1.5 else alpha
        stem_filters = _round_up(STEM_FILTERS * scale, groups)
    return (stem_filters, *(_round_up(c * alpha, 4 * groups) for c in CHANNELS[groups]))


def ShuffleNetV1(
    input_shape: Sequence[int | None] = (224, 224, 3),
    *,
    groups: int = 3,
    alpha: float = 1.0,
    stem_filters: int | None = None,
    se: bool = False,
    **options: Unpack[NetworkOptions],
) -> keras.Model:
    """Builds ShuffleNet v1.

    `output_stride` may be 32 or 16: below, the average pooling of the last stage would
    have to be dilated.

    Args:
        input_shape: `(height, width, channels)`; height and width may be None.
        groups: Groups of the 1x1 convolutions: 1, 2, 3, 4 or 8.
        alpha: Width multiplier, the paper's scale factor: 0.25, 0.5, 0.75, 1, 1.5 or 2.
        stem_filters: Channels of the first convolution; None for 24 times `alpha`, rounded
            up to a multiple of `groups` (24 at width 1.5).
        se: Squeeze-and-excitation with reduction 16 at the end of each main branch (Table 5
            has the accuracy, but the paper not the layout).
        **options: Arguments that all networks share, such as `classes` and `weights`: see
            `NetworkOptions`.

    Returns:
        A `keras.Model`.

    Raises:
        ValueError: If an argument is not among its choices.
    """
    shared = shared_options(options)
    check_choice("groups", groups, tuple(CHANNELS))
    check_choice("alpha", alpha, ALPHAS)
    check_choice(
        "output_stride",
        shared.output_stride,
        (16, 32),
        why="at 8, ShuffleNetV1 would have to dilate the average pooling of its last stage",
    )
    stem, *stages = channels(groups, alpha, stem_filters)
    if stem < 1 or (stages[0] - stem) % groups:
        raise ValueError(
            f"`stem_filters` must be a positive multiple of groups={groups}. "
            f"Received: {stem_filters!r}"
        )
    variant = {
        "groups": groups,
        "alpha": alpha,
        "stem_filters": None if stem == channels(groups, alpha)[0] else stem,
        "se": se,
    }
    net = Network(FAMILY, variant, input_shape, shared)

    x = conv_bn(
        net.x,
        stem,
        3,
        strides=1 if shared.small_input else net.strides.next(2)[0],
        norm=net.norm,
        name="stem",
    )
    if not shared.small_input:
        x = max_pool(x, strides=net.strides.next(2)[0], name="stem_pool")
    net.tap(x)
    for stage, (filters, repeats) in enumerate(zip(stages, REPEATS, strict=True), 2):
        for unit in range(1, repeats + 1):
            x = _unit(
                net,
                x,
                filters,
                groups=groups,
                # The stem has too few channels to be divided (section 3.2).
                entry_groups=1 if (stage, unit) == (2, 1) else groups,
                downsample=unit == 1,
                se=se,
                name=f"stage{stage}_unit{unit}",
            )
        net.tap(x)
    return net.finish(x)


def _unit(
    net: Network,
    x: keras.KerasTensor,
    filters: int,
    *,
    groups: int,
    entry_groups: int,
    downsample: bool,
    se: bool,
    name: str,
) -> keras.KerasTensor:
    """Figure 2b (stride 1: add the input) or 2c (stride 2: concatenate the pooled input)."""
    shortcut = x
    strides, dilation = net.strides.next(2 if downsample else 1)
    out = filters - x.shape[-1] if downsample else filters
    x = conv_bn(x, filters // 4, groups=entry_groups, norm=net.norm, name=f"{name}_reduce")
    if groups > 1:
        x = ChannelShuffle(groups, name=f"{name}_shuffle")(x)
    x = depthwise_bn(x, strides=strides, dilation=dilation, norm=net.norm, name=f"{name}_depthwise")
    x = conv_bn(x, out, groups=groups, activation=None, norm=net.norm, name=f"{name}_expand")
    if se:
        x = squeeze_excite(x, max(1, out // SE_REDUCTION), f"{name}_se")
    if downsample:
        shortcut = average_pool(shortcut, strides=strides, name=f"{name}_shortcut")
        x = keras.layers.Concatenate(name=f"{name}_concat")([x, shortcut])
    else:
        x = keras.layers.Add(name=f"{name}_add")([shortcut, x])
    return activate(x, "relu", name)


def _round_up(value: float, multiple: int) -> int:
    return math.ceil(value / multiple) * multiple
