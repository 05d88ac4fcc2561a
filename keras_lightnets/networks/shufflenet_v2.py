"""ShuffleNet v2: no grouped convolutions; half of the channels pass each unit untouched.

Ma et al., ECCV 2018, https://arxiv.org/abs/1807.11164; tables and figures below are the
paper's. The unit with stride 2 exists in two forms, see `downsample`; torchvision's is the
default because most public weights have it, the other one matches the paper's operations.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, Unpack

import keras

from keras_lightnets.catalogue.shufflenet_v2 import FAMILY
from keras_lightnets.layers.channel_shuffle import ChannelShuffle
from keras_lightnets.layers.channel_split import ConcatShuffleSplit
from keras_lightnets.networks.blocks import (
    activate,
    ceil_max_pool,
    conv_bn,
    depthwise_bn,
    max_pool,
    squeeze_excite,
)
from keras_lightnets.networks.network import Network
from keras_lightnets.networks.options import NetworkOptions, check_choice, shared_options


class Plan(NamedTuple):
    """One column of the paper's tables."""

    stem: tuple[int, ...]  # filters of the 3x3 convolutions; the first has stride 2
    stages: tuple[int, ...]  # channels, from stage 2 on
    repeats: tuple[int, ...]  # units of each stage
    strides: tuple[int, ...]  # of each stage's first unit
    head: int  # filters of the last 1x1 convolution


# Width -> channels of stages 2 to 4 and of conv5 (Table 5).
WIDTHS = {
    0.5: ((48, 96, 192), 1024),
    1.0: ((116, 232, 464), 1024),
    1.5: ((176, 352, 704), 1024),
    2.0: ((244, 488, 976), 2048),
}
# Depth -> the large networks (Table 6 of the appendix).
DEEP = {
    50: Plan((64,), (244, 488, 976, 1952), (3, 4, 6, 3), (1, 2, 2, 2), 2048),
    164: Plan((64, 64, 128), (340, 680, 1360, 2720), (10, 10, 23, 10), (1, 2, 2, 2), 2048),
}
DOWNSAMPLES = ("half", "keep")
STEM_POOLS = ("symmetric", "ceil")


def ShuffleNetV2(
    input_shape: Sequence[int | None] = (224, 224, 3),
    *,
    alpha: float = 1.0,
    depth: int | None = None,
    downsample: Literal["half", "keep"] = "half",
    se: bool = False,
    se_reduction: int = 1,
    residual: bool = False,
    head_filters: int | None = None,
    stem_pool: Literal["symmetric", "ceil"] = "symmetric",
    **options: Unpack[NetworkOptions],
) -> keras.Model:
    """Builds ShuffleNet v2.

    Args:
        input_shape: `(height, width, channels)`; height and width may be None.
        alpha: Width: 0.5, 1, 1.5 or 2 (Table 5).
        depth: None, or 50 or 164 for the large networks of the appendix (there, `alpha` has
            no effect; 164 was published with `se=True, residual=True`).
        downsample: In units with stride 2, `"half"`: each branch ends in half of the
            channels (torchvision); `"keep"`: the shortcut keeps its channels and the main
            branch ends in the rest (the authors' code, the paper's operations).
        se: Squeeze-and-excitation at the end of each main branch (appendix, Figure b).
        se_reduction: Channels per hidden unit of the squeeze-and-excitation.
        residual: Add the main branch's input to its output in units with stride 1
            (appendix, Figures a and c).
        head_filters: Filters of the last 1x1 convolution; None for the paper's 1024 or 2048.
        stem_pool: `"symmetric"` padding, or `"ceil"`: none, but a last window that may
            stick out (osmr's `shufflenetv2`, not its `shufflenetv2b`).
        **options: Arguments that all networks share, such as `classes` and `weights`: see
            `NetworkOptions`.

    Returns:
        A `keras.Model`.

    Raises:
        ValueError: If an argument is not among its choices.
    """
    shared = shared_options(options)
    check_choice("alpha", alpha, tuple(WIDTHS))
    check_choice("depth", depth, (None, *DEEP))
    check_choice("downsample", downsample, DOWNSAMPLES)
    check_choice("stem_pool", stem_pool, STEM_POOLS)
    for argument, value in (("se_reduction", se_reduction), ("head_filters", head_filters)):
        if value is not None and (not isinstance(value, int) or value < 1):
            raise ValueError(f"`{argument}` must be a positive integer. Received: {value!r}")
    plan = _plan(alpha, depth)
    variant = {
        "alpha": alpha,
        "depth": depth,
        "downsample": downsample,
        "se": se,
        "se_reduction": se_reduction,
        "residual": residual,
        "head_filters": None if head_filters == plan.head else head_filters,
        "stem_pool": stem_pool,
    }
    net = Network(FAMILY, variant, input_shape, shared)
    se_per_channel = 1 / se_reduction if se else 0.0

    x = _stem(net, plan.stem, ceil_max_pool if stem_pool == "ceil" else max_pool)
    for stage, (filters, repeats, first) in enumerate(
        zip(plan.stages, plan.repeats, plan.strides, strict=True), 2
    ):
        if first == 2:
            net.tap(x)
        name = f"stage{stage}_unit"
        shortcut_filters = filters // 2 if downsample == "half" else x.shape[-1]
        branches = _down_unit(
            net, x, filters, shortcut_filters, first, se_per_channel, residual, f"{name}1"
        )
        for unit in range(2, repeats + 1):
            branches = _unit(net, branches, se_per_channel, residual, f"{name}{unit}")
        x = keras.layers.Concatenate(name=f"stage{stage}_concat")(branches)
        x = ChannelShuffle(2, name=f"stage{stage}_shuffle")(x)
    net.tap(x)
    if not shared.features_only:
        x = conv_bn(x, head_filters or plan.head, norm=net.norm, name="head")
    return net.finish(x)


def _plan(alpha: float, depth: int | None) -> Plan:
    if depth is not None:
        return DEEP[depth]
    stages, head = WIDTHS[alpha]
    return Plan((24,), stages, (4, 8, 4), (2, 2, 2), head)


def _stem(net: Network, stem: Sequence[int], pool: Callable) -> keras.KerasTensor:
    small = net.options.small_input
    x = net.x
    for number, filters in enumerate(stem, 1):
        strides = 1 if small or number > 1 else net.strides.next(2)[0]
        name = "stem" if len(stem) == 1 else f"stem{number}"
        x = conv_bn(x, filters, 3, strides=strides, norm=net.norm, name=name)
    if not small:
        x = pool(x, strides=net.strides.next(2)[0], name="stem_pool")
    return x


def _down_unit(
    net: Network,
    x: keras.KerasTensor,
    filters: int,
    shortcut_filters: int,
    nominal: int,
    se: float,
    residual: bool,
    name: str,
) -> list[keras.KerasTensor]:
    """Figure 3d: two branches, both with the unit's stride, still to be joined."""
    strides, dilation = net.strides.next(nominal)
    shortcut = depthwise_bn(
        x, strides=strides, dilation=dilation, norm=net.norm, name=f"{name}_shortcut_depthwise"
    )
    shortcut = conv_bn(shortcut, shortcut_filters, norm=net.norm, name=f"{name}_shortcut_pointwise")
    x = conv_bn(x, filters // 2, norm=net.norm, name=f"{name}_pointwise1")
    x = depthwise_bn(x, strides=strides, dilation=dilation, norm=net.norm, name=f"{name}_depthwise")
    x = _end(net, x, filters - shortcut_filters, se, residual, None, name)
    return [shortcut, x]


def _unit(
    net: Network, branches: list[keras.KerasTensor], se: float, residual: bool, name: str
) -> list[keras.KerasTensor]:
    """Figure 3c from the end of the unit before: one half of the channels passes."""
    _, dilation = net.strides.next(1)
    passed, x = ConcatShuffleSplit(name=f"{name}_split")(branches)
    entry, half = x, x.shape[-1]
    x = conv_bn(x, half, norm=net.norm, name=f"{name}_pointwise1")
    x = depthwise_bn(x, dilation=dilation, norm=net.norm, name=f"{name}_depthwise")
    x = _end(net, x, half, se, residual, entry, name)
    return [passed, x]


def _end(
    net: Network,
    x: keras.KerasTensor,
    filters: int,
    se: float,
    residual: bool,
    entry: keras.KerasTensor | None,
    name: str,
) -> keras.KerasTensor:
    """Last 1x1 convolution of a main branch, with what the appendix adds behind it."""
    adds = residual and entry is not None
    x = conv_bn(
        x,
        filters,
        activation=None if adds else "relu",
        norm=net.norm,
        name=f"{name}_pointwise2",
    )
    if se:
        x = squeeze_excite(x, max(1, int(filters * se)), f"{name}_se")
    if adds:
        x = keras.layers.Add(name=f"{name}_add")([x, entry])
        x = activate(x, "relu", name)
    return x
