"""How many images a second does the input pipeline deliver?

    python benchmarks/data_pipeline.py --torch-python ../venv-torch/bin/python

JPEG files of about 500x375, crops of photographs (`pictures.py`) in two qualities, random-resized
crop to 224 and flip, shuffled, batches of 64, on all cores. Against `image_dataset_from_directory`
with Keras' augmentation layers, against torchvision's `DataLoader` with PIL and one worker per core
(if there is an interpreter that has it), and against the bare decoding of the same bytes, which no
pipeline that decodes whole images can beat.
"""

from __future__ import annotations

import argparse
import itertools
import os
import pathlib
import tempfile
import time
from collections.abc import Callable

import common
import torch_peer

BATCH = 64
SIZE = 224
# case: JPEG quality, see `pictures.py`.
CASES = {
    "input pipeline JPEG 500x375 of 100 kB to 224": 98,
    "input pipeline JPEG 500x375 of 47 kB to 224": 90,
}

TURN_BATCHES = 8


def delivery(dataset) -> Callable[[], float]:
    """A function that reads some batches and returns the seconds of an image.

    Each turn has an iterator of its own, which ends with it: one that lived on would fill its
    buffers in the other side's turn. The first batch, with the start of the pipeline, does not
    count.
    """

    def turn() -> float:
        iterator = iter(dataset.repeat())
        next(iterator)
        start = time.perf_counter()
        for images, *_ in itertools.islice(iterator, TURN_BATCHES):
            len(images)
        return (time.perf_counter() - start) / (TURN_BATCHES * BATCH)

    return turn


def ours(folder: pathlib.Path):
    """The pipeline of `lightnets train` on an image folder."""
    from lightnets import data
    from lightnets.config.keys import Config, DataConfig, ModelConfig, TrainConfig

    config = Config(
        model=ModelConfig(image_size=SIZE),
        # The crop of torchvision's RandomResizedCrop, so that both do the same work.
        data=DataConfig(
            dataset=str(folder),
            crop="random_resized",
            crop_area=(0.08, 1.0),
            flip=True,
        ),
        train=TrainConfig(batch_size=BATCH),
    )
    return data.load(config).train(0, global_batch=BATCH)


def keras_layers(folder: pathlib.Path):
    """`image_dataset_from_directory`, then Keras' layers for a random crop and a flip."""
    import keras
    import tensorflow as tf

    augment = keras.Sequential(
        [keras.layers.RandomCrop(SIZE, SIZE), keras.layers.RandomFlip("horizontal")]
    )
    dataset = keras.utils.image_dataset_from_directory(
        folder, image_size=(256, 256), batch_size=BATCH, label_mode="categorical", verbose=False
    )
    return dataset.map(
        lambda images, labels: (augment(images, training=True), labels), tf.data.AUTOTUNE
    ).prefetch(tf.data.AUTOTUNE)


def decoding(folder: pathlib.Path):
    """Only `decode_jpeg`, of bytes that are in memory."""
    import tensorflow as tf

    contents = [path.read_bytes() for path in sorted(folder.glob("*/*.jpg"))]

    def decode(jpeg):
        return tf.shape(tf.io.decode_jpeg(jpeg, channels=3, dct_method="INTEGER_FAST"))

    dataset = tf.data.Dataset.from_tensor_slices(contents).repeat()
    dataset = dataset.map(decode, tf.data.AUTOTUNE, deterministic=False)
    return dataset.batch(BATCH).map(lambda shapes: (shapes,))


def measure(case: str, images: int, seconds: float, interpreter: str | None) -> list[common.Row]:
    """Times all sides on one folder."""
    import pictures

    with tempfile.TemporaryDirectory() as temporary:
        folder = pictures.jpeg_folder(pathlib.Path(temporary) / "jpeg", images, quality=CASES[case])
        note = f"crops of {len(pictures.photographs())} photographs"
        peers = {"Keras layers": (keras_layers, 4.0), "decoding alone": (decoding, 0.9)}
        rows = [
            compare_with(
                case,
                peer,
                delivery(ours(folder)),
                delivery(dataset(folder)),
                seconds,
                target=target,
                note=note,
            )
            for peer, (dataset, target) in peers.items()
        ]
        if interpreter:
            # One turn of the loader is one epoch of the folder.
            with torch_peer.worker(
                interpreter,
                job="loader",
                folder=str(folder),
                batch=BATCH,
                size=SIZE,
                workers=os.cpu_count(),
            ) as (turn, versions):
                rows.append(
                    compare_with(
                        case,
                        "torchvision DataLoader",
                        delivery(ours(folder)),
                        turn,
                        seconds,
                        target=2.5,
                        one_process=False,
                        note=f"{note}, {versions}",
                    )
                )
    return rows


def compare_with(case: str, peer: str, ours_turn, peer_turn, seconds: float, **row) -> common.Row:
    """Times two sides in turns."""
    times = common.interleave(
        {"lightnets.data": ours_turn, peer: peer_turn}, seconds=seconds, warm_up=1, min_turns=4
    )
    return common.compare(
        times,
        "lightnets.data",
        peer,
        case=case,
        unit="ms per image",
        **row,
    )


def main(arguments: list[str] | None = None) -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--case", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--images", type=int, default=1024)
    parser.add_argument("--torch-python", help=torch_peer.HELP)
    parser.add_argument("--seconds", type=float, default=25.0, help="per peer")
    parser.add_argument("--out", type=pathlib.Path, default=common.RESULTS)
    args = parser.parse_args(arguments)
    for case in args.case:
        rows = measure(case, args.images, args.seconds, torch_peer.python(args.torch_python))
        common.save("data_pipeline", rows, args.out)


if __name__ == "__main__":
    main()
