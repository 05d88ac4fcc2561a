"""Which of our networks each entry of golden_counts.json describes, or why none does."""

from __future__ import annotations

import functools
import json
import pathlib
import re

import keras_lightnets
from keras_lightnets.networks.complexity import count_macs, count_parameters

COUNTS = json.loads(pathlib.Path(__file__).with_name("golden_counts.json").read_text())

# Entries that no argument of a builder describes.
EXCLUDED = {
    **dict.fromkeys(
        ("megvii/shufflenet_v2_Large", "megvii/shufflenet_v2_ExLarge"),
        "another network: grouped 3x3 convolutions, auxiliary heads",
    ),
    **dict.fromkeys(
        (f"megvii/shufflenet_v2_plus_{size}" for size in ("Small", "Medium", "Large")),
        "another network, found by architecture search",
    ),
    **dict.fromkeys(
        (f"timm/mobilenetv2_{name}" for name in ("110d", "120d")),
        "timm's own networks: more units per stage",
    ),
    **dict.fromkeys(
        (
            f"seed/squeezenet_v1_{version}_fire_bn_{rest}"
            for version in "01"
            for rest in ("nobias", "stem_bn")
        ),
        "published nowhere: other places of batch normalization and bias",
    ),
}
_PYTORCHCV_WIDTHS = {"wd4": 0.25, "wd2": 0.5, "w3d4": 0.75, "w1": 1.0, "w3d2": 1.5, "w2": 2.0}
_PYTORCHCV_HEADS = {"w3d2": 1553, "w2": 2153}  # osmr scales conv5 above width 1


def variant(key: str) -> tuple[str, dict, int]:
    """Builder, arguments, and how many parameters ours has more (osmr's, megvii's lack a bias)."""
    source, name = key.split("/")
    if source == "megvii":
        _, arguments, _ = variant(f"paper/{name}")
        return _builder(name), arguments, 1000
    for pattern, make in _RULES:
        if match := re.fullmatch(pattern, key):
            arguments = make(*match.groups())
            no_bias = source == "pytorchcv" and name.startswith("mobilenetv2")
            return _builder(name), arguments, 1000 if no_bias else 0
    raise KeyError(key)


def _builder(name: str) -> str:
    for start, builder in (
        ("squeeze", "SqueezeNet"),
        ("mobilenet_v2", "MobileNetV2"),
        ("mobilenetv2", "MobileNetV2"),
        ("mobilenet", "MobileNetV1"),
        ("shufflenet_v2", "ShuffleNetV2"),
        ("se_shufflenet_v2", "ShuffleNetV2"),
        ("shufflenetv2", "ShuffleNetV2"),
        ("shufflenet", "ShuffleNetV1"),
    ):
        if name.startswith(start):
            return builder
    raise KeyError(name)


def _squeezenet(minor, bypass=None, **extra):
    return {"version": f"1.{minor}", "bypass": bypass, **extra}


def _v2_pytorchcv(width, **extra):
    if head := _PYTORCHCV_HEADS.get(width):
        extra["head_filters"] = head
    return {"alpha": _PYTORCHCV_WIDTHS[width], **extra}


_RULES = (
    (r"paper/squeezenet_v1_(.)(?:_(simple|complex)_bypass)?", _squeezenet),
    (r"(?:torchvision/squeezenet1|pytorchcv/squeezenet_v1)_(.)", _squeezenet),
    (r"pytorchcv/squeezeresnet_v1_(.)", lambda minor: _squeezenet(minor, "simple")),
    (r"seed/squeezenet_v1_(.)_fire_bn", lambda minor: _squeezenet(minor, batch_norm=True)),
    (r"keras/mobilenet_a(.+)", lambda a: {"alpha": float(a)}),
    (r"pytorchcv/mobilenet_(\w+)", lambda w: {"alpha": _PYTORCHCV_WIDTHS[w]}),
    (
        r"pytorchcv/mobilenetb_(\w+)",
        lambda w: {"alpha": _PYTORCHCV_WIDTHS[w], "depthwise_norm": False},
    ),
    (r"seed/mobilenet_v1", dict),
    (
        r"timm/mobilenetv1_(\d+)(h?)",
        lambda a, h: {"alpha": int(a) / 100, "activation": "relu6", "head_conv": h == "h"},
    ),
    (
        r"(?:keras|torchvision)/mobilenet_v2(?:_[aw](.+))?",
        lambda a=None: {"alpha": float(a or 1)},
    ),
    (r"timm/mobilenetv2_(\d+)", lambda a: {"alpha": int(a) / 100}),
    (r"seed/mobilenet_v2_w(.+)", lambda a: {"alpha": float(a), "channel_divisor": 1}),
    (
        r"pytorchcv/mobilenetv2(b?)_(\w+)",
        lambda b, w: {
            "alpha": _PYTORCHCV_WIDTHS[w],
            "channel_divisor": 1,
            "expand_first": b != "b",
        },
    ),
    (
        r"pytorchcv/shufflenet_g(\d)_(\w+)",
        lambda g, w: {"groups": int(g), "alpha": _PYTORCHCV_WIDTHS[w]},
    ),
    (
        r"paper/shufflenet_v1_g(\d)_(.+)x(?:_conv1_(\d+))?",
        lambda g, a, stem=None: {
            "groups": int(g),
            "alpha": float(a),
            "stem_filters": stem and int(stem),
        },
    ),
    (
        # The rule alone would make the first convolution wider at 1.5x than the authors did.
        r"rounded/shufflenet_v1_g(\d)_1.5x",
        lambda g: {"groups": int(g), "alpha": 1.5, "stem_filters": 40 if g == "8" else 36},
    ),
    (
        r"rounded/shufflenet_v1_g(\d)_(.+)x",
        lambda g, a: {"groups": int(g), "alpha": float(a)},
    ),
    (r"paper/shufflenet_v2_(.+)x", lambda a: {"alpha": float(a), "downsample": "keep"}),
    (r"paper/shufflenet_v2_50_(\w+)", lambda form: {"depth": 50, "downsample": form}),
    (
        r"paper/se_shufflenet_v2_164_(half|keep)_se_(square|half)",
        lambda form, se: {
            "depth": 164,
            "downsample": form,
            "se": True,
            "se_reduction": 2 if se == "half" else 1,
            "residual": True,
        },
    ),
    (
        r"torchvision/shufflenet_v2_x(\d)_(\d)",
        lambda whole, tenth: {"alpha": float(f"{whole}.{tenth}")},
    ),
    (r"pytorchcv/shufflenetv2_(\w+)", lambda w: _v2_pytorchcv(w, stem_pool="ceil")),
    (r"pytorchcv/shufflenetv2b_(\w+)", lambda w: _v2_pytorchcv(w, downsample="keep")),
)


def size(builder: str, arguments: dict) -> tuple[int, int, int]:
    """Trainable parameters, all parameters and multiply-accumulates of a built network."""
    return _size(builder, tuple(sorted(arguments.items())))


@functools.cache
def _size(builder: str, arguments: tuple) -> tuple[int, int, int]:
    model = getattr(keras_lightnets, builder)(**dict(arguments))
    return *count_parameters(model), count_macs(model)
