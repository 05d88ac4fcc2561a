"""How long does it take to classify 1,000 JPEG files, end to end?

    python benchmarks/predict_files.py

Ours: files, `keras_lightnets.preprocessing`, and the network with batch norms folded. The peer:
`image_dataset_from_directory`, `preprocess_input` and `predict` of `keras.applications`. Both
resize the whole image bilinearly to 224 pixels and run MobileNet v2 in batches of 32.
"""

from __future__ import annotations

import argparse
import pathlib
import tempfile
from collections.abc import Callable

import common

BATCH = 32
TARGET = 1.8


def ours(folder: pathlib.Path) -> Callable[[], None]:
    """A function that classifies all files of the folder."""
    import numpy as np
    import tensorflow as tf

    import keras_lightnets
    from keras_lightnets import preprocessing

    model = keras_lightnets.fold_batch_norm(
        keras_lightnets.create_model("mobilenet_v2", include_preprocessing=True)
    )
    transform = preprocessing.EvalTransform((224, 224), antialias=False)
    predict = tf.function(lambda images: model(images, training=False), reduce_retracing=True)
    paths = sorted(str(path) for path in folder.glob("*/*.jpg"))

    def load(path):
        return preprocessing.evaluation_image(tf.io.read_file(path), transform)

    def run() -> None:
        dataset = tf.data.Dataset.from_tensor_slices(paths)
        dataset = dataset.map(load, tf.data.AUTOTUNE).batch(BATCH).prefetch(2)
        found = np.concatenate([predict(images).numpy() for images in dataset])
        assert len(found) == len(paths)

    return run


def peer(folder: pathlib.Path) -> Callable[[], None]:
    """The same by `keras.applications`."""
    import keras
    import models

    model = models.keras_application("mobilenet_v2", 224)

    def run() -> None:
        dataset = keras.utils.image_dataset_from_directory(
            folder,
            image_size=(224, 224),
            batch_size=BATCH,
            labels=None,
            shuffle=False,
            verbose=False,
        )
        dataset = dataset.map(keras.applications.mobilenet_v2.preprocess_input)
        model.predict(dataset, verbose=0)

    return run


def main(arguments: list[str] | None = None) -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--out", type=pathlib.Path, default=common.RESULTS)
    args = parser.parse_args(arguments)

    import pictures

    with tempfile.TemporaryDirectory() as temporary:
        folder = pictures.jpeg_folder(pathlib.Path(temporary), args.images)
        (folder / "complete").unlink()
        sides = {"keras_lightnets": ours(folder), "keras.applications": peer(folder)}
        times = common.interleave(sides, seconds=args.seconds, warm_up=1, min_turns=3)
    row = common.compare(
        times,
        *sides,
        case=f"{args.images} JPEG files to predictions, mobilenet_v2-224",
        target=TARGET,
        unit="s",
        scale=1,
    )
    common.save("predict_files", [row], args.out)


if __name__ == "__main__":
    main()
