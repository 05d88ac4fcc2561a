"""How an image becomes the pixels that a network sees, as plain values."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

# Mean and standard deviation of RGB over ImageNet's training set, on the scale 0 to 255;
# the figures that PyTorch's weights were trained with (times 255).
IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_STD = (58.395, 57.12, 57.375)


@dataclass(frozen=True)
class EvalTransform:
    """How an image becomes the network's input outside training.

    Attributes:
        image_size: `(height, width)` of the result in pixels.
        resize_shorter: Pixels of the shorter side before the centre crop, or more where the
            image would not cover `image_size`. None: no crop, the whole image is resized to
            `image_size`, aspect ratio or not.
        interpolation: "bilinear" or "bicubic" (a = -0.5, as Pillow's).
        antialias: Whether shrinking averages over all pixels, as Pillow and torchvision do.
        background: RGB, 0 to 255, that shows through transparent pixels and fills margins.
        scale_16_bit: Whether the range of values of a file with 16 bits becomes 0 to 255.
            False: its upper 8 bits count, so that 12-bit values leave 16 levels.
        pad: Whether the whole image keeps its aspect ratio: it becomes as large as fits into
            `image_size`, with margins on both sides. Needs `resize_shorter` None.
    """

    image_size: tuple[int, int]
    resize_shorter: int | None = None
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    antialias: bool = True
    background: tuple[int, int, int] = (255, 255, 255)
    scale_16_bit: bool = False
    pad: bool = False

    def __post_init__(self):
        try:
            height, width = map(int, self.image_size)
        except (TypeError, ValueError):
            raise ValueError(
                f"`image_size` must be (height, width). Received: {self.image_size!r}"
            ) from None
        object.__setattr__(self, "image_size", (height, width))
        if self.resize_shorter is not None:  # `224 / 0.875` is a float
            object.__setattr__(self, "resize_shorter", round(self.resize_shorter))
        object.__setattr__(self, "background", tuple(map(int, self.background)))
        if len(self.background) != 3 or not all(0 <= level <= 255 for level in self.background):
            raise ValueError(
                f"`background` must be three numbers from 0 to 255. Received: {self.background}"
            )
        if min(self.image_size) < 1:
            raise ValueError(f"`image_size` must be positive. Received: {self.image_size}")
        if self.resize_shorter is not None and self.resize_shorter < min(self.image_size):
            raise ValueError(
                f"`resize_shorter` must be at least the smaller side of `image_size` "
                f"(={self.image_size}). Received: {self.resize_shorter}"
            )
        if self.pad and self.resize_shorter is not None:
            raise ValueError(
                "`pad` crops nothing: `resize_shorter` must be None. "
                f"Received: {self.resize_shorter}"
            )
        if self.interpolation not in ("bilinear", "bicubic"):
            raise ValueError(
                f'`interpolation` must be "bilinear" or "bicubic". Received: {self.interpolation!r}'
            )

    def scaled(self, image_size: tuple[int, int]) -> EvalTransform:
        """Returns the same transform for images of another size: the same share is cropped."""
        shorter = self.resize_shorter
        if shorter is not None:
            pairs = zip(image_size, self.image_size, strict=True)
            shorter = round(shorter * max(side / own for side, own in pairs))
        return dataclasses.replace(self, image_size=image_size, resize_shorter=shorter)

    def resized(
        self,
        height: Any,
        width: Any,
        smaller: Callable[[Any, Any], Any] = min,
        larger: Callable[[Any, Any], Any] = max,
    ) -> tuple[Any, Any]:
        """Returns height and width of an image before it is cropped or padded to `image_size`.

        Args:
            height: Of the image, a whole number; or a tensor, with TensorFlow's `minimum` and
                `maximum` as `smaller` and `larger`.
            width: The same.
            smaller: Of two numbers.
            larger: Of two numbers.
        """
        if self.resize_shorter is None and not self.pad:
            return self.image_size

        def one(side):
            # As it would be, were the image as high, or as wide, as the result.
            by_height = side * self.image_size[0] // height
            by_width = side * self.image_size[1] // width
            if self.pad:
                return larger(smaller(by_height, by_width), 1)
            by_shorter = side * self.resize_shorter // smaller(height, width)
            return larger(by_shorter, larger(by_height, by_width))

        return one(height), one(width)

    def cut_off(self, height: int, width: int) -> float:
        """Returns the share of an image's area that is outside the crop."""
        rows, columns = self.resized(height, width)
        seen = min(rows, self.image_size[0]) * min(columns, self.image_size[1])
        return 1 - seen / (rows * columns)

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values for JSON."""
        values = dataclasses.asdict(self)
        return {
            key: list(item) if isinstance(item, tuple) else item for key, item in values.items()
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> EvalTransform:
        """Returns the transform that `to_dict` described.

        Raises:
            ValueError: A key is unknown or missing, or a value is out of range.
        """
        names = {field.name for field in dataclasses.fields(cls)}
        if unknown := set(values) - names:
            raise ValueError(f"Unknown keys of a transform: {sorted(unknown)}")
        if "image_size" not in values:
            raise ValueError("A transform needs `image_size`.")
        return cls(**values)
