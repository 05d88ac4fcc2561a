"""Formats that only Pillow reads: the same pixels wherever Python runs, named where it does not."""

import io
import sys

import numpy as np
import pillow_heif
import pytest
import tensorflow as tf
from PIL import Image

import lightnets.data
from keras_lightnets import preprocessing
from lightnets.config import keys as configuration
from lightnets.data import check, pillow
from tests.image_files import FILES, GREY, INDICES, PHOTO, encode, transparent

pillow_heif.register_heif_opener()


def heic(image):
    """A HEIC file, lossless."""
    file = io.BytesIO()
    pillow_heif.from_pillow(image).save(file, quality=-1, chroma=444, matrix_coefficients=0)
    return file.getvalue()


def rle(image):
    """A BMP file of 8 bits, run lengths of one."""
    contents = bytearray(encode(image, "BMP"))
    start = int.from_bytes(contents[10:14], "little")
    rows = np.asarray(image)[::-1]
    data = b"".join(bytes(b for level in row for b in (1, level)) + b"\0\0" for row in rows)
    contents[30] = 1
    contents[34:38] = len(data).to_bytes(4, "little")
    return bytes(contents[:start]) + data + b"\0\1"


def os2(image):
    """A BMP file of 24 bits with the short head of OS/2."""
    contents = encode(image, "BMP")
    width, height = image.size
    head = (12).to_bytes(4, "little") + width.to_bytes(2, "little") + height.to_bytes(2, "little")
    head += b"\1\0\x18\0"
    return contents[:10] + (26).to_bytes(4, "little") + head + contents[54:]


def bmp16(image):
    """A BMP file of 5 bits for each color."""
    contents = bytearray(encode(image, "BMP")[:54])
    pixels = np.asarray(image)[::-1].astype(np.uint16) >> 3
    contents[28] = 16
    values = pixels[..., 0] << 10 | pixels[..., 1] << 5 | pixels[..., 2]
    rows = np.pad(values, ((0, 0), (0, values.shape[1] % 2)))
    contents[34:38] = rows.nbytes.to_bytes(4, "little")
    return bytes(contents) + rows.astype("<u2").tobytes()


def animation(kind, **options):
    frames = [PHOTO, PHOTO.rotate(180)]
    return encode(frames[0], kind, save_all=True, append_images=frames[1:], **options)


ONLY_PILLOW = {
    "tiff": encode(PHOTO, "TIFF"),
    "tiff of two pages": animation("TIFF"),
    "tiff cmyk": encode(PHOTO.convert("CMYK"), "TIFF"),
    "tiff palette": encode(INDICES, "TIFF"),
    "avif": encode(PHOTO, "AVIF"),
    "heic": heic(PHOTO),
    "webp animation": animation("WEBP", lossless=True),
    "bmp of 1 bit": encode(PHOTO.convert("1"), "BMP"),
    "bmp rle": rle(GREY),
    "bmp os/2": os2(PHOTO),
    "bmp of 16 bits": bmp16(PHOTO),
}
BROKEN = {
    "it is no image of a known format": b"text" * 9,
    "it is damaged or cut off": ONLY_PILLOW["tiff"][:3000],
    "its pixels are numbers of 32 bits: save it with 8 or 16": encode(
        Image.fromarray(np.zeros((4, 4), np.float32)), "TIFF"
    ),
}
decode = tf.function(
    lambda contents: preprocessing.decode_image(contents, to_png=pillow.png),
    input_signature=[tf.TensorSpec((), tf.string)],
)
bare = tf.function(preprocessing.decode_image, input_signature=[tf.TensorSpec((), tf.string)])


@pytest.mark.parametrize("kind", ONLY_PILLOW)
def test_what_tensorflow_does_not_read_has_the_pixels_of_pillow(kind):
    """Caught: a valid BMP or TIFF called damaged."""
    contents = ONLY_PILLOW[kind]
    with Image.open(io.BytesIO(contents)) as image:
        theirs = np.asarray(image.convert("RGB"))
    np.testing.assert_array_equal(decode(contents), theirs)
    with pytest.raises(tf.errors.InvalidArgumentError):
        bare(contents)
    np.testing.assert_array_equal(bare(pillow.portable(contents)), theirs)


@pytest.mark.parametrize("kind", FILES)
def test_what_tensorflow_reads_stays_as_it_is(kind):
    assert pillow.portable(FILES[kind]) is FILES[kind]


def test_transparency_bits_and_orientation_mean_the_same_in_every_format():
    white = bare(encode(transparent(), "PNG"))
    np.testing.assert_array_equal(decode(encode(transparent(), "TIFF")), white)
    sixteen = Image.fromarray(np.linspace(0, 2**16 - 1, 64).astype(np.uint16).reshape(8, 8))
    np.testing.assert_array_equal(decode(encode(sixteen, "TIFF")), bare(encode(sixteen, "PNG")))
    exif = Image.Exif()
    exif[0x112] = 6
    assert decode(encode(PHOTO, "TIFF", exif=exif)).shape == (173, 120, 3)


@pytest.mark.parametrize("reason", BROKEN)
def test_why_a_file_cannot_be_read_is_named(reason):
    with pytest.raises(tf.errors.InvalidArgumentError) as raised:
        decode(BROKEN[reason])
    assert check.reason(raised.value) == reason


def test_without_its_package_heic_is_named_with_what_to_install(monkeypatch):
    pillow._register_heif.cache_clear()
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(tf.errors.InvalidArgumentError) as raised:
        decode(ONLY_PILLOW["heic"])
    assert check.reason(raised.value) == "it is HEIC: pip install 'keras-lightnets[heif]'"


@pytest.fixture
def pictures(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for label in "ab":
        (tmp_path / "pictures" / label).mkdir(parents=True)
    for number, contents in enumerate(ONLY_PILLOW.values()):
        for label in "ab":
            (tmp_path / "pictures" / label / f"{number:02}").write_bytes(contents)
    return tmp_path / "pictures"


def open_splits(folder, **data):
    values = {"dataset": str(folder), "resize_shorter": 40} | data
    config = configuration.from_dict({"data": values, "model": {"image_size": 32}})
    return lightnets.data.load(config, checked=True)


@pytest.mark.slow
def test_they_are_trained_on_where_python_can_be_called(pictures):
    """Caught: dropped without a word."""
    splits = open_splits(pictures)
    assert splits.train_examples + splits.eval_examples == 2 * len(ONLY_PILLOW)
    assert splits.excluded == {}
    images, _, _ = next(iter(splits.train(global_batch=4)))
    assert images.shape == (4, 32, 32, 3)
    # The workers of a data service cannot.
    assert len(check.find_damaged(splits.train_source, python=False)) == splits.train_examples
