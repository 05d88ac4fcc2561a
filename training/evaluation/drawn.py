"""Pictures with their class written on them."""

from __future__ import annotations

import pathlib

import tensorflow as tf
from matplotlib import font_manager
from PIL import Image, ImageDraw, ImageFont

from keras_lightnets import preprocessing
from lightnets.data import pillow
from lightnets.evaluation.report import drawable

# Of the longer side of what is written, in pixels.
_SIDE = 1024


@tf.function(input_signature=[tf.TensorSpec((), tf.string)], autograph=False)
def _pixels(contents: tf.Tensor) -> tf.Tensor:
    return preprocessing.decode_image(contents, to_png=pillow.png)


def save(path: pathlib.Path, label: str, ending: str, folder: pathlib.Path) -> None:
    """Writes a copy of a picture as JPEG, with what is said of it in a bar above it.

    Args:
        path: An image file.
        label: What is said of it, such as its class.
        ending: What stands behind that, such as the probability.
        folder: Where to write; a name that is taken gets a number.
    """
    picture = Image.fromarray(_pixels(tf.constant(path.read_bytes())).numpy())
    picture.thumbnail((_SIDE, _SIDE))
    (name,), style = drawable([label])
    family = style.get("fontfamily", [None])[-1]
    size = max(12, picture.width // 20)
    font = ImageFont.truetype(font_manager.findfont(family), size)
    text = f"{name}{ending}"
    while size > 6 and font.getlength(text) > picture.width - size:
        size -= 1
        font = font.font_variant(size=size)
    canvas = Image.new("RGB", (picture.width, picture.height + 2 * size), "white")
    canvas.paste(picture, (0, 2 * size))
    ImageDraw.Draw(canvas).text((size // 2, size), text, "black", font, anchor="lm")
    stem, number = path.name.encode(errors="replace").decode(), 1
    target = folder / f"{stem}.jpg"
    while target.exists():
        number += 1
        target = folder / f"{stem}-{number}.jpg"
    canvas.save(target, quality=90)
