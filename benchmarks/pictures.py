"""Folders of JPEG files like ImageNet's for the benchmarks: about 500x375, crops of photographs.

At quality 98 they have 100 kB each on average; those of ImageNet's training set have 108 kB
(138 GB, 1,281,167 files). At quality 90 they have 47 kB.

The photographs are those that scikit-learn and, if it is installed (the extra `bench`),
scikit-image ship; nothing is downloaded.
"""

from __future__ import annotations

import importlib.util
import pathlib

import numpy as np
import sklearn.datasets
import tensorflow as tf


def photographs() -> dict[str, np.ndarray]:
    """Returns uint8 `(height, width, 3)` by name."""
    found = {
        name: sklearn.datasets.load_sample_image(f"{name}.jpg") for name in ("china", "flower")
    }
    if importlib.util.find_spec("skimage") is not None:
        from skimage import data

        for name in ("astronaut", "chelsea", "coffee", "rocket"):
            found[name] = getattr(data, name)()
        found["motorcycle_left"], found["motorcycle_right"], _ = data.stereo_motorcycle()
    return found


def jpeg_folder(
    folder: pathlib.Path, count: int, classes: int = 10, quality: int = 90
) -> pathlib.Path:
    """Fills `folder/<class>/<number>.jpg`; returns `folder`.

    Each picture is a box of a photograph, half to all of the largest of its shape, at a random
    place, mirrored or not, resized to 500x375 (three of four) or 375x500.
    """
    sources = list(photographs().values())
    rng = np.random.default_rng(0)
    for number in range(count):
        path = folder / f"class_{number % classes}" / f"{number:05d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        height, width = (375, 500) if number % 4 else (500, 375)
        path.write_bytes(_jpeg(rng, sources[number % len(sources)], height, width, quality))
    return folder


def _jpeg(
    rng: np.random.Generator, photo: np.ndarray, height: int, width: int, quality: int
) -> bytes:
    largest = min(photo.shape[0] / height, photo.shape[1] / width)
    scale = largest * rng.uniform(0.5, 1)
    rows, columns = int(height * scale), int(width * scale)
    top = rng.integers(photo.shape[0] - rows + 1)
    left = rng.integers(photo.shape[1] - columns + 1)
    box = photo[top : top + rows, left : left + columns]
    if rng.random() < 0.5:
        box = box[:, ::-1]
    pixels = tf.image.resize(box, (height, width), "bicubic")
    pixels = tf.saturate_cast(tf.round(pixels), tf.uint8)
    return tf.io.encode_jpeg(pixels, quality=quality).numpy()
