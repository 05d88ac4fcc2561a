"""From a configuration to `Splits`."""

from __future__ import annotations

import os

from keras_lightnets.preprocessing import EvalTransform
from training.config import Config
from training.data import tfds_source
from training.data.splits import Splits
from training.errors import UserError


def load(config: Config, *, saved: str | os.PathLike | None = None) -> Splits:
    """Finds the images that `config.data` names.

    Args:
        config: Of the run.
        saved: Directory of a run whose choice of held-out images is to be repeated. Splits
            that the data set has itself need none.

    Raises:
        UserError: There is no such data set, or it cannot be used.
    """
    builder = tfds_source.find_builder(config.data)
    _, label_key = tfds_source.feature_keys(builder)
    train, evaluation = tfds_source.find_splits(builder, config.data)
    if evaluation is None:
        raise UserError(f"{builder.name} has no split to evaluate on; name one by --eval-split.")
    return Splits(
        labels=list(builder.info.features[label_key].names),
        transform=evaluation_transform(config),
        train_source=tfds_source.open_split(builder, train),
        eval_source=tfds_source.open_split(builder, evaluation),
        config=config,
    )


def evaluation_transform(config: Config) -> EvalTransform:
    """Returns the transform that a configuration asks for."""
    size = config.model.image_size
    return EvalTransform(
        image_size=(size, size),
        resize_shorter=config.data.resize_shorter or round(size / 0.875),
        interpolation=config.data.interpolation,
        antialias=config.data.antialias,
    )
