"""MobileNet v1: depthwise separable convolutions.

Howard et al., 2017, https://arxiv.org/abs/1704.04861; tables below are the paper's.
The stride of the last depthwise convolution, printed as 2 in Table 1, is 1: the table's
own sizes, 7x7 in and out, say so.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Unpack

import keras

from keras_lightnets.catalogue.mobilenet_v1 import FAMILY
from keras_lightnets.networks.blocks import conv_bn, depthwise_bn
from keras_lightnets.networks.network import Network
from keras_lightnets.networks.options import (
    NetworkOptions,
    check_alpha,
    check_choice,
    shared_options,
)
from keras_lightnets.weights.load import is_of_keras_applications

STEM_FILTERS = 32
# Filters and stride of the 13 separable convolutions (Table 1).
BLOCKS = (
    (64, 1),
    (128, 2),
    (128, 1),
    (256, 2),
    (256, 1),
    (512, 2),
    *((512, 1),) * 5,
    (1024, 2),
    (1024, 1),
)
SHALLOW_BLOCKS = BLOCKS[:6] + BLOCKS[11:]  # without the five of 512 filters (Table 5)
ACTIVATIONS = ("relu", "relu6")


def MobileNetV1(
    input_shape: Sequence[int | None] = (224, 224, 3),
    *,
    alpha: float = 1.0,
    activation: Literal["relu", "relu6"] | None = None,
    shallow: bool = False,
    depthwise_norm: bool = True,
    head_conv: bool = False,
    padding: Literal["symmetric", "same"] | None = None,
    **options: Unpack[NetworkOptions],
) -> keras.Model:
    """Builds MobileNet v1.

    Args:
        input_shape: `(height, width, channels)`; height and width may be None.
        alpha: Width multiplier; channels are truncated to integers, at least 8.
        activation: `"relu"` (paper) or `"relu6"` (the authors' code, timm). Default: relu, but
            relu6 with the files of `keras.applications`.
        shallow: Leave out the five convolutions of 512 filters (Table 5).
        depthwise_norm: False leaves out batch normalization and activation between a
            depthwise and its pointwise convolution (osmr's `mobilenetb`).
        head_conv: One more 1x1 convolution at the end (timm's `mobilenetv1_100h`).
        padding: Where a stride meets an image: `"symmetric"`, a pixel on every side, or
            `"same"`, as in `keras.applications`: at the bottom and the right. (There as here
            the depthwise convolutions keep to that at odd sizes too, where TensorFlow's rule
            pads every side.) Default: that of the weights, or `"symmetric"`.
        **options: Arguments that all networks share, such as `classes` and `weights`: see
            `NetworkOptions`.

    Returns:
        A `keras.Model`.

    Raises:
        ValueError: If an argument is not among its choices.
    """
    shared = shared_options(options)
    check_alpha(alpha)
    if activation is None:
        activation = "relu6" if is_of_keras_applications(shared.weights) else "relu"
    check_choice("activation", activation, ACTIVATIONS)
    variant = {
        "alpha": alpha,
        "activation": None if activation == "relu" else activation,
        "shallow": shallow,
        "depthwise_norm": depthwise_norm,
        "head_conv": head_conv,
    }
    net = Network(FAMILY, variant, input_shape, shared, padding)
    norm = net.norm

    strides = 1 if shared.small_input else net.strides.next(2)[0]
    x = conv_bn(
        net.x,
        _scale(STEM_FILTERS, alpha),
        3,
        strides=strides,
        activation=activation,
        padding=net.padding,
        norm=norm,
        name="stem",
    )
    for number, (filters, nominal) in enumerate(SHALLOW_BLOCKS if shallow else BLOCKS, 1):
        if nominal == 2 and number > 2:
            net.tap(x)
        strides, dilation = net.strides.next(nominal)
        x = depthwise_bn(
            x,
            strides=strides,
            dilation=dilation,
            activation=activation,
            padding="end" if net.padding == "same" else net.padding,
            norm=norm if depthwise_norm else None,
            name=f"block{number}_depthwise",
        )
        x = conv_bn(
            x,
            _scale(filters, alpha),
            activation=activation,
            norm=norm,
            name=f"block{number}_pointwise",
        )
    net.tap(x)
    if head_conv and not shared.features_only:
        x = conv_bn(x, _scale(1024, alpha), activation=activation, norm=norm, name="head")
    return net.finish(x)


def _scale(filters: int, alpha: float) -> int:
    return max(8, int(filters * alpha))
