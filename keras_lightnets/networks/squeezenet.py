"""SqueezeNet: Fire modules, no fully connected layer.

Iandola et al., 2016, https://arxiv.org/abs/1602.07360; tables, figures and sections below
are the paper's. Version 1.1 is the authors' later release (2.4 times fewer operations).
Max-pooling rounds up (Caffe's "ceil mode"), as in the authors' and torchvision's networks.
Differs from the authors' Caffe file of version 1.0 in `conv10`, which there is padded by
one pixel although its kernel is 1x1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Unpack

import keras

from keras_lightnets.catalogue.squeezenet import FAMILY
from keras_lightnets.networks.blocks import Norm, activate, batch_norm, ceil_max_pool
from keras_lightnets.networks.network import Network
from keras_lightnets.networks.options import NetworkOptions, Options, check_choice, shared_options

# Version -> filters and kernel size of conv1; the Fire modules (by number) behind which
# a max-pooling follows (Table 1; version 1.1: the authors' repository).
VERSIONS = {
    "1.0": (96, 7, (4, 8)),
    "1.1": (64, 3, (3, 5)),
}
# Expand filters of Fire modules 2 to 9, half of them 1x1, half 3x3: base 128, plus 128
# after every second module (section 5.1).
EXPAND_FILTERS = (128, 128, 256, 256, 384, 384, 512, 512)
BYPASSES = (None, "simple", "complex")


def SqueezeNet(
    input_shape: Sequence[int | None] = (224, 224, 3),
    *,
    version: Literal["1.0", "1.1"] = "1.1",
    bypass: Literal["simple", "complex"] | None = None,
    batch_norm: bool = False,
    squeeze_ratio: float = 0.125,
    **options: Unpack[NetworkOptions],
) -> keras.Model:
    """Builds SqueezeNet.

    The network's own stride is 16, so `output_stride` is 16 or 8.

    Args:
        input_shape: `(height, width, channels)`; height and width may be None.
        version: `"1.1"` or `"1.0"`.
        bypass: None, `"simple"` (identity around Fire 3, 5, 7, 9) or `"complex"` (besides, a
            1x1 convolution around Fire 2, 4, 6, 8); section 6, Figure 2.
        batch_norm: Batch normalization behind each of a Fire module's convolutions, which
            keep their bias. Not in the paper; makes the network easier to train.
        squeeze_ratio: Squeeze filters per expand filter (section 5.2).
        **options: Arguments that all networks share, such as `classes` and `weights`: see
            `NetworkOptions`. `dropout_rate` is 0.5, `output_stride` 16 or 8.

    Returns:
        A `keras.Model`.

    Raises:
        ValueError: If an argument is not among its choices.
    """
    shared = shared_options(options, dropout_rate=0.5, output_stride=16)
    check_choice("version", version, tuple(VERSIONS))
    check_choice("bypass", bypass, BYPASSES)
    check_choice(
        "output_stride",
        shared.output_stride,
        (8, 16),
        why="the deepest feature map of SqueezeNet has stride 16",
    )
    if not 0 < squeeze_ratio <= 1:
        raise ValueError(f"`squeeze_ratio` must be in (0, 1]. Received: {squeeze_ratio!r}")
    variant = {
        "version": version,
        "bypass": bypass,
        "batch_norm": batch_norm,
        "squeeze_ratio": squeeze_ratio,
    }
    net = Network(FAMILY, variant, input_shape, shared)
    stem_filters, stem_kernel, pools = VERSIONS[version]

    x = _conv(
        net.x, stem_filters, stem_kernel, name="conv1", strides=1 if shared.small_input else 2
    )
    if not shared.small_input:
        net.strides.next(2)
        x = _pool(net, x, "pool1")
    norm = net.norm if batch_norm else None
    for number, expand in enumerate(EXPAND_FILTERS, 2):
        squeeze = max(1, int(squeeze_ratio * expand))
        shortcut = x
        x = _fire(
            x, squeeze, expand, dilation=net.strides.dilation, norm=norm, name=f"fire{number}"
        )
        if bypass is not None and number % 2:
            x = keras.layers.Add(name=f"fire{number}_add")([shortcut, x])
        elif bypass == "complex":
            shortcut = keras.layers.Conv2D(
                expand, 1, kernel_initializer="he_uniform", name=f"fire{number}_bypass_conv"
            )(shortcut)
            x = keras.layers.Add(name=f"fire{number}_add")([shortcut, x])
        if number in pools:
            net.tap(x)
            x = _pool(net, x, f"pool{number}")
    net.tap(x)
    return net.finish(x, _head)


def _pool(net: Network, x: keras.KerasTensor, name: str) -> keras.KerasTensor:
    strides, _ = net.strides.next(2)
    return ceil_max_pool(x, strides=strides, name=name)


def _fire(
    x: keras.KerasTensor, squeeze: int, expand: int, *, dilation: int, norm: Norm | None, name: str
) -> keras.KerasTensor:
    """Figure 1: a narrow 1x1 convolution feeds 1x1 and 3x3 ones, which are concatenated."""
    x = _conv(x, squeeze, 1, norm=norm, name=f"{name}_squeeze")
    left = _conv(x, expand // 2, 1, norm=norm, name=f"{name}_expand1x1")
    right = _conv(x, expand // 2, 3, dilation=dilation, norm=norm, name=f"{name}_expand3x3")
    return keras.layers.Concatenate(name=f"{name}_concat")([left, right])


def _conv(
    x: keras.KerasTensor,
    filters: int,
    kernel_size: int,
    *,
    strides: int = 1,
    dilation: int = 1,
    norm: Norm | None = None,
    name: str,
) -> keras.KerasTensor:
    """Convolution with bias, batch normalization if asked for, ReLU; conv1 is not padded."""
    x = keras.layers.Conv2D(
        filters,
        kernel_size,
        strides=strides,
        padding="valid" if name == "conv1" else "same",
        dilation_rate=dilation,
        kernel_initializer="he_uniform",
        name=f"{name}_conv",
    )(x)
    if norm is not None:
        x = batch_norm(x, norm, name)
    return activate(x, "relu", name)


def _head(x: keras.KerasTensor, options: Options) -> keras.KerasTensor:
    """Dropout, conv10, ReLU, global mean. The ReLU is the authors': logits are never negative."""
    if options.dropout_rate:
        x = keras.layers.Dropout(options.dropout_rate, name="dropout")(x)
    x = keras.layers.Conv2D(
        options.classes,
        1,
        kernel_initializer=keras.initializers.RandomNormal(stddev=0.01),
        dtype="float32",
        name="logits_conv",
    )(x)
    x = keras.layers.Activation("relu", dtype="float32", name="logits_act")(x)
    return keras.layers.GlobalAveragePooling2D(dtype="float32", name="logits")(x)
