"""MobileNet v2: inverted residuals with linear bottlenecks.

Sandler et al., CVPR 2018, https://arxiv.org/abs/1801.04381; tables below are the paper's.
Widths are rounded to multiples of 8 as in the authors' code and torchvision. The classifier
is a fully connected layer, the same function as the paper's 1x1 convolution. At width 1.4
the network has 6.1 million parameters in every public implementation; the paper's 6.9 is
not reproducible.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Unpack

import keras

from keras_lightnets.catalogue.mobilenet_v2 import FAMILY
from keras_lightnets.networks.blocks import Norm, conv_bn, depthwise_bn, make_divisible
from keras_lightnets.networks.network import Network
from keras_lightnets.networks.options import NetworkOptions, check_alpha, shared_options

STEM_FILTERS = 32
HEAD_FILTERS = 1280
# Expansion, channels, repeats, stride of the first unit (Table 2).
STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


def MobileNetV2(
    input_shape: Sequence[int | None] = (224, 224, 3),
    *,
    alpha: float = 1.0,
    channel_divisor: int = 8,
    expand_first: bool = False,
    padding: Literal["symmetric", "same"] | None = None,
    **options: Unpack[NetworkOptions],
) -> keras.Model:
    """Builds MobileNet v2.

    Args:
        input_shape: `(height, width, channels)`; height and width may be None.
        alpha: Width multiplier. The last layer keeps its 1280 channels below 1.
        channel_divisor: Channels are rounded to multiples of it; 1 truncates them.
        expand_first: Keep the 1x1 convolution of the first unit, whose expansion is 1
            (osmr's `mobilenetv2`; everybody else leaves it out).
        padding: Where a stride meets an image: `"symmetric"`, a pixel on every side, or
            `"same"`, TensorFlow's rule, as in `keras.applications`: at an even size only at
            the bottom and the right. Default: that of the weights, or `"symmetric"`.
        **options: Arguments that all networks share, such as `classes` and `weights`: see
            `NetworkOptions`. `dropout_rate` is 0.2.

    Returns:
        A `keras.Model`.

    Raises:
        ValueError: If an argument is out of range.
    """
    shared = shared_options(options, dropout_rate=0.2)
    check_alpha(alpha)
    if isinstance(channel_divisor, bool) or not (
        isinstance(channel_divisor, int) and channel_divisor > 0
    ):
        raise ValueError(
            f"`channel_divisor` must be a positive integer. Received: {channel_divisor!r}"
        )
    variant = {"alpha": alpha, "channel_divisor": channel_divisor, "expand_first": expand_first}
    net = Network(FAMILY, variant, input_shape, shared, padding)
    norm = net.norm

    x = conv_bn(
        net.x,
        make_divisible(STEM_FILTERS * alpha, channel_divisor),
        3,
        strides=1 if shared.small_input else net.strides.next(2)[0],
        activation="relu6",
        padding=net.padding,
        norm=norm,
        name="stem",
    )
    for stage, (expansion, channels, repeats, first) in enumerate(STAGES, 1):
        if first == 2 and stage > 2:
            net.tap(x)
        for unit in range(1, repeats + 1):
            nominal = first if unit == 1 else 1
            strides, dilation = net.strides.next(nominal)
            filters = make_divisible(channels * alpha, channel_divisor)
            x = _inverted_residual(
                x,
                filters,
                expansion=expansion,
                expand=expansion > 1 or expand_first,
                residual=nominal == 1 and x.shape[-1] == filters,
                strides=strides,
                dilation=dilation,
                padding=net.padding,
                norm=norm,
                name=f"stage{stage}_unit{unit}",
            )
    net.tap(x)
    if not shared.features_only:
        filters = make_divisible(HEAD_FILTERS * max(1.0, alpha), channel_divisor)
        x = conv_bn(x, filters, activation="relu6", norm=norm, name="head")
    return net.finish(x)


def _inverted_residual(
    x: keras.KerasTensor,
    filters: int,
    *,
    expansion: int,
    expand: bool,
    residual: bool,
    strides: int,
    dilation: int,
    padding: str,
    norm: Norm,
    name: str,
) -> keras.KerasTensor:
    """Table 1 and Figure 4d. No activation behind the projection: the bottleneck is linear."""
    shortcut = x
    if expand:
        x = conv_bn(
            x, expansion * x.shape[-1], activation="relu6", norm=norm, name=f"{name}_expand"
        )
    x = depthwise_bn(
        x,
        strides=strides,
        dilation=dilation,
        activation="relu6",
        padding=padding,
        norm=norm,
        name=f"{name}_depthwise",
    )
    x = conv_bn(x, filters, activation=None, norm=norm, name=f"{name}_project")
    if residual:
        x = keras.layers.Add(name=f"{name}_add")([shortcut, x])
    return x
