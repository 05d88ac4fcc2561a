"""Named configurations: the papers, their best reproductions, and defaults for small data.

A recipe is data: what differs from the defaults of `lightnets.config.keys`, where that comes
from, and in what it departs from there. `training/README.md` logs what each gave. All sizes are for
ImageNet-1k (1,281,167 images) unless said; where a source counts steps, epochs are rounded.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class Recipe:
    """One row.

    Attributes:
        config: Keys of `lightnets.config.keys.Config`, nested, that differ from the defaults.
        source: Who trained like this, with the place where it can be read.
        note: What is ours: gaps of the source that were filled, and known differences.
        rates: Learning rates of networks that need another, by a pattern for their names.
        families: Beginnings of the names of networks that ImageNet trains like this, unless told.
    """

    config: Mapping[str, Any]
    source: str
    note: str = ""
    rates: Mapping[str, float] = dataclasses.field(default_factory=dict)
    families: tuple[str, ...] = ()


# AdamW kills networks without batch norm at the rates that suit the others: all logits of
# SqueezeNet, which end in a ReLU, are then 0 for good. Measured: see `training/README.md`.
_WITHOUT_NORM = {r"squeezenet(?!.*_bn)": 0.0005}

# Random crops as PyTorch's and TF-Slim's defaults have them.
_STRONG_CROP = {"crop": "random_resized", "crop_area": (0.08, 1.0)}
# Plain momentum, as Caffe, TF-Slim and PyTorch have it unless asked.
_SGD = {"name": "sgd", "momentum": 0.9, "nesterov": False}
# PyTorch's optimizers decay all parameters unless told otherwise.
_DECAY_ALL = {"decay_norm_and_bias": True, "decay_depthwise": True}
_SLIM_RMSPROP = {
    "name": "rmsprop",
    "rho": 0.9,
    "momentum": 0.9,
    "epsilon": 1.0,
    "weight_decay": 4e-5,
    "decay_depthwise": False,
}

# torchvision's second generation of ImageNet weights.
_TORCHVISION_NEW = {
    "data": {
        **_STRONG_CROP,
        "resize_shorter": 232,
        "auto_augment": "trivialaugment",
        "mixup": 0.2,
        "cutmix": 1.0,
        "random_erasing": 0.1,
    },
    "optimizer": {
        **_SGD,
        "learning_rate": 0.5,
        "weight_decay": 2e-5,
        "schedule": "cosine",
        "warmup_epochs": 5,
        "warmup_start": 0.01,
    },
    "train": {"epochs": 600, "batch_size": 1024, "label_smoothing": 0.1},
}
_TORCHVISION_NEW_NOTE = (
    "They train on 176-pixel crops and repeat each image four times per epoch; here crops have "
    "the evaluation's 224 pixels and images are not repeated. Their classifier bias is decayed."
)

# ShuffleNet v1 and v2 share their paper settings.
_SHUFFLENET = {
    "model": {"name": "shufflenet_v1"},
    "data": {"crop": "random_resized", "crop_area": (0.49, 1.0)},
    "optimizer": {**_SGD, "learning_rate": 0.5, "weight_decay": 4e-5, "schedule": "linear"},
    "train": {"epochs": 240, "batch_size": 1024},
}

RECIPES: dict[str, Recipe] = {
    "squeezenet-paper": Recipe(
        {
            "model": {"name": "squeezenet_v1_0", "image_size": 227, "dropout_rate": 0.5},
            "data": {
                "resize_shorter": 256,
                "crop_area": (0.786, 0.786),
                "crop_aspect": (1.0, 1.0),
                "flip": False,
            },
            "optimizer": {
                **_SGD,
                "learning_rate": 0.04,
                "weight_decay": 2e-4,
                "decay_norm_and_bias": True,
                "schedule": "linear",
            },
            "train": {"epochs": 68, "batch_size": 512},
        },
        "arXiv 1602.07360, section 3, and the solver of forresti/SqueezeNet v1.1: 170,000 steps",
        "Caffe crops 227 of 256 pixels at random: a crop of fixed area here.",
        families=("squeezenet",),
    ),
    "squeezenet-torchvision": Recipe(
        {
            "model": {"name": "squeezenet_v1_1", "dropout_rate": 0.5},
            "data": _STRONG_CROP,
            "optimizer": {
                **_SGD,
                **_DECAY_ALL,
                "learning_rate": 0.01,
                "weight_decay": 2e-4,
                "schedule": "step",
                "decay_rate": 0.1,
                "decay_epochs": 30,
            },
            "train": {"epochs": 90, "batch_size": 128},
        },
        "pytorch/vision pull request 49 (58.2 % for v1.1)",
        "The schedule is that of PyTorch's ImageNet example, which the pull request seems to use.",
    ),
    "mobilenet_v1-paper": Recipe(
        {
            "model": {"name": "mobilenet_v1", "bn_momentum": 0.99},
            "data": {"crop": "random_resized", "crop_area": (0.35, 1.0)},
            "optimizer": {
                **_SLIM_RMSPROP,
                "learning_rate": 0.045,
                "global_clipnorm": 2.0,
                "schedule": "step",
                "decay_rate": 0.94,
                "decay_epochs": 2,
            },
            "train": {"epochs": 100, "batch_size": 96},
        },
        "arXiv 1704.04861, section 3.2: RMSprop, no label smoothing, mild crops, little or no "
        "decay of depthwise filters; rate, decay and clipping of Inception v3 (arXiv 1512.00567, "
        "section 8), to which it refers",
        "The paper gives no numbers of its own and trained with asynchronous replicas; batch, "
        "crop area and statistics' momentum are ours.",
        families=("mobilenet_v1",),
    ),
    "mobilenet_v1-slim": Recipe(
        {
            "model": {
                "name": "mobilenet_v1",
                "bn_momentum": 0.9997,
                "args": {"bn_epsilon": 1e-3},
                "dropout_rate": 0.001,
            },
            "data": {"crop": "random_resized", "crop_area": (0.05, 1.0), "color_jitter": 0.3},
            "optimizer": {
                "name": "sgd",
                "momentum": 0.0,
                "nesterov": False,
                "learning_rate": 0.045,
                "weight_decay": 4e-5,
                "decay_depthwise": False,
                "schedule": "step",
                "decay_rate": 0.94,
                "decay_epochs": 2.5,
            },
            "train": {"epochs": 200, "batch_size": 64},
        },
        "tensorflow/models research/slim/nets/mobilenet_v1_train.py, Inception preprocessing",
        "The script runs until stopped: 200 epochs are ours.",
    ),
    "mobilenet_v2-paper": Recipe(
        {
            "model": {"name": "mobilenet_v2", "bn_momentum": 0.99, "dropout_rate": 0.2},
            "data": _STRONG_CROP,
            "optimizer": {
                **_SLIM_RMSPROP,
                "learning_rate": 0.045,
                "schedule": "step",
                "decay_rate": 0.98,
                "decay_epochs": 1,
            },
            "train": {"epochs": 300, "batch_size": 96},
        },
        "arXiv 1801.04381, section 6.1",
        "The paper used 16 asynchronous replicas of batch 96 and does not say for how long.",
    ),
    "mobilenet_v2-slim": Recipe(
        {
            "model": {
                "name": "mobilenet_v2",
                "bn_momentum": 0.997,
                "args": {"bn_epsilon": 1e-3},
                "dropout_rate": 0.2,
            },
            "data": {"crop": "random_resized", "crop_area": (0.05, 1.0), "color_jitter": 0.3},
            "optimizer": {
                **_SLIM_RMSPROP,
                "learning_rate": 0.045,
                "schedule": "step",
                "decay_rate": 0.98,
                "decay_epochs": 2.5,
            },
            "train": {"epochs": 412, "batch_size": 96, "label_smoothing": 0.1, "ema": 0.9999},
        },
        "tensorflow/models research/slim/nets/mobilenet (README, 72.0 %): 5.5 million steps on "
        "one GPU",
        "On N GPUs: learning_rate times N, decay_epochs divided by N.",
    ),
    "mobilenet_v2-torchvision": Recipe(
        {
            "model": {"name": "mobilenet_v2", "dropout_rate": 0.2},
            "data": _STRONG_CROP,
            "optimizer": {
                **_SGD,
                **_DECAY_ALL,
                "learning_rate": 0.045,
                "weight_decay": 4e-5,
                "schedule": "step",
                "decay_rate": 0.98,
                "decay_epochs": 1,
            },
            "train": {"epochs": 300, "batch_size": 256},
        },
        "pytorch/vision references/classification/README.md (71.88 %)",
        families=("mobilenet_v2",),
    ),
    "mobilenet_v2-torchvision-v2": Recipe(
        {
            **_TORCHVISION_NEW,
            "model": {"name": "mobilenet_v2", "dropout_rate": 0.2},
            "train": {**_TORCHVISION_NEW["train"], "ema": 0.999966},
        },
        'pytorch/vision pull request 5560 and its "new training recipe" (72.15 %)',
        _TORCHVISION_NEW_NOTE + " Their average of weights moves every 32 steps; the decay per "
        "step here is the equal one.",
    ),
    "shufflenet-paper": Recipe(
        _SHUFFLENET,
        "arXiv 1707.01083, section 4, and 1807.11164, section 4: 300,000 steps",
        '"Slightly less aggressive scale augmentation" is not specified; the area is '
        "tensorpack's, which matches the paper. Norm and biases are not decayed, as in the "
        "authors' release.",
        families=("shufflenet_v1", "shufflenet_v2"),
    ),
    "shufflenet_v1-megvii": Recipe(
        {
            "model": {"name": "shufflenet_v1"},
            "data": {**_STRONG_CROP, "color_jitter": 0.4},
            "optimizer": _SHUFFLENET["optimizer"],
            "train": {
                **_SHUFFLENET["train"],
                "label_smoothing": 0.1,
                "reestimate_bn_batches": 1250,
            },
        },
        "megvii-model/ShuffleNet-Series ShuffleNetV1/train.py (67.8 % at 1x, three groups)",
        "They feed BGR without normalization.",
    ),
    "shufflenet_v2-torchvision": Recipe(
        {**_TORCHVISION_NEW, "model": {"name": "shufflenet_v2_x1_5"}},
        "pytorch/vision pull request 5906, for 1.5x and 2x (73.0 and 76.2 %)",
        _TORCHVISION_NEW_NOTE,
    ),
    "finetune": Recipe(
        {
            "model": {"head_warmup_epochs": 1},
            "data": {"crop": "random_resized", "crop_area": (0.35, 1.0), "color_jitter": 0.2},
            "optimizer": {
                "name": "adamw",
                "learning_rate": 0.001,
                "weight_decay": 0.05,
                "schedule": "cosine",
                "warmup_epochs": 1,
            },
            "train": {"epochs": 20, "batch_size": 64, "label_smoothing": 0.1},
        },
        "Ours",
        rates=_WITHOUT_NORM,
    ),
    "scratch-small": Recipe(
        {
            "model": {"image_size": 96},
            "data": {
                "crop": "random_resized",
                "crop_area": (0.35, 1.0),
                "auto_augment": "trivialaugment",
                "random_erasing": 0.1,
            },
            "optimizer": {
                "name": "adamw",
                "learning_rate": 0.004,
                "weight_decay": 0.05,
                "schedule": "cosine",
                "warmup_epochs": 5,
            },
            "train": {"epochs": 100, "batch_size": 64, "label_smoothing": 0.1},
        },
        "Ours",
        rates=_WITHOUT_NORM,
    ),
    "digits": Recipe(
        {
            "model": {
                "name": "shufflenet_v1",
                "image_size": 32,
                "small_input": True,
            },
            "data": {
                "dataset": "digits",
                "resize_shorter": 32,
                "crop": "shift",
                "shift": 0.06,
                "flip": False,
            },
            "optimizer": {
                "name": "adamw",
                "learning_rate": 0.004,
                "weight_decay": 0.05,
                "schedule": "cosine",
                "warmup_epochs": 1,
            },
            "train": {"epochs": 10, "batch_size": 64, "label_smoothing": 0.1},
        },
        "Ours",
        rates=_WITHOUT_NORM,
    ),
}
