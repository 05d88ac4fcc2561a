"""Published ImageNet weights that fit a registered network. No file is part of this package.

Licences: those named are of the code that came with a file. Nobody grants more for weights
than that; torchvision's own notice says that terms of the training data may apply.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

_IMAGENET = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
_HALF = (127.5, 127.5, 127.5), (127.5, 127.5, 127.5)


class WeightsRow(NamedTuple):
    """One published file, with what its numbers were measured with."""

    tag: str
    file: str  # its name in the cache
    url: str
    digest: str | None  # "<algorithm>:<first hex digits>", None: its publisher names none
    source: str  # whose tensor names and layouts, see `convert`
    top1: float  # percent, on ImageNet's validation set, as its publisher says
    top5: float | None
    licence: str
    mean: tuple[float, float, float] = _IMAGENET[0]  # of RGB, 0..255
    std: tuple[float, float, float] = _IMAGENET[1]
    resize_shorter: int = 256  # pixels, then the centre 224x224
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    antialias: bool = True
    padding: str = "symmetric"
    bn_epsilon: float = 1e-5


# fmt: off
# Network, tag, file, resize, top-1, top-5. The hex digits in a name begin its SHA-256.
_TORCHVISION = (
    ("squeezenet_v1_0", "torchvision", "squeezenet1_0-b66bff10.pth", 256, 58.092, 80.420),
    ("squeezenet_v1_1", "torchvision", "squeezenet1_1-b8a52dc0.pth", 256, 58.178, 80.624),
    ("mobilenet_v2_x1_0", "torchvision-v1", "mobilenet_v2-b0353104.pth", 256, 71.878, 90.286),
    ("mobilenet_v2_x1_0", "torchvision-v2", "mobilenet_v2-7ebf99e0.pth", 232, 72.154, 90.822),
    ("shufflenet_v2_x0_5", "torchvision", "shufflenetv2_x0.5-f707e7126e.pth", 256, 60.552, 81.746),
    ("shufflenet_v2_x1_0", "torchvision", "shufflenetv2_x1-5666bf0f80.pth", 256, 69.362, 88.316),
    ("shufflenet_v2_x1_5", "torchvision", "shufflenetv2_x1_5-3c479a10.pth", 232, 72.996, 91.086),
    ("shufflenet_v2_x2_0", "torchvision", "shufflenetv2_x2_0-8be3c8ee.pth", 232, 76.230, 93.006),
)
# Network, tag, file or repository, mean and deviation, resize, top-1, top-5. Files with a
# name end in the beginning of their SHA-256; the repositories publish no checksum.
_TIMM = (
    ("mobilenet_v1_relu6_x1_0", "timm-ra4", "mobilenetv1_100.ra4_e3600_r224_in1k", _HALF, 256,
     75.388, 92.310),
    ("mobilenet_v1_relu6_head_x1_0", "timm-ra4", "mobilenetv1_100h.ra4_e3600_r224_in1k", _HALF,
     256, 75.664, 92.522),
    ("mobilenet_v1_relu6_x1_25", "timm-ra4", "mobilenetv1_125.ra4_e3600_r224_in1k", _HALF, 248,
     76.920, 93.232),
    ("mobilenet_v2_x0_5", "timm", "mobilenetv2_050-3d30d450.pth", _IMAGENET, 256, 65.928, 86.114),
    ("mobilenet_v2_x1_0", "timm", "mobilenetv2_100_ra-b33bc2c4.pth", _IMAGENET, 256, 72.910, 91.0),
    ("mobilenet_v2_x1_4", "timm", "mobilenetv2_140_ra-21a4e913.pth", _IMAGENET, 256, 76.528,
     93.008),
)
# Network, file, top-1 (the hex digits begin the SHA-256).
_DLI14 = (
    ("mobilenet_v2_x0_25", "mobilenetv2_0.25-b61d2159.pth", 52.352),
    ("mobilenet_v2_x0_35", "mobilenetv2_0.35-b2e15951.pth", 60.092),
    ("mobilenet_v2_x0_5", "mobilenetv2_0.5-eaa6f9ad.pth", 64.592),
    ("mobilenet_v2_x0_75", "mobilenetv2_0.75-dace9791.pth", 69.952),
    ("mobilenet_v2_x1_0", "mobilenetv2-c5e733a8.pth", 72.834),
)
# Network, file for 224 pixels, top-1, top-5 of the checkpoint it was made from. There is one for
# every size that the authors trained at, which the number in its name tells.
_KERAS_V2 = "mobilenet_v2/mobilenet_v2_weights_tf_dim_ordering_tf_kernels"
_KERAS = (
    ("mobilenet_v1_relu6_x0_25", "mobilenet/mobilenet_2_5_224_tf.h5", 50.6, 75.0),
    ("mobilenet_v1_relu6_x0_5", "mobilenet/mobilenet_5_0_224_tf.h5", 64.0, 85.4),
    ("mobilenet_v1_relu6_x0_75", "mobilenet/mobilenet_7_5_224_tf.h5", 68.4, 88.2),
    ("mobilenet_v1_relu6_x1_0", "mobilenet/mobilenet_1_0_224_tf.h5", 70.7, 89.5),
    ("mobilenet_v2_x0_35", f"{_KERAS_V2}_0.35_224.h5", 60.3, 82.9),
    ("mobilenet_v2_x0_5", f"{_KERAS_V2}_0.5_224.h5", 65.4, 86.4),
    ("mobilenet_v2_x0_75", f"{_KERAS_V2}_0.75_224.h5", 69.8, 89.6),
    ("mobilenet_v2_x1_0", f"{_KERAS_V2}_1.0_224.h5", 71.8, 91.0),
    ("mobilenet_v2_x1_3", f"{_KERAS_V2}_1.3_224.h5", 74.4, 92.1),
    ("mobilenet_v2_x1_4", f"{_KERAS_V2}_1.4_224.h5", 75.0, 92.5),
)
# Network, osmr's name, digits in the file's name, release, SHA-1 of the unzipped file,
# top-1, top-5 (of the TensorFlow 2 files).
_OSMR = (
    ("squeezenet_v1_0", "squeezenet_v1_0", "1760", "v0.0.422",
     "d13ba73265325f21eb34e782989a7269cad406c6", 60.77, 82.40),
    ("squeezenet_v1_1", "squeezenet_v1_1", "1742", "v0.0.422",
     "95b614487f1f0572bd0dba18e0fc6d63df3a6bfc", 60.88, 82.58),
    ("squeezenet_v1_0_simple_bypass", "squeezeresnet_v1_0", "1783", "v0.0.422",
     "db620d998257c84fd6d5e80bba48cc1022febda3", 60.62, 82.17),
    ("squeezenet_v1_1_simple_bypass", "squeezeresnet_v1_1", "1789", "v0.0.422",
     "13d6bc6bd85adf83ef55325443495feb07c5788f", 60.15, 82.11),
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
# fmt: on


def _torchvision(tag: str, file: str, resize: int, top1: float, top5: float) -> WeightsRow:
    return WeightsRow(
        tag,
        file,
        f"https://download.pytorch.org/models/{file}",
        _digest_in_name(file),
        "torchvision",
        top1,
        top5,
        "BSD-3-Clause",
        resize_shorter=resize,
    )


def _timm(
    tag: str, file: str, statistics: tuple, resize: int, top1: float, top5: float
) -> WeightsRow:
    if file.endswith(".pth"):
        base = "https://github.com/huggingface/pytorch-image-models/releases/download"
        url, digest = f"{base}/v0.1-weights/{file}", _digest_in_name(file)
    else:
        url, digest = f"https://huggingface.co/timm/{file}/resolve/main/model.safetensors", None
        file = f"{file}.safetensors"
    mean, std = statistics
    return WeightsRow(
        tag,
        file,
        url,
        digest,
        "timm",
        top1,
        top5,
        "Apache-2.0",
        mean=mean,
        std=std,
        resize_shorter=resize,
        interpolation="bicubic",
    )


def _dli14(file: str, top1: float) -> WeightsRow:
    return WeightsRow(
        "d-li14",
        file,
        f"https://github.com/d-li14/mobilenetv2.pytorch/raw/master/pretrained/{file}",
        _digest_in_name(file),
        "d-li14",
        top1,
        None,
        "Apache-2.0",
    )


def _osmr(name: str, digits: str, release: str, sha1: str, top1: float, top5: float) -> WeightsRow:
    file = f"{name}-{digits}-{sha1[:8]}.tf2.h5.zip"
    return WeightsRow(
        "osmr",
        file,
        f"https://github.com/osmr/imgclsmob/releases/download/{release}/{file}",
        f"sha1:{sha1}",
        "osmr-tf2",
        top1,
        top5,
        "MIT",
        antialias=False,  # OpenCV's resize
    )


def _keras(file: str, top1: float, top5: float) -> WeightsRow:
    return WeightsRow(
        "keras",
        file.partition("/")[2],
        f"https://storage.googleapis.com/tensorflow/keras-applications/{file}",
        None,
        "keras",
        top1,
        top5,
        "Apache-2.0",
        *_HALF,
        padding="same",
        bn_epsilon=1e-3,
    )


def _digest_in_name(file: str) -> str:
    return "sha256:" + file.removesuffix(".pth").rpartition("-")[2]


def _by_network() -> dict[str, tuple[WeightsRow, ...]]:
    """Rows of every network, the most accurate one first."""
    rows: dict[str, list[WeightsRow]] = {}
    tables: list[tuple[Any, Any]] = [
        (_TORCHVISION, _torchvision),
        (_TIMM, _timm),
        (_DLI14, _dli14),
        (_KERAS, _keras),
        (_OSMR, _osmr),
    ]
    for table, make in tables:
        for network, *columns in table:
            rows.setdefault(network, []).append(make(*columns))
    return {
        network: tuple(sorted(group, key=lambda row: -row.top1)) for network, group in rows.items()
    }


WEIGHTS = _by_network()
