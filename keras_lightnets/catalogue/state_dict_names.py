"""Where other implementations keep each layer: our layer name -> their module name.

One function per source and network, `(layer names, their tensor names) -> {layer: module}`.
Modules stand in the order in which the source defines them, which is also the order of the
tensors in a file.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator

Names = dict[str, str]
# Units per stage of MobileNet v1 as timm and pytorchcv count them: a stage per size.
_MOBILENET_V1_STAGES = (1, 2, 2, 6, 2)
# torchvision numbers SqueezeNet's layers, pooling included: Fire 2 to 9.
_SQUEEZENET_FEATURES = {"1.0": (3, 4, 5, 7, 8, 9, 10, 12), "1.1": (3, 4, 6, 7, 9, 10, 11, 12)}
# pytorchcv begins a new stage behind these Fire modules (where a pooling follows).
_SQUEEZENET_STAGE_ENDS = {"1.0": (4, 8), "1.1": (3, 5)}


def _torchvision_squeezenet(layers: Collection[str], version: str) -> Names:
    names = {"conv1_conv": "features.0"}
    for fire, index in enumerate(_SQUEEZENET_FEATURES[version], 2):
        for part in ("squeeze", "expand1x1", "expand3x3"):
            names[f"fire{fire}_{part}_conv"] = f"features.{index}.{part}"
    return {**names, "logits_conv": "classifier.1"}


def _torchvision_mobilenet_v2(layers: Collection[str]) -> Names:
    names = _pair("stem", "features.0.0", "features.0.1")
    index = 0
    for index, (stage, unit) in enumerate(_units(layers), 1):
        ours, theirs = f"stage{stage}_unit{unit}", f"features.{index}.conv"
        number = 0
        if f"{ours}_expand_conv" in layers:
            names |= _pair(f"{ours}_expand", f"{theirs}.0.0", f"{theirs}.0.1")
            number = 1
        names |= _pair(f"{ours}_depthwise", f"{theirs}.{number}.0", f"{theirs}.{number}.1")
        names |= _pair(f"{ours}_project", f"{theirs}.{number + 1}", f"{theirs}.{number + 2}")
    names |= _pair("head", f"features.{index + 1}.0", f"features.{index + 1}.1")
    return {**names, "logits": "classifier.1"}


def _torchvision_shufflenet_v2(layers: Collection[str]) -> Names:
    names = _pair("stem", "conv1.0", "conv1.1")
    for stage, unit in _units(layers):
        ours, theirs = f"stage{stage}_unit{unit}", f"stage{stage}.{unit - 1}"
        if unit == 1:
            left = f"{theirs}.branch1"
            names |= _pair(f"{ours}_shortcut_depthwise", f"{left}.0", f"{left}.1")
            names |= _pair(f"{ours}_shortcut_pointwise", f"{left}.2", f"{left}.3")
        right = f"{theirs}.branch2"
        names |= _pair(f"{ours}_pointwise1", f"{right}.0", f"{right}.1")
        names |= _pair(f"{ours}_depthwise", f"{right}.3", f"{right}.4")
        names |= _pair(f"{ours}_pointwise2", f"{right}.5", f"{right}.6")
    return {**names, **_pair("head", "conv5.0", "conv5.1"), "logits": "fc"}


def _timm_mobilenet_v1(layers: Collection[str]) -> Names:
    names = _pair("stem", "conv_stem", "bn1")
    for block, stage, unit in _mobilenet_v1_blocks(layers):
        theirs = f"blocks.{stage}.{unit}"
        names |= _pair(f"block{block}_depthwise", f"{theirs}.conv_dw", f"{theirs}.bn1")
        names |= _pair(f"block{block}_pointwise", f"{theirs}.conv_pw", f"{theirs}.bn2")
    if "head_conv" in layers:
        names |= _pair("head", "conv_head", "bn2")
    return {**names, "logits": "classifier"}


def _timm_mobilenet_v2(layers: Collection[str]) -> Names:
    names = _pair("stem", "conv_stem", "bn1")
    for stage, unit in _units(layers):
        ours, theirs = f"stage{stage}_unit{unit}", f"blocks.{stage - 1}.{unit - 1}"
        if f"{ours}_expand_conv" in layers:
            names |= _pair(f"{ours}_expand", f"{theirs}.conv_pw", f"{theirs}.bn1")
            names |= _pair(f"{ours}_depthwise", f"{theirs}.conv_dw", f"{theirs}.bn2")
            names |= _pair(f"{ours}_project", f"{theirs}.conv_pwl", f"{theirs}.bn3")
        else:
            names |= _pair(f"{ours}_depthwise", f"{theirs}.conv_dw", f"{theirs}.bn1")
            names |= _pair(f"{ours}_project", f"{theirs}.conv_pw", f"{theirs}.bn2")
    return {**names, **_pair("head", "conv_head", "bn2"), "logits": "classifier"}


def _dli14_mobilenet_v2(layers: Collection[str]) -> Names:
    names = _pair("stem", "features.0.0", "features.0.1")
    for index, (stage, unit) in enumerate(_units(layers), 1):
        ours, theirs = f"stage{stage}_unit{unit}", f"features.{index}.conv"
        roles = ("expand", "depthwise", "project")
        present = [role for role in roles if f"{ours}_{role}_conv" in layers]
        for number, role in enumerate(present):
            # Convolution, batch norm and (but behind the last) ReLU6 are numbered through.
            names |= _pair(f"{ours}_{role}", f"{theirs}.{3 * number}", f"{theirs}.{3 * number + 1}")
    return {**names, **_pair("head", "conv.0", "conv.1"), "logits": "classifier"}


def _sequential_mobilenet_v1(layers: Collection[str]) -> Names:
    names = _pair("stem", "model.0.0", "model.0.1")
    for block, _, _ in _mobilenet_v1_blocks(layers):
        names |= _pair(f"block{block}_depthwise", f"model.{block}.0", f"model.{block}.1")
        names |= _pair(f"block{block}_pointwise", f"model.{block}.3", f"model.{block}.4")
    return {**names, "logits": "fc"}


def _pytorchcv_squeezenet(layers: Collection[str], version: str) -> Names:
    names = {"conv1_conv": "features.init_block.conv"}
    stage, unit = 1, 0
    for fire in range(2, 10):
        unit += 1
        for part in ("squeeze", "expand1x1", "expand3x3"):
            names[f"fire{fire}_{part}_conv"] = f"features.stage{stage}.unit{unit}.{part}.conv"
        if fire in _SQUEEZENET_STAGE_ENDS[version]:
            stage, unit = stage + 1, 0
    return {**names, "logits_conv": "output.final_conv"}


def _pytorchcv_mobilenet_v1(layers: Collection[str]) -> Names:
    names = _block("stem", "features.init_block")
    for block, stage, unit in _mobilenet_v1_blocks(layers):
        theirs = f"features.stage{stage + 1}.unit{unit + 1}"
        names |= _block(f"block{block}_depthwise", f"{theirs}.dw_conv")
        names |= _block(f"block{block}_pointwise", f"{theirs}.pw_conv")
    return {**names, "logits": "output"}


def _pytorchcv_mobilenet_v2(layers: Collection[str]) -> Names:
    names = _block("stem", "features.init_block")
    their_stage = their_unit = 0
    for stage, unit in _units(layers):
        # Stages 5 and 7, which keep the size, are counted to the stage before.
        if unit == 1 and stage not in (5, 7):
            their_stage, their_unit = their_stage + 1, 0
        their_unit += 1
        ours, theirs = f"stage{stage}_unit{unit}", f"features.stage{their_stage}.unit{their_unit}"
        if f"{ours}_expand_conv" in layers:
            names |= _block(f"{ours}_expand", f"{theirs}.conv1")
        names |= _block(f"{ours}_depthwise", f"{theirs}.conv2")
        names |= _block(f"{ours}_project", f"{theirs}.conv3")
    return {**names, **_block("head", "features.final_block"), "logits": "output"}


def _pytorchcv_shufflenet_v1(layers: Collection[str]) -> Names:
    names = _block("stem", "features.init_block")
    for stage, unit in _units(layers):
        ours, theirs = f"stage{stage}_unit{unit}", f"features.stage{stage - 1}.unit{unit}"
        names |= _pair(f"{ours}_reduce", f"{theirs}.compress_conv1", f"{theirs}.compress_bn1")
        names |= _pair(f"{ours}_depthwise", f"{theirs}.dw_conv2", f"{theirs}.dw_bn2")
        names |= _pair(f"{ours}_expand", f"{theirs}.expand_conv3", f"{theirs}.expand_bn3")
    return {**names, "logits": "output"}


def _pytorchcv_shufflenet_v2(layers: Collection[str], second: bool) -> Names:
    """`second`: the layout of `shufflenetv2b` instead of `shufflenetv2`."""
    names = _block("stem", "features.init_block.conv")
    for stage, unit in _units(layers):
        ours, theirs = f"stage{stage}_unit{unit}", f"features.stage{stage - 1}.unit{unit}"
        roles = ["pointwise1", "depthwise", "pointwise2"]
        if unit == 1:
            roles += ["shortcut_depthwise", "shortcut_pointwise"]
        modules = ("conv1", "dconv", "conv2", "shortcut_dconv", "shortcut_conv")
        parts = ("compress", "dw", "expand", "dw", "expand")
        for number, role in enumerate(roles):
            if second:
                names |= _block(f"{ours}_{role}", f"{theirs}.{modules[number]}")
            else:
                part, index = parts[number], number + 1
                names |= _pair(
                    f"{ours}_{role}",
                    f"{theirs}.{part}_conv{index}",
                    f"{theirs}.{part}_bn{index}",
                )
    return {**names, **_block("head", "features.final_block"), "logits": "output"}


def _our_names(layers: Collection[str]) -> Names:
    return {name: name for name in layers}


# Source -> network -> function. The extra argument of two functions is found by `convert`.
SOURCES: dict[str, dict[str, Callable[..., Names]]] = {
    "torchvision": {
        "SqueezeNet": _torchvision_squeezenet,
        "MobileNetV2": _torchvision_mobilenet_v2,
        "ShuffleNetV2": _torchvision_shufflenet_v2,
    },
    "timm": {"MobileNetV1": _timm_mobilenet_v1, "MobileNetV2": _timm_mobilenet_v2},
    "pytorchcv": {
        "SqueezeNet": _pytorchcv_squeezenet,
        "MobileNetV1": _pytorchcv_mobilenet_v1,
        "MobileNetV2": _pytorchcv_mobilenet_v2,
        "ShuffleNetV1": _pytorchcv_shufflenet_v1,
        "ShuffleNetV2": _pytorchcv_shufflenet_v2,
    },
    "d-li14": {"MobileNetV2": _dli14_mobilenet_v2},
    "sequential": {"MobileNetV1": _sequential_mobilenet_v1},
    "keras": {"MobileNetV1": _our_names, "MobileNetV2": _our_names},
}


def _pair(ours: str, conv: str, bn: str) -> Names:
    return {f"{ours}_conv": conv, f"{ours}_bn": bn}


def _block(ours: str, theirs: str) -> Names:
    return _pair(ours, f"{theirs}.conv", f"{theirs}.bn")


def _units(layers: Collection[str]) -> list[tuple[int, int]]:
    """`(stage, unit)` of every unit, in order."""
    found = (re.match(r"stage(\d+)_unit(\d+)_", name) for name in layers)
    return sorted({(int(match[1]), int(match[2])) for match in found if match})


def _mobilenet_v1_blocks(layers: Collection[str]) -> Iterator[tuple[int, int, int]]:
    """`(block from 1, stage from 0, unit from 0)`; the shallow network has no such layout."""
    block = 0
    for stage, units in enumerate(_MOBILENET_V1_STAGES):
        for unit in range(units):
            block += 1
            yield block, stage, unit
