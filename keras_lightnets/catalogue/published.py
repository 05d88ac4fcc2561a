"""Published ImageNet weights: a function a publisher, from a line of its table to all facts.

No file is part of this package. Licences: those named are of the code that came with a file.
Nobody grants more for weights than that; torchvision's own notice says that terms of the training
data may apply.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any, Literal

IMAGENET = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
HALF = (127.5, 127.5, 127.5), (127.5, 127.5, 127.5)


@dataclasses.dataclass(frozen=True)
class WeightsRow:
    """One published file, with what its numbers were measured with."""

    tag: str
    file: str  # its name in the cache
    url: str
    digest: str | None  # "<algorithm>:<first hex digits>", None: its publisher names none
    source: str  # whose tensor names and layouts, see `convert`
    top1: float  # percent, on ImageNet's validation set, as its publisher says
    top5: float | None
    licence: str
    mean: tuple[float, float, float] = IMAGENET[0]  # of RGB, 0..255
    std: tuple[float, float, float] = IMAGENET[1]
    resize_shorter: int = 256  # pixels, then the centre 224x224
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    antialias: bool = True
    padding: str = "symmetric"
    bn_epsilon: float = 1e-5


def by_network(
    *tables: tuple[Callable[..., WeightsRow], Iterable[tuple]],
) -> dict[str, tuple[WeightsRow, ...]]:
    """Rows of every network, the most accurate one first.

    Args:
        *tables: A publisher's function, and lines of a network's name and what it takes.
    """
    rows: dict[str, list[WeightsRow]] = {}
    for make, table in tables:
        for network, *columns in table:
            rows.setdefault(network, []).append(make(*columns))
    return {name: tuple(sorted(group, key=lambda row: -row.top1)) for name, group in rows.items()}


def torchvision(tag: str, file: str, resize: int, top1: float, top5: float) -> WeightsRow:
    """The hex digits in a file's name begin its SHA-256."""
    url = f"https://download.pytorch.org/models/{file}"
    digest = _digest_in_name(file)
    return WeightsRow(
        tag, file, url, digest, "torchvision", top1, top5, "BSD-3-Clause", resize_shorter=resize
    )


def timm(
    tag: str, file: str, resize: int, top1: float, top5: float, statistics: tuple = IMAGENET
) -> WeightsRow:
    """Files end in the beginning of their SHA-256; repositories have no checksum."""
    more: dict[str, Any] = {"resize_shorter": resize, "interpolation": "bicubic"}
    if file.endswith(".pth"):
        base = "https://github.com/huggingface/pytorch-image-models/releases/download"
        url, digest = f"{base}/v0.1-weights/{file}", _digest_in_name(file)
    else:
        url, digest = f"https://huggingface.co/timm/{file}/resolve/main/model.safetensors", None
        file = f"{file}.safetensors"
    return WeightsRow(tag, file, url, digest, "timm", top1, top5, "Apache-2.0", *statistics, **more)


def dli14(file: str, top1: float) -> WeightsRow:
    """The hex digits in a file's name begin its SHA-256."""
    url = f"https://github.com/d-li14/mobilenetv2.pytorch/raw/master/pretrained/{file}"
    return WeightsRow(
        "d-li14", file, url, _digest_in_name(file), "d-li14", top1, None, "Apache-2.0"
    )


def keras(file: str, top1: float, top5: float) -> WeightsRow:
    """`file` is for 224 pixels, the accuracy that of the checkpoint it was made from.

    There is one for every size that the authors trained at, which the number in its name tells.
    """
    url = f"https://storage.googleapis.com/tensorflow/keras-applications/{file}"
    name = file.partition("/")[2]
    more: dict[str, Any] = {"padding": "same", "bn_epsilon": 1e-3}
    return WeightsRow("keras", name, url, None, "keras", top1, top5, "Apache-2.0", *HALF, **more)


def osmr(name: str, digits: str, release: str, sha1: str, top1: float, top5: float) -> WeightsRow:
    """The SHA-1 is of the unzipped file, the accuracy that of TensorFlow 2."""
    file = f"{name}-{digits}-{sha1[:8]}.tf2.h5.zip"
    url = f"https://github.com/osmr/imgclsmob/releases/download/{release}/{file}"
    # Measured with OpenCV's resize.
    return WeightsRow(
        "osmr", file, url, f"sha1:{sha1}", "osmr-tf2", top1, top5, "MIT", antialias=False
    )


def _digest_in_name(file: str) -> str:
    return "sha256:" + file.removesuffix(".pth").rpartition("-")[2]
