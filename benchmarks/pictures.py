"""Folders of JPEG files like ImageNet's for the benchmarks: about 500x375, 110 kB, synthetic."""

from __future__ import annotations

import pathlib

import numpy as np
import tensorflow as tf


def jpeg_folder(folder: pathlib.Path, count: int, classes: int = 10) -> pathlib.Path:
    """Fills `folder/<class>/<number>.jpg` unless it is there; returns `folder`.

    Each picture is noise at several scales, which has about the detail, and so the file size and
    decoding time, of photographs.
    """
    done = folder / "complete"
    if done.exists() and done.read_text() == f"{count} {classes}":
        return folder
    rng = np.random.default_rng(0)
    for number in range(count):
        path = folder / f"class_{number % classes}" / f"{number:05d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        height, width = (375, 500) if number % 4 else (500, 375)
        path.write_bytes(_jpeg(rng, height, width))
    done.write_text(f"{count} {classes}")
    return folder


def _jpeg(rng: np.random.Generator, height: int, width: int) -> bytes:
    picture = np.zeros((height, width, 3), "float32")
    for side, contrast in ((4, 60), (16, 35), (64, 25), (256, 22)):
        coarse = rng.normal(scale=contrast, size=(side, side, 3)).astype("float32")
        picture += tf.image.resize(coarse, (height, width), "bicubic").numpy()
    pixels = np.clip(picture + 128, 0, 255).astype("uint8")
    return tf.io.encode_jpeg(pixels, quality=90).numpy()
