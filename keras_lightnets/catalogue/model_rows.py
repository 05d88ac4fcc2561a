"""Rows of the registry: each network's arguments, size and published accuracy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple


class Paper(NamedTuple):
    """Where a network was published."""

    title: str
    url: str


class Row(NamedTuple):
    """One network. Sizes are those of the built model with 1000 classes; a test compares."""

    name: str
    builder: str  # module:function in keras_lightnets
    kwargs: Mapping[str, Any]
    parameters: int  # trainable
    parameters_total: int  # with moving statistics
    macs: int  # of one 224x224 image
    paper_top1: float | None  # percent, as the paper prints it for this network


PAPERS = {
    "squeezenet": Paper(
        "SqueezeNet: AlexNet-level accuracy with 50x fewer parameters and <0.5MB model size",
        "https://arxiv.org/abs/1602.07360",
    ),
    "mobilenet_v1": Paper(
        "MobileNets: Efficient Convolutional Neural Networks for Mobile Vision Applications",
        "https://arxiv.org/abs/1704.04861",
    ),
    "mobilenet_v2": Paper(
        "MobileNetV2: Inverted Residuals and Linear Bottlenecks",
        "https://arxiv.org/abs/1801.04381",
    ),
    "shufflenet_v1": Paper(
        "ShuffleNet: An Extremely Efficient Convolutional Neural Network for Mobile Devices",
        "https://arxiv.org/abs/1707.01083",
    ),
    "shufflenet_v2": Paper(
        "ShuffleNet V2: Practical Guidelines for Efficient CNN Architecture Design",
        "https://arxiv.org/abs/1807.11164",
    ),
}

# Family -> the member that its name stands for.
FAMILIES = {
    "squeezenet": "squeezenet_v1_1",
    "mobilenet_v1": "mobilenet_v1_x1_0",
    "mobilenet_v2": "mobilenet_v2_x1_0",
    "shufflenet_v1": "shufflenet_v1_g3_x1_0",
    "shufflenet_v2": "shufflenet_v2_x1_0",
}

# Per network: name, arguments, trainable, all, multiply-accumulates, top-1. Parameter counts
# and operations were taken from the built models.
# fmt: off
_SQUEEZENET = (
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
_MOBILENET_V1 = (
    ("mobilenet_v1_x0_25", {"alpha": 0.25}, 470_072, 475_544, 41_030_272, 50.6),
    ("mobilenet_v1_x0_5", {"alpha": 0.5}, 1_331_592, 1_342_536, 149_497_088, 63.7),
    ("mobilenet_v1_x0_75", {"alpha": 0.75}, 2_585_560, 2_601_976, 325_400_448, 68.4),
    ("mobilenet_v1_x1_0", {"alpha": 1.0}, 4_231_976, 4_253_864, 568_740_352, 70.6),
    ("mobilenet_v1_shallow_x1_0", {"alpha": 1.0, "shallow": True},
     2_887_976, 2_899_624, 307_323_392, 65.3),
    ("mobilenet_v1_b_x0_25", {"alpha": 0.25, "depthwise_norm": False},
     467_592, 470_584, 41_030_272, None),
    ("mobilenet_v1_b_x0_5", {"alpha": 0.5, "depthwise_norm": False},
     1_326_632, 1_332_616, 149_497_088, None),
    ("mobilenet_v1_b_x0_75", {"alpha": 0.75, "depthwise_norm": False},
     2_578_120, 2_587_096, 325_400_448, None),
    ("mobilenet_v1_b_x1_0", {"alpha": 1.0, "depthwise_norm": False},
     4_222_056, 4_234_024, 568_740_352, None),
    ("mobilenet_v1_relu6_x0_25", {"alpha": 0.25, "activation": "relu6"},
     470_072, 475_544, 41_030_272, None),
    ("mobilenet_v1_relu6_x0_5", {"alpha": 0.5, "activation": "relu6"},
     1_331_592, 1_342_536, 149_497_088, None),
    ("mobilenet_v1_relu6_x0_75", {"alpha": 0.75, "activation": "relu6"},
     2_585_560, 2_601_976, 325_400_448, None),
    ("mobilenet_v1_relu6_x1_0", {"alpha": 1.0, "activation": "relu6"},
     4_231_976, 4_253_864, 568_740_352, None),
    ("mobilenet_v1_relu6_x1_25", {"alpha": 1.25, "activation": "relu6"},
     6_270_840, 6_298_200, 879_516_800, None),
    ("mobilenet_v1_relu6_head_x1_0", {"alpha": 1.0, "activation": "relu6", "head_conv": True},
     5_282_600, 5_306_536, 620_120_576, None),
)
_MOBILENET_V2 = (
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
_SHUFFLENET_V1 = (
    ("shufflenet_v1_g1_x0_25", {"groups": 1, "alpha": 0.25}, 209_746, 213_418, 11_003_184, 42.9),
    ("shufflenet_v1_g1_x0_5", {"groups": 1, "alpha": 0.5}, 534_484, 541_828, 38_517_408, 54.9),
    ("shufflenet_v1_g1_x0_75", {"groups": 1, "alpha": 0.75}, 975_214, 986_230, 82_542_672, None),
    ("shufflenet_v1_g1_x1_0", {"groups": 1, "alpha": 1.0}, 1_531_936, 1_546_624, 143_078_976, 66.4),
    ("shufflenet_v1_g1_x1_5", {"groups": 1, "alpha": 1.5}, 2_993_032, 3_015_064, 308_096_352, None),
    ("shufflenet_v1_g1_x2_0", {"groups": 1, "alpha": 2.0}, 4_918_744, 4_948_120, 550_334_592, None),
    ("shufflenet_v1_g2_x0_25", {"groups": 2, "alpha": 0.25}, 268_652, 273_900, 11_964_312, 43.2),
    ("shufflenet_v1_g2_x0_5", {"groups": 2, "alpha": 0.5}, 644_320, 654_560, 38_914_784, 55.6),
    ("shufflenet_v1_g2_x0_75", {"groups": 2, "alpha": 0.75},
     1_137_972, 1_153_380, 82_978_016, None),
    ("shufflenet_v1_g2_x1_0", {"groups": 2, "alpha": 1.0}, 1_733_848, 1_754_248, 140_836_512, 67.3),
    ("shufflenet_v1_g2_x1_5", {"groups": 2, "alpha": 1.5}, 3_273_400, 3_304_040, 303_198_368, None),
    ("shufflenet_v1_g2_x2_0", {"groups": 2, "alpha": 2.0}, 5_257_896, 5_298_696, 539_138_624, None),
    ("shufflenet_v1_g3_x0_25", {"groups": 3, "alpha": 0.25}, 305_902, 312_022, 11_009_808, 45.0),
    ("shufflenet_v1_g3_x0_5", {"groups": 3, "alpha": 0.5}, 718_324, 730_564, 37_589_856, 56.8),
    ("shufflenet_v1_g3_x0_75", {"groups": 3, "alpha": 0.75},
     1_238_266, 1_256_626, 79_740_144, None),
    ("shufflenet_v1_g3_x1_0", {"groups": 3, "alpha": 1.0}, 1_865_728, 1_890_208, 137_460_672, 67.4),
    ("shufflenet_v1_g3_x1_5", {"groups": 3, "alpha": 1.5}, 3_442_168, 3_478_888, 292_443_552, 71.5),
    ("shufflenet_v1_g3_x2_0", {"groups": 3, "alpha": 2.0}, 5_450_776, 5_499_736, 524_045_184, 73.7),
    ("shufflenet_v1_g4_x0_25", {"groups": 4, "alpha": 0.25}, 340_936, 348_168, 13_019_056, 45.8),
    ("shufflenet_v1_g4_x0_5", {"groups": 4, "alpha": 0.5}, 778_592, 792_544, 37_943_936, 58.4),
    ("shufflenet_v1_g4_x0_75", {"groups": 4, "alpha": 0.75},
     1_328_528, 1_349_552, 81_154_048, None),
    ("shufflenet_v1_g4_x1_0", {"groups": 4, "alpha": 1.0}, 1_968_344, 1_996_088, 134_339_776, 67.2),
    ("shufflenet_v1_g4_x1_5", {"groups": 4, "alpha": 1.5}, 3_575_536, 3_617_232, 287_149_120, None),
    ("shufflenet_v1_g4_x2_0", {"groups": 4, "alpha": 2.0}, 5_593_528, 5_649_016, 510_289_536, None),
    ("shufflenet_v1_g8_x0_25", {"groups": 8, "alpha": 0.25}, 454_504, 464_296, 12_426_240, 47.3),
    ("shufflenet_v1_g8_x0_5", {"groups": 8, "alpha": 0.5}, 1_011_448, 1_031_032, 40_469_760, 57.7),
    ("shufflenet_v1_g8_x0_75", {"groups": 8, "alpha": 0.75},
     1_671_832, 1_701_208, 84_130_560, None),
    ("shufflenet_v1_g8_x1_0", {"groups": 8, "alpha": 1.0}, 2_434_768, 2_473_936, 138_365_952, 67.6),
    ("shufflenet_v1_g8_x1_5", {"groups": 8, "alpha": 1.5}, 4_269_952, 4_328_704, 290_188_800, None),
    ("shufflenet_v1_g8_x2_0", {"groups": 8, "alpha": 2.0}, 6_522_232, 6_600_568, 521_942_016, None),
    ("shufflenet_v1_g3_x2_0_se", {"groups": 3, "alpha": 2.0, "se": True},
     7_910_083, 7_959_043, 526_487_712, 75.3),
)
_SHUFFLENET_V2 = (
    ("shufflenet_v2_x0_5", {"alpha": 0.5}, 1_366_792, 1_374_744, 40_476_448, 60.3),
    ("shufflenet_v2_x1_0", {"alpha": 1.0}, 2_278_604, 2_294_784, 144_907_992, 69.4),
    ("shufflenet_v2_x1_5", {"alpha": 1.5}, 3_503_624, 3_527_064, 295_759_392, 72.6),
    ("shufflenet_v2_x2_0", {"alpha": 2.0}, 7_393_996, 7_427_712, 583_253_464, 74.9),
    ("shufflenet_v2_keep_x1_0", {"alpha": 1.0, "downsample": "keep"},
     2_279_760, 2_295_940, 145_814_296, 69.4),
    ("shufflenet_v2_keep_x1_5", {"alpha": 1.5, "downsample": "keep"},
     3_507_720, 3_531_160, 298_970_656, 72.6),
    ("shufflenet_v2_keep_x2_0", {"alpha": 2.0, "downsample": "keep"},
     7_403_600, 7_437_316, 590_783_000, 74.9),
    ("shufflenet_v2_keep_x1_5_head1553", {"alpha": 1.5, "downsample": "keep", "head_filters": 1553},
     4_410_194, 4_434_692, 317_748_040, None),
    ("shufflenet_v2_keep_x2_0_head2153", {"alpha": 2.0, "downsample": "keep", "head_filters": 2153},
     7_611_290, 7_645_216, 595_909_520, None),
    ("shufflenet_v2_ceil_x0_5", {"alpha": 0.5, "stem_pool": "ceil"},
     1_366_792, 1_374_744, 40_476_448, None),
    ("shufflenet_v2_ceil_x1_0", {"alpha": 1.0, "stem_pool": "ceil"},
     2_278_604, 2_294_784, 144_907_992, None),
    ("shufflenet_v2_ceil_x1_5_head1553", {"alpha": 1.5, "stem_pool": "ceil", "head_filters": 1553},
     4_406_098, 4_430_596, 314_536_776, None),
    ("shufflenet_v2_ceil_x2_0_head2153", {"alpha": 2.0, "stem_pool": "ceil", "head_filters": 2153},
     7_601_686, 7_635_612, 588_379_984, None),
    ("shufflenet_v2_x2_0_se", {"alpha": 2.0, "se": True},
     10_379_580, 10_413_296, 586_230_264, 75.4),
    ("shufflenet_v2_50", {"depth": 50, "downsample": "keep"},
     16_576_898, 16_631_514, 2_314_702_176, 77.2),
    ("shufflenet_v2_164_se", {"depth": 164, "downsample": "keep", "se": True, "residual": True},
     133_133_912, 133_354_676, 12_604_268_184, 81.44),
)
# fmt: on

_TABLES: list[tuple[str, Any]] = [
    ("squeezenet:SqueezeNet", _SQUEEZENET),
    ("mobilenet_v1:MobileNetV1", _MOBILENET_V1),
    ("mobilenet_v2:MobileNetV2", _MOBILENET_V2),
    ("shufflenet_v1:ShuffleNetV1", _SHUFFLENET_V1),
    ("shufflenet_v2:ShuffleNetV2", _SHUFFLENET_V2),
]
ROWS = tuple(Row(name, builder, *rest) for builder, table in _TABLES for name, *rest in table)
