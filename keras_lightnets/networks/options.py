"""The arguments that all five builders share, defined, checked and documented once."""

from __future__ import annotations

import dataclasses
import inspect
import os
from collections.abc import Callable, Iterable, Sequence
from numbers import Integral
from typing import TYPE_CHECKING, Any, Literal, TypedDict

import numpy as np

from keras_lightnets.catalogue.family import MINIMUM_SIZE

if TYPE_CHECKING:
    import keras

OUTPUT_STRIDES = (8, 16, 32)
POOLINGS = (None, "avg", "max")
PADDINGS = ("symmetric", "same")


class NetworkOptions(TypedDict, total=False):
    """Arguments that all five networks share, each of them optional.

    Attributes:
        include_top: Whether to end in the classifier. Without it any image size will
            do. Default: True.
        weights: None for random weights, a weight file (`.keras`, `.weights.h5`,
            `.safetensors`, `.pth`, `.tf2.h5`, `.h5`), `"imagenet"`, or the tag of a published
            file (`keras_lightnets.model_info(name)` lists them). Default: None.
        input_tensor: Keras tensor to use instead of a new input; its shape then counts, not
            `input_shape`. Default: None.
        pooling: Without the classifier: None (feature maps), `"avg"` or `"max"`
            (global). Default: None.
        classes: Number of classes, or their names in the order of the output, which the model
            then knows (`decode_predictions`, exports). With pretrained weights, a number that is
            not the file's loads everything but the classifier. Default: 1000.
        classifier_activation: Activation behind the logits; None ends the model at the
            logits. Default: `"softmax"`.
        name: Name of the model. Default: the family's.
        features_only: Return a model whose output is a dict of feature maps, named by
            their stride in pixels: `{"stride_4": ..., "stride_8": ..., ...}`. Default:
            False.
        small_input: Stem with stride 1 and without pooling, for images of 32 to 64
            pixels. Default: False.
        output_stride: Stride of the deepest feature map: 32, 16 or 8. Below the
            network's own stride, later strides become dilations (atrous convolution,
            for segmentation). Default: 32 (SqueezeNet: 16).
        bn_momentum: Momentum m of the moving statistics: `moving = m * moving + (1 - m) * batch`.
            Default: 0.9.
        bn_epsilon: Added to the variance in batch normalization. Default: that of the
            weights, or 1e-5.
        dropout_rate: Dropout before the classifier. Default: 0 (MobileNet v2: 0.2,
            SqueezeNet: 0.5).
        include_preprocessing: Whether the model takes RGB values 0..255 (uint8 or
            float) and normalizes them itself. Otherwise it takes normalized images.
            Default: False.
        mean: Mean of red, green and blue on the scale 0..255; default: that of the
            weights, or of ImageNet.
        std: Standard deviation of red, green and blue on the scale 0..255; default
            likewise.
    """

    include_top: bool
    weights: str | os.PathLike[str] | None
    input_tensor: keras.KerasTensor | None
    pooling: Literal["avg", "max"] | None
    classes: int | list[str] | tuple[str, ...]
    classifier_activation: str | None
    name: str | None
    features_only: bool
    small_input: bool
    output_stride: Literal[8, 16, 32]
    bn_momentum: float
    bn_epsilon: float | None
    dropout_rate: float
    include_preprocessing: bool
    mean: Sequence[float] | None
    std: Sequence[float] | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Checked values of `NetworkOptions`; `class_names` are those that `classes` gave, if any."""

    include_top: bool = True
    weights: Any = None
    input_tensor: Any = None
    pooling: str | None = None
    classes: int = 1000
    classifier_activation: str | None = "softmax"
    name: str | None = None
    features_only: bool = False
    small_input: bool = False
    output_stride: int = 32
    bn_momentum: float = 0.9
    bn_epsilon: float | None = None
    dropout_rate: float = 0.0
    include_preprocessing: bool = False
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    class_names: Sequence[str] | None = None

    def __post_init__(self) -> None:
        check_choice("output_stride", self.output_stride, OUTPUT_STRIDES)
        check_choice("pooling", self.pooling, POOLINGS)
        if isinstance(self.classes, bool) or not isinstance(self.classes, int) or self.classes < 1:
            raise ValueError(
                f"`classes` must be a positive integer or a list of names. Received: "
                f"{self.classes!r}"
            )
        if self.class_names and len(set(self.class_names)) < self.classes:
            raise ValueError(f"`classes` has a name twice. Received: {list(self.class_names)}")
        if not (_is_number(self.dropout_rate) and 0 <= self.dropout_rate < 1):
            raise ValueError(f"`dropout_rate` must be in [0, 1). Received: {self.dropout_rate!r}")
        if not (_is_number(self.bn_momentum) and 0 <= self.bn_momentum <= 1):
            raise ValueError(f"`bn_momentum` must be in [0, 1]. Received: {self.bn_momentum!r}")
        if self.bn_epsilon is not None and not (
            _is_number(self.bn_epsilon) and self.bn_epsilon > 0
        ):
            raise ValueError(f"`bn_epsilon` must be positive. Received: {self.bn_epsilon!r}")
        for name in ("mean", "std"):
            values = getattr(self, name)
            if values is None:
                continue
            if not self.include_preprocessing:
                raise ValueError(f"`{name}` needs `include_preprocessing=True`.")
            listed = list(values) if isinstance(values, Iterable) else []
            if len(listed) != 3 or not all(map(_is_number, listed)):
                raise ValueError(f"`{name}` must have three values. Received: {values!r}")
        if self.std is not None and min(self.std) <= 0:
            raise ValueError(f"`std` must be positive. Received: {self.std!r}")


def shared_options(given: NetworkOptions, **family: Any) -> Options:
    """Checks what a builder was given.

    Args:
        given: The shared arguments.
        **family: Defaults in which this network differs from the others.
    """
    # NumPy's numbers and arrays, such as `np.unique(labels)`, become Python's: notes are JSON.
    values = {
        name: value.tolist() if isinstance(value, np.generic | np.ndarray) else value
        for name, value in {**family, **given}.items()
    }
    unknown = values.keys() - NetworkOptions.__annotations__.keys()
    if unknown:
        raise TypeError(f"A network got an unexpected keyword argument {min(unknown)!r}")
    names = values.get("classes")
    if isinstance(names, list | tuple) and names and all(isinstance(n, str) for n in names):
        values |= {"classes": len(names), "class_names": names}
    return Options(**values)


def argument_names(builder: Callable[..., Any]) -> set[str]:
    """Names of all arguments of a builder, its own and the shared ones."""
    own = inspect.signature(builder).parameters
    return {*own, *NetworkOptions.__annotations__} - {"options"}


def check_choice(name: str, value: Any, choices: Sequence[Any], *, why: str = "") -> None:
    """Raises a ValueError that names the argument, the choices and what was received.

    Args:
        name: The argument.
        value: What was received.
        choices: What is allowed.
        why: Reason why these are the only choices, for the message.
    """
    # `True == 1`, so compare types as well: `groups=True` is a mistake.
    if not any(
        value == choice and isinstance(value, bool) == isinstance(choice, bool)
        for choice in choices
    ):
        listed = ", ".join(repr(choice) for choice in choices)
        reason = f" ({why})" if why else ""
        raise ValueError(f"`{name}` must be one of {listed}{reason}. Received: {value!r}")


def check_alpha(alpha: float) -> None:
    """Raises a ValueError unless `alpha` is a positive number."""
    if not _is_number(alpha) or not 0 < alpha < 100:
        raise ValueError(f"`alpha` must be a positive number. Received: {alpha!r}")


def check_input_shape(input_shape: Sequence[int | None]) -> tuple[int | None, int | None, int]:
    """Returns `(height, width, 3)` or raises a ValueError."""
    shape = tuple(input_shape) if isinstance(input_shape, Iterable) else ()
    if len(shape) != 3 or not all(size is None or isinstance(size, Integral) for size in shape):
        raise ValueError(
            "`input_shape` must be (height, width, channels); height and width may be None. "
            f"Received: {input_shape!r}"
        )
    height, width, channels = (None if size is None else int(size) for size in shape)
    if channels is None or channels < 1:
        raise ValueError(
            f"`input_shape` must end in the number of channels. Received: {input_shape!r}"
        )
    for size in (height, width):
        if size is not None and size < MINIMUM_SIZE:
            raise ValueError(
                f"`input_shape` must be at least {MINIMUM_SIZE} pixels high and wide. "
                f"Received: {input_shape!r}"
            )
    return height, width, channels


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
