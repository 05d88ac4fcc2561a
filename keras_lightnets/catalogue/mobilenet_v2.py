"""What is known about MobileNet v2."""

from __future__ import annotations

from functools import partial

from keras_lightnets.catalogue.family import Family, Paper, Row
from keras_lightnets.catalogue.published import by_network, dli14, keras, osmr, timm, torchvision
from keras_lightnets.catalogue.tensor_names import by_unit, own

_KERAS_FILES = "mobilenet_v2/mobilenet_v2_weights_tf_dim_ordering_tf_kernels"
# fmt: off
# Name, arguments, parameters (trainable, all), multiply-accumulates, the paper's top-1.
_ROWS = (
    ("mobilenet_v2_x0_25", {"alpha": 0.25}, 1_519_112, 1_529_768, 37_201_312, None),
    ("mobilenet_v2_x0_35", {"alpha": 0.35}, 1_677_128, 1_691_208, 59_285_808, None),
    ("mobilenet_v2_x0_5", {"alpha": 0.5}, 1_968_680, 1_987_224, 97_131_840, None),
    ("mobilenet_v2_x0_75", {"alpha": 0.75}, 2_636_424, 2_663_064, 209_069_792, None),
    ("mobilenet_v2_x1_0", {"alpha": 1.0}, 3_504_872, 3_538_984, 300_774_272, 72.0),
    ("mobilenet_v2_x1_3", {"alpha": 1.3}, 5_386_792, 5_431_048, 509_374_560, None),
    ("mobilenet_v2_x1_4", {"alpha": 1.4}, 6_108_776, 6_156_712, 582_195_824, 74.7),
    ("mobilenet_v2_trunc_x0_25", {"alpha": 0.25, "channel_divisor": 1},
     1_517_312, 1_527_760, 29_678_048, None),
    ("mobilenet_v2_trunc_x0_35", {"alpha": 0.35, "channel_divisor": 1},
     1_667_665, 1_681_127, 47_741_702, None),
    ("mobilenet_v2_trunc_x0_5", {"alpha": 0.5, "channel_divisor": 1},
     1_965_448, 1_983_784, 89_059_776, None),
    ("mobilenet_v2_trunc_x0_75", {"alpha": 0.75, "channel_divisor": 1},
     2_627_968, 2_654_192, 179_425_184, None),
    ("mobilenet_v2_trunc_x1_3", {"alpha": 1.3, "channel_divisor": 1},
     5_372_586, 5_416_768, 487_736_944, None),
    ("mobilenet_v2_trunc_x1_4", {"alpha": 1.4, "channel_divisor": 1},
     6_082_580, 6_130_136, 562_210_684, None),
    ("mobilenet_v2_expand_x1_0", {"alpha": 1.0, "expand_first": True},
     3_505_960, 3_540_136, 313_619_328, None),
    ("mobilenet_v2_trunc_expand_x0_25", {"alpha": 0.25, "channel_divisor": 1, "expand_first": True},
     1_517_392, 1_527_856, 30_480_864, None),
    ("mobilenet_v2_trunc_expand_x0_5", {"alpha": 0.5, "channel_divisor": 1, "expand_first": True},
     1_965_736, 1_984_104, 92_271_040, None),
    ("mobilenet_v2_trunc_expand_x0_75", {"alpha": 0.75, "channel_divisor": 1, "expand_first": True},
     2_628_592, 2_654_864, 186_650_528, None),
)
_TORCHVISION = (
    ("mobilenet_v2_x1_0", "torchvision-v1", "mobilenet_v2-b0353104.pth", 256, 71.878, 90.286),
    ("mobilenet_v2_x1_0", "torchvision-v2", "mobilenet_v2-7ebf99e0.pth", 232, 72.154, 90.822),
)
_TIMM = (
    ("mobilenet_v2_x0_5", "timm", "mobilenetv2_050-3d30d450.pth", 256, 65.928, 86.114),
    ("mobilenet_v2_x1_0", "timm", "mobilenetv2_100_ra-b33bc2c4.pth", 256, 72.910, 91.0),
    ("mobilenet_v2_x1_4", "timm", "mobilenetv2_140_ra-21a4e913.pth", 256, 76.528, 93.008),
)
_DLI14 = (
    ("mobilenet_v2_x0_25", "mobilenetv2_0.25-b61d2159.pth", 52.352),
    ("mobilenet_v2_x0_35", "mobilenetv2_0.35-b2e15951.pth", 60.092),
    ("mobilenet_v2_x0_5", "mobilenetv2_0.5-eaa6f9ad.pth", 64.592),
    ("mobilenet_v2_x0_75", "mobilenetv2_0.75-dace9791.pth", 69.952),
    ("mobilenet_v2_x1_0", "mobilenetv2-c5e733a8.pth", 72.834),
)
_KERAS = (
    ("mobilenet_v2_x0_35", f"{_KERAS_FILES}_0.35_224.h5", 60.3, 82.9),
    ("mobilenet_v2_x0_5", f"{_KERAS_FILES}_0.5_224.h5", 65.4, 86.4),
    ("mobilenet_v2_x0_75", f"{_KERAS_FILES}_0.75_224.h5", 69.8, 89.6),
    ("mobilenet_v2_x1_0", f"{_KERAS_FILES}_1.0_224.h5", 71.8, 91.0),
    ("mobilenet_v2_x1_3", f"{_KERAS_FILES}_1.3_224.h5", 74.4, 92.1),
    ("mobilenet_v2_x1_4", f"{_KERAS_FILES}_1.4_224.h5", 75.0, 92.5),
)
_OSMR = (
    ("mobilenet_v2_trunc_expand_x0_25", "mobilenetv2_wd4", "2413", "v0.0.422",
     "c3705f55b0df68919fba7ed79204c5651f6f71b1", 51.90, 75.87),
    ("mobilenet_v2_trunc_expand_x0_5", "mobilenetv2_wd2", "1446", "v0.0.422",
     "b0c9a98b85b579ba77c17d228ace399809c6ab43", 64.38, 85.54),
    ("mobilenet_v2_trunc_expand_x0_75", "mobilenetv2_w3d4", "1044", "v0.0.422",
     "e122c73eae885d204bc2ba46fb013a9da5cb282f", 70.25, 89.56),
    ("mobilenet_v2_expand_x1_0", "mobilenetv2_w1", "0863", "v0.0.422",
     "b32cede3b68f40f2ed0552dcdf238c70f82e5705", 73.20, 91.37),
    ("mobilenet_v2_trunc_x0_25", "mobilenetv2b_wd4", "2341", "v0.0.483",
     "059d92447db63fb6c5fdbdbcdc5490d7fb3e57b5", 53.23, 76.59),
    ("mobilenet_v2_trunc_x0_5", "mobilenetv2b_wd2", "1375", "v0.0.486",
     "55eb7d491f6a655ebcaa3d63c9ca66c992a1c484", 65.74, 86.25),
    ("mobilenet_v2_trunc_x0_75", "mobilenetv2b_w3d4", "1066", "v0.0.483",
     "bab6a262187971fe603e5ce3aced0ee8845199e7", 69.86, 89.34),
    ("mobilenet_v2_x1_0", "mobilenetv2b_w1", "0891", "v0.0.483",
     "eabc2c721a0133cceb7d13603577af371ee32037", 72.84, 91.09),
)
FAMILY = Family(
    name="mobilenet_v2",
    usual="mobilenet_v2_x1_0",
    builder="keras_lightnets:MobileNetV2",
    paper=Paper("MobileNetV2: Inverted Residuals and Linear Bottlenecks",
                "https://arxiv.org/abs/1801.04381"),
    defaults={"alpha": 1.0, "channel_divisor": 8, "expand_first": False},
    rows=tuple(map(Row._make, _ROWS)),
    weights=by_network((torchvision, _TORCHVISION), (timm, _TIMM), (dli14, _DLI14),
                       (keras, _KERAS), (osmr, _OSMR)),
    tensor_names={
        "torchvision": partial(
            by_unit, stem="features.0.0 features.0.1", unit="features.{index}.conv",
            roles={"expand": "0.0 0.1", "depthwise": "1.0 1.1", "project": "2 3"},
            bare={"depthwise": "0.0 0.1", "project": "1 2"},
            head="features.18.0 features.18.1", logits="classifier.1"),
        "timm": partial(
            by_unit, stem="conv_stem bn1", unit="blocks.{stage0}.{unit0}",
            roles={"expand": "conv_pw bn1", "depthwise": "conv_dw bn2", "project": "conv_pwl bn3"},
            bare={"depthwise": "conv_dw bn1", "project": "conv_pw bn2"},
            head="conv_head bn2", logits="classifier"),
        # Stages 5 and 7, which keep the size, are counted to the stage before.
        "pytorchcv": partial(
            by_unit, stem="features.init_block", unit="features.stage{stage}.unit{unit}",
            roles={"expand": "conv1", "depthwise": "conv2", "project": "conv3"},
            stages=(1, 2, 3, 7, 4), head="features.final_block", logits="output"),
        "d-li14": partial(
            by_unit, stem="features.0.0 features.0.1", unit="features.{index}.conv",
            roles={"expand": "0 1", "depthwise": "3 4", "project": "6 7"},
            bare={"depthwise": "0 1", "project": "3 4"},
            head="conv.0 conv.1", logits="classifier"),
        "keras": own,
    },
    without_bias={"pytorchcv": {"logits"}},
)
