"""Reads tests/goldens: logits of other implementations, and the weights behind them."""

from __future__ import annotations

import json
import pathlib

import numpy as np

GOLDENS = pathlib.Path(__file__).with_name("goldens")
# File -> our network and the source of the tensor names.
NETWORKS = {
    "torchvision__squeezenet1_1": ("squeezenet_v1_1", "torchvision"),
    "torchvision__mobilenet_v2": ("mobilenet_v2_x1_0", "torchvision"),
    "torchvision__shufflenet_v2_x0_5": ("shufflenet_v2_x0_5", "torchvision"),
    "torchvision__shufflenet_v2_x1_0": ("shufflenet_v2_x1_0", "torchvision"),
    "timm__mobilenetv1_100": ("mobilenet_v1_relu6_x1_0", "timm"),
    "seed__mobilenet_v1": ("mobilenet_v1_x1_0", "sequential"),
    "pytorchcv__shufflenet_g3_w1": ("shufflenet_v1_g3_x1_0", "pytorchcv"),
    "pytorchcv__shufflenet_g8_w1": ("shufflenet_v1_g8_x1_0", "pytorchcv"),
    "torchvision__squeezenet1_0": ("squeezenet_v1_0", "torchvision"),
    "timm__mobilenetv1_100h": ("mobilenet_v1_relu6_head_x1_0", "timm"),
    "timm__mobilenetv2_050": ("mobilenet_v2_x0_5", "timm"),
    "pytorchcv__mobilenet_wd4": ("mobilenet_v1_x0_25", "pytorchcv"),
    "pytorchcv__mobilenetb_wd4": ("mobilenet_v1_b_x0_25", "pytorchcv"),
    "pytorchcv__mobilenetv2_wd4": ("mobilenet_v2_trunc_expand_x0_25", "pytorchcv"),
    "pytorchcv__mobilenetv2b_w1": ("mobilenet_v2_x1_0", "pytorchcv"),
    "pytorchcv__shufflenetv2_wd2": ("shufflenet_v2_ceil_x0_5", "pytorchcv"),
    "pytorchcv__shufflenetv2b_w1": ("shufflenet_v2_keep_x1_0", "pytorchcv"),
    "pytorchcv__squeezeresnet_v1_0": ("squeezenet_v1_0_simple_bypass", "pytorchcv"),
}


def read(file: str) -> tuple[dict[str, np.ndarray], list[tuple[np.ndarray, np.ndarray]]]:
    """Returns the state dict and pairs of (NHWC images, logits)."""
    with np.load(GOLDENS / f"{file}.npz") as npz:
        spec = json.loads(bytes(npz["spec"]))
        seed = spec["seed"]
        pairs = []
        for key in npz.files:
            if key != "spec":
                height, width = (int(n) for n in key.removeprefix("logits_").split("x"))
                images = image(seed, height, width).transpose(0, 2, 3, 1)
                pairs.append((images, npz[key]))
    return state_dict(spec["tensors"], seed), pairs


def image(seed: int, height: int, width: int) -> np.ndarray:
    """Two NCHW images."""
    rng = np.random.default_rng([seed, height, width])
    return rng.normal(size=(2, 3, height, width)).astype("float32")


def state_dict(tensors: list[tuple[str, list[int]]], seed: int = 7) -> dict[str, np.ndarray]:
    """Weights that NumPy alone can rebuild (goldens/README.md has the rule)."""
    return {
        name: _values(np.random.default_rng([seed, index]), name, shape).astype("float32")
        for index, (name, shape) in enumerate(tensors)
    }


def _values(rng: np.random.Generator, name: str, shape: list[int]) -> np.ndarray:
    part = name.rpartition(".")[2]
    if part == "running_mean":
        return rng.normal(0, 0.1, shape)
    if part == "bias":
        return rng.normal(0, 0.05, shape)
    if part == "running_var" or len(shape) == 1:
        return rng.uniform(0.5, 1.5, shape)
    return rng.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape)
