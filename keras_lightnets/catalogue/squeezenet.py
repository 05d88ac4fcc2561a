"""What is known about SqueezeNet."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from keras_lightnets.catalogue.family import Family, Paper, Row
from keras_lightnets.catalogue.published import by_network, osmr, torchvision

# fmt: off
# Name, arguments, parameters (trainable, all), multiply-accumulates, the paper's top-1.
_ROWS = (
    ("squeezenet_v1_0", {"version": "1.0"}, 1_248_424, 1_248_424, 818_924_576, 57.5),
    ("squeezenet_v1_0_simple_bypass", {"version": "1.0", "bypass": "simple"},
     1_248_424, 1_248_424, 818_924_576, 60.4),
    ("squeezenet_v1_0_complex_bypass", {"version": "1.0", "bypass": "complex"},
     1_589_672, 1_589_672, 1_165_298_720, 58.8),
    ("squeezenet_v1_1", {"version": "1.1"}, 1_235_496, 1_235_496, 349_151_936, None),
    ("squeezenet_v1_1_simple_bypass", {"version": "1.1", "bypass": "simple"},
     1_235_496, 1_235_496, 349_151_936, None),
    ("squeezenet_v1_1_complex_bypass", {"version": "1.1", "bypass": "complex"},
     1_572_648, 1_572_648, 447_660_736, None),
    ("squeezenet_v1_1_bn", {"version": "1.1", "batch_norm": True},
     1_241_256, 1_247_016, 349_151_936, None),
)
_TORCHVISION = (
    ("squeezenet_v1_0", "torchvision", "squeezenet1_0-b66bff10.pth", 256, 58.092, 80.420),
    ("squeezenet_v1_1", "torchvision", "squeezenet1_1-b8a52dc0.pth", 256, 58.178, 80.624),
)
_OSMR = (
    ("squeezenet_v1_0", "squeezenet_v1_0", "1760", "v0.0.422",
     "d13ba73265325f21eb34e782989a7269cad406c6", 60.77, 82.40),
    ("squeezenet_v1_1", "squeezenet_v1_1", "1742", "v0.0.422",
     "95b614487f1f0572bd0dba18e0fc6d63df3a6bfc", 60.88, 82.58),
    ("squeezenet_v1_0_simple_bypass", "squeezeresnet_v1_0", "1783", "v0.0.422",
     "db620d998257c84fd6d5e80bba48cc1022febda3", 60.62, 82.17),
    ("squeezenet_v1_1_simple_bypass", "squeezeresnet_v1_1", "1789", "v0.0.422",
     "13d6bc6bd85adf83ef55325443495feb07c5788f", 60.15, 82.11),
)
# fmt: on

# torchvision numbers the layers, pooling included: Fire 2 to 9.
_FEATURES = {"1.0": (3, 4, 5, 7, 8, 9, 10, 12), "1.1": (3, 4, 6, 7, 9, 10, 11, 12)}
# pytorchcv begins a new stage behind these Fire modules (where a pooling follows).
_STAGE_ENDS = {"1.0": (4, 8), "1.1": (3, 5)}


def _torchvision(_: Collection[str], variant: Mapping[str, Any]) -> dict[str, str]:
    names = {"conv1_conv": "features.0"}
    for fire, index in enumerate(_FEATURES[variant["version"]], 2):
        for part in ("squeeze", "expand1x1", "expand3x3"):
            names[f"fire{fire}_{part}_conv"] = f"features.{index}.{part}"
    return {**names, "logits_conv": "classifier.1"}


def _pytorchcv(_: Collection[str], variant: Mapping[str, Any]) -> dict[str, str]:
    names = {"conv1_conv": "features.init_block.conv"}
    stage, unit = 1, 0
    for fire in range(2, 10):
        unit += 1
        for part in ("squeeze", "expand1x1", "expand3x3"):
            names[f"fire{fire}_{part}_conv"] = f"features.stage{stage}.unit{unit}.{part}.conv"
        if fire in _STAGE_ENDS[variant["version"]]:
            stage, unit = stage + 1, 0
    return {**names, "logits_conv": "output.final_conv"}


FAMILY = Family(
    name="squeezenet",
    usual="squeezenet_v1_1",
    builder="keras_lightnets:SqueezeNet",
    paper=Paper(
        "SqueezeNet: AlexNet-level accuracy with 50x fewer parameters and <0.5MB model size",
        "https://arxiv.org/abs/1602.07360",
    ),
    defaults={"version": "1.1", "bypass": None, "batch_norm": False, "squeeze_ratio": 0.125},
    rows=tuple(map(Row._make, _ROWS)),
    weights=by_network((torchvision, _TORCHVISION), (osmr, _OSMR)),
    tensor_names={"torchvision": _torchvision, "pytorchcv": _pytorchcv},
)
