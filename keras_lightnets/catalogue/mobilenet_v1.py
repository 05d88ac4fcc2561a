"""What is known about MobileNet v1."""

from __future__ import annotations

from functools import partial

from keras_lightnets.catalogue.family import Family, Paper, Row
from keras_lightnets.catalogue.published import HALF, by_network, keras, osmr, timm
from keras_lightnets.catalogue.tensor_names import by_unit, own

# fmt: off
# Name, arguments, parameters (trainable, all), multiply-accumulates, the paper's top-1.
_ROWS = (
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
_TIMM = (
    ("mobilenet_v1_relu6_x1_0", "timm-ra4", "mobilenetv1_100.ra4_e3600_r224_in1k", 256,
     75.388, 92.310, HALF),
    ("mobilenet_v1_relu6_head_x1_0", "timm-ra4", "mobilenetv1_100h.ra4_e3600_r224_in1k", 256,
     75.664, 92.522, HALF),
    ("mobilenet_v1_relu6_x1_25", "timm-ra4", "mobilenetv1_125.ra4_e3600_r224_in1k", 248,
     76.920, 93.232, HALF),
)
_KERAS = (
    ("mobilenet_v1_relu6_x0_25", "mobilenet/mobilenet_2_5_224_tf.h5", 50.6, 75.0),
    ("mobilenet_v1_relu6_x0_5", "mobilenet/mobilenet_5_0_224_tf.h5", 64.0, 85.4),
    ("mobilenet_v1_relu6_x0_75", "mobilenet/mobilenet_7_5_224_tf.h5", 68.4, 88.2),
    ("mobilenet_v1_relu6_x1_0", "mobilenet/mobilenet_1_0_224_tf.h5", 70.7, 89.5),
)
_OSMR = (
    ("mobilenet_v1_x0_25", "mobilenet_wd4", "2213", "v0.0.422",
     "ad04596aa730e5bb4429115df70504c5a7dd5969", 54.16, 77.87),
    ("mobilenet_v1_x0_5", "mobilenet_wd2", "1333", "v0.0.422",
     "01395e1b9e2a54065aafcc8b4c419644e7f6a655", 66.14, 86.67),
    ("mobilenet_v1_x0_75", "mobilenet_w3d4", "1051", "v0.0.422",
     "7832561b956f0d763b002fbd9f2f880bbb712885", 70.12, 89.49),
    ("mobilenet_v1_x1_0", "mobilenet_w1", "0866", "v0.0.422",
     "6939232b46fb98c8a9209d66368d630bb50941ed", 73.55, 91.34),
    ("mobilenet_v1_b_x0_25", "mobilenetb_wd4", "2169", "v0.0.481",
     "4aba9700274c1db221480b28944e639101ca082f", 54.78, 78.31),
    ("mobilenet_v1_b_x0_5", "mobilenetb_wd2", "1269", "v0.0.480",
     "4ebf1936c541195bf47644b662f48e4a3dc3a8fd", 67.10, 87.31),
    ("mobilenet_v1_b_x0_75", "mobilenetb_w3d4", "1018", "v0.0.481",
     "2c5ff66f431af9317c752cfdc7314768c8aca813", 70.92, 89.82),
    ("mobilenet_v1_b_x1_0", "mobilenetb_w1", "0789", "v0.0.489",
     "fdd5af09ab32014d92466437b11d968793032c93", 74.96, 92.11),
)
# Units of one size make a stage. (The shallow network has no such layout.)
_STAGES = (1, 2, 2, 6, 2)
FAMILY = Family(
    name="mobilenet_v1",
    usual="mobilenet_v1_x1_0",
    builder="keras_lightnets:MobileNetV1",
    paper=Paper(
        "MobileNets: Efficient Convolutional Neural Networks for Mobile Vision Applications",
        "https://arxiv.org/abs/1704.04861"),
    defaults={"alpha": 1.0, "activation": None, "shallow": False, "depthwise_norm": True,
              "head_conv": False},
    rows=tuple(map(Row._make, _ROWS)),
    weights=by_network((timm, _TIMM), (keras, _KERAS), (osmr, _OSMR)),
    tensor_names={
        "timm": partial(
            by_unit, stem="conv_stem bn1", unit="blocks.{stage0}.{unit0}", stages=_STAGES,
            roles={"depthwise": "conv_dw bn1", "pointwise": "conv_pw bn2"},
            head="conv_head bn2", logits="classifier"),
        "pytorchcv": partial(
            by_unit, stem="features.init_block", unit="features.stage{stage}.unit{unit}",
            stages=_STAGES, roles={"depthwise": "dw_conv", "pointwise": "pw_conv"},
            logits="output"),
        "sequential": partial(
            by_unit, stem="model.0.0 model.0.1", unit="model.{index}",
            roles={"depthwise": "0 1", "pointwise": "3 4"}, logits="fc"),
        "keras": own,
    },
)
