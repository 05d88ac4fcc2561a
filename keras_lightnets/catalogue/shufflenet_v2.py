"""What is known about ShuffleNet v2."""

from __future__ import annotations

from functools import partial

from keras_lightnets.catalogue.family import Family, Paper, Row
from keras_lightnets.catalogue.published import by_network, osmr, torchvision
from keras_lightnets.catalogue.tensor_names import by_unit

# fmt: off
# Name, arguments, parameters (trainable, all), multiply-accumulates, the paper's top-1.
_ROWS = (
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
_TORCHVISION = (
    ("shufflenet_v2_x0_5", "torchvision", "shufflenetv2_x0.5-f707e7126e.pth", 256, 60.552, 81.746),
    ("shufflenet_v2_x1_0", "torchvision", "shufflenetv2_x1-5666bf0f80.pth", 256, 69.362, 88.316),
    ("shufflenet_v2_x1_5", "torchvision", "shufflenetv2_x1_5-3c479a10.pth", 232, 72.996, 91.086),
    ("shufflenet_v2_x2_0", "torchvision", "shufflenetv2_x2_0-8be3c8ee.pth", 232, 76.230, 93.006),
)
_OSMR = (
    ("shufflenet_v2_ceil_x0_5", "shufflenetv2_wd2", "1843", "v0.0.422",
     "d492d721d3167cd64ab1c2a1f33f3ca5f6dec7c3", 59.25, 81.57),
    ("shufflenet_v2_ceil_x1_0", "shufflenetv2_w1", "1135", "v0.0.422",
     "dae13ee9f24c89cd1ea12a58fb90b967223c8e2e", 69.00, 88.65),
    ("shufflenet_v2_ceil_x1_5_head1553", "shufflenetv2_w3d2", "0923", "v0.0.422",
     "ea615baab737fca3a3d90303844b4a2922ea2c62", 72.59, 90.77),
    ("shufflenet_v2_ceil_x2_0_head2153", "shufflenetv2_w2", "0821", "v0.0.422",
     "6ccac868f595e4618ca7e5f67f7c113f021ffad4", 74.17, 91.79),
    ("shufflenet_v2_x0_5", "shufflenetv2b_wd2", "1784", "v0.0.422",
     "d5644a6ab8fcb6ff04f30a2eb862ebd2de92b94c", 60.20, 82.16),
    ("shufflenet_v2_keep_x1_0", "shufflenetv2b_w1", "1104", "v0.0.422",
     "b7db0ca041e996ee76fec7f126dc39c4e5120e82", 69.64, 88.96),
    ("shufflenet_v2_keep_x1_5_head1553", "shufflenetv2b_w3d2", "0877", "v0.0.422",
     "9efb13f7d795d63c8fbee736622b9f1940dd5dd5", 73.10, 91.23),
    ("shufflenet_v2_keep_x2_0_head2153", "shufflenetv2b_w2", "0808", "v0.0.422",
     "ba5c7ddcd8f7da3719f5d1de71d5fd30130d59d9", 74.76, 91.92),
)
# By the pooling of the stem, which tells osmr's `shufflenetv2b` from his `shufflenetv2`.
_ROLES = {
    "symmetric": {"pointwise1": "conv1", "depthwise": "dconv", "pointwise2": "conv2",
                  "shortcut_depthwise": "shortcut_dconv", "shortcut_pointwise": "shortcut_conv"},
    "ceil": {"pointwise1": "compress_conv1 compress_bn1", "depthwise": "dw_conv2 dw_bn2",
             "pointwise2": "expand_conv3 expand_bn3", "shortcut_depthwise": "dw_conv4 dw_bn4",
             "shortcut_pointwise": "expand_conv5 expand_bn5"},
}
FAMILY = Family(
    name="shufflenet_v2",
    usual="shufflenet_v2_x1_0",
    builder="keras_lightnets:ShuffleNetV2",
    paper=Paper("ShuffleNet V2: Practical Guidelines for Efficient CNN Architecture Design",
                "https://arxiv.org/abs/1807.11164"),
    defaults={"alpha": 1.0, "depth": None, "downsample": "half", "se": False, "se_reduction": 1,
              "residual": False, "head_filters": None, "stem_pool": "symmetric"},
    rows=tuple(map(Row._make, _ROWS)),
    weights=by_network((torchvision, _TORCHVISION), (osmr, _OSMR)),
    tensor_names={
        "torchvision": partial(
            by_unit, stem="conv1.0 conv1.1", unit="stage{stage}.{unit0}",
            roles={"shortcut_depthwise": "branch1.0 branch1.1",
                   "shortcut_pointwise": "branch1.2 branch1.3",
                   "pointwise1": "branch2.0 branch2.1", "depthwise": "branch2.3 branch2.4",
                   "pointwise2": "branch2.5 branch2.6"},
            head="conv5.0 conv5.1", logits="fc"),
        "pytorchcv": lambda layers, variant: by_unit(
            layers, variant, stem="features.init_block.conv",
            unit="features.stage{stage0}.unit{unit}", roles=_ROLES[variant["stem_pool"]],
            head="features.final_block", logits="output"),
    },
)
