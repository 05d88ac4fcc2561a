"""How many pictures a data set has, and of what size: what defaults of a run follow from."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from lightnets.config.keys import Config
from lightnets.config.tasks import DEFAULT
from lightnets.data import check, pillow, unlabelled
from lightnets.data.load import SQUARE, open_dataset
from lightnets.data.sources.source import spread
from lightnets.data.sources.stream import Stream

# Pictures whose size is looked at.
_SAMPLE = 50


class Facts(NamedTuple):
    """What is known of a data set without decoding it.

    Attributes:
        images: To train on.
        classes: Of them; 1 where images have several labels, or numbers.
        side: Median of the shorter sides, in pixels; None if no picture tells its size.
        longer: Median of the longer sides.
        cut_off: Median of the shares that the centre crop of a square cuts off.
    """

    images: int
    classes: int
    side: int | None
    longer: int | None = None
    cut_off: float = 0.0


def look(config: Config) -> Facts:
    """Counts the pictures that `config.data` names and looks at the size of some.

    Raises:
        UserError: There is no such data set or it cannot be used.
    """
    opened = open_dataset(config)
    source = opened.train
    share = 1 / config.data.folds if config.data.folds else config.data.val_split
    held_out = 0.0 if opened.evaluation is not None else share
    if isinstance(source, Stream):  # it reads all records before the last one
        pictures = [one.numpy() for one in source.pick(range(min(source.count, _SAMPLE)))]
    else:
        pictures = check.results(source.subset(spread(source.count, _SAMPLE)))
    # What cannot be read is named, all at once, before the first step.
    read = [contents for contents in pictures if isinstance(contents, bytes)]
    sizes = [size for size in map(pillow.size, read) if size]
    images = round(source.count * (1 - held_out))
    if config.data.unlabelled:
        images += unlabelled.listed(config.data.unlabelled).source.count
    classes = len(opened.labels) if config.train.task == DEFAULT else 1
    if not sizes:
        return Facts(images, classes, None)
    shorter, longer = np.median(np.sort(sizes, axis=1), axis=0)
    cut_off = np.median([SQUARE.cut_off(height, width) for height, width in sizes])
    return Facts(images, classes, int(shorter), int(longer), float(cut_off))
