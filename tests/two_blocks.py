"""A network from outside: its builder, its catalogue, and the command that knows it.

python two_blocks.py train --model two_blocks --dataset digits --out runs/1
"""

import sys

from keras_lightnets.catalogue import published
from keras_lightnets.catalogue.family import Family, Paper, Row
from keras_lightnets.catalogue.registry import register


def TwoBlocks(input_shape=(224, 224, 3), *, width=8, **options):
    # Not at the top: `list` and `info` need the catalogue alone, and no TensorFlow.
    from keras_lightnets.networks.blocks import conv_bn
    from keras_lightnets.networks.network import Network
    from keras_lightnets.networks.options import shared_options

    net = Network(FAMILY, {"width": width}, input_shape, shared_options(options))
    x = net.x
    for number in (1, 2):
        strides, _ = net.strides.next(2)
        x = conv_bn(x, number * width, 3, strides=strides, norm=net.norm, name=f"block{number}")
        net.tap(x)
    return net.finish(x)


_NAMES = {"block1_conv": "conv1", "block1_bn": "bn1", "block2_conv": "conv2", "block2_bn": "bn2"}

FAMILY = Family(
    name="two_blocks",
    usual="two_blocks_w8",
    builder="two_blocks:TwoBlocks",
    paper=Paper("Two blocks are enough", "https://example.com/two_blocks"),
    defaults={"width": 8},
    rows=(
        Row("two_blocks_w8", {}, 18_416, 18_464, 6_338_176, None),
        Row("two_blocks_w16", {"width": 16}, 38_136, 38_232, 19_901_696, 0.5),
    ),
    weights=published.by_network(
        (published.torchvision, [("two_blocks_w16", "first", "two-01234567.pth", 256, 1.0, 2.0)]),
    ),
    tensor_names={"timm": lambda layers, variant: {**_NAMES, "logits": "fc"}},
    without_bias={"timm": {"logits"}},
)

if __name__ == "__main__":
    from lightnets.cli import main

    register(FAMILY)
    sys.exit(main())
