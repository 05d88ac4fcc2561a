"""Images as the network sees them: the same few, epoch after epoch, in one picture."""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from lightnets.config import keys as configs
from lightnets.config.keys import Config
from lightnets.config.tasks import DEFAULT
from lightnets.data import check
from lightnets.data.load import load
from lightnets.data.sources import targets
from lightnets.support import console

# A label below this share is not named under a mixed image.
_NAMED_SHARE = 0.005


def views(
    config: Config, *, images: int, epochs: int, augment: bool
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Returns some training images, chosen evenly, as they go into the network.

    Args:
        config: Of the run to be.
        images: How many; fewer if there are not as many.
        epochs: How often each, if `augment`; else once, by the evaluation transform.
        augment: As training changes them.

    Returns:
        Pixels `(images, epochs, height, width, 3)`, labels `(images, epochs, classes)` and the
        names of the classes.

    Raises:
        UserError: There is no such data set, or an image is damaged.
    """
    splits = load(config)
    console.line(splits.describe())
    count = min(images, splits.train_examples)
    if augment and count > 1 and (config.data.mixup or config.data.cutmix):
        count -= count % 2  # they mix pairs
    chosen = np.linspace(0, splits.train_examples - 1, count).round().astype(np.int64)
    source = splits.train_source.subset(chosen)
    # Workers of a data service would return the batches in another order.
    config = configs.update(config, {"data": {"data_service": None}}, where="show")
    shown = dataclasses.replace(splits, train_source=source, eval_source=source, config=config)
    if augment:
        # Each step is an epoch of all of them, shuffled. The keys tell which is where.
        references = source.train_references(
            0, seed=config.train.seed, global_batch=count, shard=0, shards=1
        )
        orders = references.map(lambda _, keys: tf.argsort(keys[:, 1]))
        batches = tf.data.Dataset.zip(shown.train(global_batch=count), orders).take(epochs)
    else:
        batches = shown.evaluation(count).map(lambda *batch: (batch, tf.range(count)))
    with check.explained(source, config.data.dataset):
        views = [(batch[0].numpy()[order], batch[1].numpy()[order]) for batch, order in batches]
    pixels, labels = (np.stack(part, axis=1) for part in zip(*views, strict=True))
    return pixels, labels, splits.labels


def write_grid(
    path: pathlib.Path,
    pixels: np.ndarray,
    labels: np.ndarray,
    names: Sequence[str],
    task: str = DEFAULT,
) -> None:
    """Writes a PNG file with a row for each image and a column for each epoch."""
    from lightnets.evaluation.report import drawable, new_figure, save_figure

    shown, style = drawable(names)
    said = caption if task == DEFAULT else functools.partial(targets.words, task)
    rows, columns = pixels.shape[:2]
    figure = new_figure(1.7 * max(columns, 2), 1.8 * rows)
    axes = figure.subplots(rows, columns, squeeze=False)
    for row in range(rows):
        for column in range(columns):
            axis = axes[row, column]
            axis.imshow(np.clip(pixels[row, column] / 255, 0, 1), interpolation="nearest")
            axis.set_title(said(labels[row, column], shown), fontsize=7, **style)
            axis.set_xticks([])
            axis.set_yticks([])
    save_figure(figure, path)


def caption(label: np.ndarray, names: Sequence[str]) -> str:
    """Returns the class, or the shares of two where images were mixed."""
    top = [int(place) for place in np.argsort(-label)[:2] if label[place] > _NAMED_SHARE]
    if len(top) == 1:
        return names[top[0]]
    return " + ".join(f"{label[place]:.0%} {names[place]}" for place in top)
