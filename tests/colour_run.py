"""A run of a network that tells red, green and blue pictures apart, made without training."""

from __future__ import annotations

import pathlib

import keras
import numpy as np
from PIL import Image

from lightnets import data
from lightnets.config import keys as configs
from lightnets.run.directory import Run

LABELS = ("blue", "green", "red")
SIDE = 16  # pixels of the network's input


def write_pictures(root: pathlib.Path, split: str, each: int, brightness: float) -> None:
    """Writes JPEG files of differing sizes, `each` for a class, into `root/split`."""
    rng = np.random.default_rng(each)
    for number, label in enumerate(LABELS):
        folder = root / split / label
        folder.mkdir(parents=True)
        for index in range(each):
            pixels = rng.integers(0, 120, (20 + 3 * index, 31, 3))
            pixels[..., 2 - number] += 90
            image = Image.fromarray((pixels * brightness).astype(np.uint8))
            image.save(folder / f"{index}.jpg", quality=95)


def network() -> keras.Model:
    """The mean of each channel, sharpened: right about every picture of `write_pictures`."""
    image = keras.Input((SIDE, SIDE, 3), name="image")
    x = keras.layers.Rescaling(1 / 255)(image)
    x = keras.layers.Conv2D(3, 3, padding="same", use_bias=False, name="conv")(x)
    x = keras.layers.ReLU()(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    x = keras.layers.Dense(3, name="logits", dtype="float32")(x)
    x = keras.layers.Activation("softmax", name="predictions", dtype="float32")(x)
    model = keras.Model(image, x, name="colour")
    blur = np.zeros((3, 3, 3, 3), "float32")
    for channel in range(3):
        blur[:, :, channel, 2 - channel] = 1 / 9
    model.get_layer("conv").set_weights([blur])
    model.get_layer("logits").set_weights([8 * np.eye(3), np.zeros(3)])
    return model


def make_run(
    folder: pathlib.Path, train_brightness: float = 1.0, train_each: int = 6
) -> pathlib.Path:
    """Writes pictures and a run of them; returns the run's directory."""
    pictures = folder / "pictures"
    write_pictures(pictures, "train", train_each, train_brightness)
    write_pictures(pictures, "val", 4, 1.0)
    config = configs.from_dict(
        {"model": {"image_size": SIDE}, "data": {"dataset": str(pictures), "resize_shorter": 18}}
    )
    run = Run.create(folder / "run", config, data.load(config))
    network().save(run.path / "weights" / "best.keras")
    return run.path
