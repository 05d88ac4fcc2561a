"""How long does it take to classify 1,000 JPEG files, end to end?

    python benchmarks/predict_files.py

Ours: what `lightnets predict net.keras FOLDER` does after it has loaded the network. The peer:
`image_dataset_from_directory`, `preprocess_input` and `predict` of `keras.applications`. Both
resize the whole image bilinearly to 224 pixels and run MobileNet v2 in batches of 32. A second
row is the same without the network: reading, decoding and resizing alone.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import pathlib
import tempfile
from collections.abc import Callable

import common

BATCH = 32
TARGET = 1.8

Side = Callable[[], None]


def ours(folder: pathlib.Path, images: pathlib.Path) -> tuple[Side, Side]:
    """Functions that classify all files of a folder, and that only read them."""
    import models
    import numpy as np

    import keras_lightnets
    from keras_lightnets.export.answers import Answer
    from keras_lightnets.preprocessing import EvalTransform
    from lightnets.commands import predict
    from lightnets.run import artifacts

    model = keras_lightnets.create_model("mobilenet_v2", include_preprocessing=True)
    models.randomize(model).save(folder / "net.keras")
    transform = EvalTransform((224, 224), antialias=False)
    (folder / "transform.json").write_text(json.dumps(transform.to_dict()))
    paths = list(predict.find([str(images)]))
    classifier = artifacts.open(folder / "net.keras", images=len(paths))
    reader = dataclasses.replace(classifier, answer=lambda batch: Answer(np.zeros((len(batch), 1))))

    def run(artifact: artifacts.Artifact) -> None:
        found = list(predict.predictions(artifact, paths, BATCH))
        assert not any(isinstance(scores, str) for _, scores in found)

    return lambda: run(classifier), lambda: run(reader)


def peer(images: pathlib.Path) -> tuple[Side, Side]:
    """The same by `keras.applications`."""
    import keras
    import models

    model = models.randomize(models.keras_application("mobilenet_v2", 224))

    def read():
        dataset = keras.utils.image_dataset_from_directory(
            images,
            image_size=(224, 224),
            batch_size=BATCH,
            labels=None,
            shuffle=False,
            verbose=False,
        )
        return dataset.map(keras.applications.mobilenet_v2.preprocess_input)

    def read_all() -> None:
        for batch in read():
            len(batch)

    def predict() -> None:
        model.predict(read(), verbose=0)

    return predict, read_all


def main(arguments: list[str] | None = None) -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--out", type=pathlib.Path, default=common.RESULTS)
    args = parser.parse_args(arguments)

    import pictures

    names = ("keras_lightnets", "keras.applications")
    case = f"{args.images} JPEG files to predictions, mobilenet_v2-224"
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        images = pictures.jpeg_folder(folder / "images", args.images)
        for what, sides, seconds, target in zip(
            (case, f"{case}, reading alone"),
            zip(ours(folder, images), peer(images), strict=True),
            (args.seconds, args.seconds / 4),
            (TARGET, None),
            strict=True,
        ):
            sides = dict(zip(names, sides, strict=True))
            times = common.interleave(sides, seconds=seconds, warm_up=1, min_turns=3)
            row = common.compare(times, *names, case=what, target=target, unit="s", scale=1)
            common.save("predict_files", [row], args.out)


if __name__ == "__main__":
    main()
