"""What is known about ShuffleNet v1."""

from __future__ import annotations

from functools import partial

from keras_lightnets.catalogue.family import Family, Paper, Row
from keras_lightnets.catalogue.published import by_network, osmr
from keras_lightnets.catalogue.tensor_names import by_unit

# fmt: off
# Name, arguments, parameters (trainable, all), multiply-accumulates, the paper's top-1.
_ROWS = (
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
_OSMR = (
    ("shufflenet_v1_g1_x0_25", "shufflenet_g1_wd4", "3681", "v0.0.422",
     "04a9e2d4ada22b3d317e2fc8b7d4ec11865c414f", 37.95, 63.19),
    ("shufflenet_v1_g3_x0_25", "shufflenet_g3_wd4", "3618", "v0.0.422",
     "c9aad0f08d129726bbc19219c9773b38cf38825e", 38.69, 63.82),
    ("shufflenet_v1_g1_x0_5", "shufflenet_g1_wd2", "2236", "v0.0.422",
     "082db702c422d8bce12d4d79228de56f088a420d", 53.75, 77.64),
    ("shufflenet_v1_g3_x0_5", "shufflenet_g3_wd2", "2059", "v0.0.422",
     "e3aefeeb36c20e325d0c7fe46afc60484167609d", 56.16, 79.41),
    ("shufflenet_v1_g1_x0_75", "shufflenet_g1_w3d4", "1679", "v0.0.422",
     "a1cc5da3a288299a33353f697ed0297328dc3e95", 60.76, 83.21),
    ("shufflenet_v1_g3_x0_75", "shufflenet_g3_w3d4", "1611", "v0.0.422",
     "89546a05f499f0fdf96dade0f3db430f92c5920d", 62.20, 83.89),
    ("shufflenet_v1_g1_x1_0", "shufflenet_g1_w1", "1348", "v0.0.422",
     "52ddb20fd7ff288ae30a17757efda4653c09d5ca", 65.52, 86.52),
    ("shufflenet_v1_g2_x1_0", "shufflenet_g2_w1", "1333", "v0.0.422",
     "2a8ba6928e6fac05a5fe8911a9a175268eb18382", 66.05, 86.67),
    ("shufflenet_v1_g3_x1_0", "shufflenet_g3_w1", "1326", "v0.0.422",
     "daaec8b84572023c1352e11830d296724123408e", 66.07, 86.68),
    ("shufflenet_v1_g4_x1_0", "shufflenet_g4_w1", "1313", "v0.0.422",
     "35dbd6b9fb8bc3e97367ea210abbd61da407f226", 66.12, 86.87),
    ("shufflenet_v1_g8_x1_0", "shufflenet_g8_w1", "1322", "v0.0.422",
     "449fb27659101a2cf0a87c90e33f4632d1c5e9f2", 66.29, 86.78),
)
FAMILY = Family(
    name="shufflenet_v1",
    usual="shufflenet_v1_g3_x1_0",
    builder="keras_lightnets:ShuffleNetV1",
    paper=Paper(
        "ShuffleNet: An Extremely Efficient Convolutional Neural Network for Mobile Devices",
        "https://arxiv.org/abs/1707.01083"),
    defaults={"groups": 3, "alpha": 1.0, "stem_filters": None, "se": False},
    rows=tuple(map(Row._make, _ROWS)),
    weights=by_network((osmr, _OSMR)),
    tensor_names={
        "pytorchcv": partial(
            by_unit, stem="features.init_block", unit="features.stage{stage0}.unit{unit}",
            roles={"reduce": "compress_conv1 compress_bn1", "depthwise": "dw_conv2 dw_bn2",
                   "expand": "expand_conv3 expand_bn3"}, logits="output"),
    },
)
