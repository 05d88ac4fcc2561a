"""Pictures without a label: a run learns what its teacher says of them, and nothing else.

They take part in training alone. What is held out, class weights, reports and features know of
the labelled pictures only.
"""

from __future__ import annotations

import os
import pathlib

import numpy as np

from lightnets.config.keys import DataConfig
from lightnets.data import check, split_file
from lightnets.data.dataset import Dataset
from lightnets.data.held_out import copies
from lightnets.data.sources import listing, lists
from lightnets.data.sources.part import Part, file_source
from lightnets.data.sources.stream import AnySource
from lightnets.support import console
from lightnets.support.errors import UserError


def listed(place: str) -> Part:
    """Returns the pictures below a folder, however deep, or of a list; their label is -1.

    Raises:
        UserError: There are none.
    """
    path = pathlib.Path(place).expanduser()
    if lists.is_list(path):
        found = listing.Found(lists.read_paths(path))
    elif path.is_dir():
        found = listing.find_images(path)
    else:
        raise UserError(f"There is no folder or list of pictures without labels at {place}.")
    source = file_source(found.images, np.full(len(found.images), -1))
    part = Part(source, ["none"], found.skipped)
    if source.count <= listing.UNASKED_LIMIT:
        part = part.readable()
    if not part.source.count:
        left_out = f" Left out: {listing.counted(part.skipped)}." if part.skipped else ""
        raise UserError(f"{place} holds no picture that can be read.{left_out}")
    return part


def find(data: DataConfig, dataset: Dataset, saved: str | os.PathLike | None) -> AnySource | None:
    """Returns the pictures that `data.unlabelled` names, without those that the data set has, too.

    A copy of a held-out picture would be learned from, one of a training picture count twice.

    Args:
        data: Of the run.
        dataset: Its labelled pictures.
        saved: Run directory: make sure that they are those that the run was started with.

    Raises:
        UserError: There are none, they cannot be read, or they are not those.
    """
    if data.unlabelled is None:
        return None
    part = listed(data.unlabelled)
    source, left_out = part.source, dict(part.skipped)
    # Names of TFDS are no paths, so there is nothing to compare.
    parts = () if dataset.prepared else dataset.sizes
    same = copies(source, [dataset.open(name).source for name in parts])
    if same:
        left_out |= dict.fromkeys(map(source.name, same), f"a picture that {data.dataset} has")
        source = source.subset(np.setdiff1d(np.arange(source.count), same))
    if left_out:
        console.line(f"Left out of {data.unlabelled}: {listing.counted(left_out)}.")
    if not source.count:
        raise UserError(f"{data.unlabelled} holds no picture that {data.dataset} lacks.")
    (source,), _ = check.sound([source], data, data.unlabelled)
    if saved is not None and (known := split_file.read(split_file.of_unlabelled(saved))):
        split_file.verify([source], known, data.unlabelled)
    return source
