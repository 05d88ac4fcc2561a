"""One picture in every format, and files that lie about their size."""

import io

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_image

PHOTO = Image.fromarray(load_sample_image("china.jpg")).resize((173, 120))


def encode(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


FILES = {
    "jpeg": encode(PHOTO, "JPEG", quality=90),
    "jpeg progressive": encode(PHOTO, "JPEG", progressive=True),
    "jpeg grey": encode(PHOTO.convert("L"), "JPEG"),
    "jpeg cmyk": encode(PHOTO.convert("CMYK"), "JPEG"),
    "png": encode(PHOTO, "PNG"),
    "png grey": encode(PHOTO.convert("L"), "PNG"),
    "png palette": encode(PHOTO.convert("P"), "PNG"),
    "png alpha": encode(PHOTO.convert("RGBA"), "PNG"),
    "png grey alpha": encode(PHOTO.convert("LA"), "PNG"),
    "png 1 bit": encode(PHOTO.convert("1"), "PNG"),
    "gif": encode(PHOTO, "GIF"),
    "gif of two frames": encode(
        PHOTO, "GIF", save_all=True, append_images=[PHOTO.transpose(Image.Transpose.ROTATE_180)]
    ),
    "bmp": encode(PHOTO, "BMP"),
    "bmp palette": encode(PHOTO.convert("P"), "BMP"),
    "bmp grey": encode(PHOTO.convert("L"), "BMP"),
    "webp": encode(PHOTO, "WEBP"),
    "webp lossless": encode(PHOTO, "WEBP", lossless=True),
    "webp alpha": encode(PHOTO.convert("RGBA"), "WEBP"),
}


def transparent(mode="RGBA"):
    """PHOTO with a quarter that is transparent, a half that is not, and all levels between."""
    image = PHOTO.convert("RGBA")
    alpha = np.clip(np.linspace(-255, 2 * 255, image.width), 0, 255).astype(np.uint8)
    image.putalpha(Image.fromarray(np.tile(alpha, (image.height, 1))))
    return image.convert(mode)


GREY, COLORS, INDICES = PHOTO.convert("L"), PHOTO.quantize(250), PHOTO.quantize(60)


def declare(kind, width, height):
    """Returns a file of the kind that declares other sides than it has."""
    contents = bytearray(FILES[kind])
    if kind == "jpeg":
        at = contents.index(b"\xff\xc0") + 5
        contents[at : at + 4] = height.to_bytes(2, "big") + width.to_bytes(2, "big")
    elif kind == "png":
        contents[16:24] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    elif kind == "gif":
        at = contents.index(b"\x2c\0\0\0\0") + 5
        contents[at : at + 4] = width.to_bytes(2, "little") + height.to_bytes(2, "little")
    elif kind == "bmp":
        contents[18:26] = width.to_bytes(4, "little") + height.to_bytes(4, "little")
    elif kind == "webp lossless":
        bits = (width - 1) | (height - 1) << 14
        contents[21:25] = bits.to_bytes(4, "little")
    else:
        contents[26:30] = width.to_bytes(2, "little") + height.to_bytes(2, "little")
    return bytes(contents)
