"""Any data set as ArrayRecord shards of TensorFlow Datasets: random access to every image."""

from __future__ import annotations

import io
import pathlib
import re
import tempfile

import tensorflow_datasets as tfds

from lightnets.config.keys import Config
from lightnets.data import check, pillow
from lightnets.data.dataset import Dataset, find
from lightnets.data.sources import layout
from lightnets.data.sources.stream import AnySource
from lightnets.data.sources.tfds import quiet
from lightnets.support import console
from lightnets.support.errors import UserError

# Characters of a TFDS name: files are called by it and more.
_LONGEST = 60


def convert(config: Config, out: pathlib.Path) -> dict[str, int]:
    """Writes the images of all splits of a data set.

    Files are copied as they are, not decoded again. A set without a split of its own stays one
    split, from which a run holds out images as it would have done before.

    Args:
        config: Names the data set, and the splits if not the usual ones.
        out: New folder; it is there whole or not at all, and is a `--dataset` of its own.

    Returns:
        Number of images by split.

    Raises:
        UserError: `out` exists or cannot be written, or images are damaged and
            `config.data.skip_corrupt` is not set.
    """
    if out.exists():
        raise UserError(f"{out} exists already. Name a new folder.")
    dataset = find(config.data)
    console.line(dataset.describe())
    chosen = _chosen(dataset, config)
    chosen |= {name: name for name in dataset.sizes if name not in chosen}
    names = list(chosen.values())
    labels = dataset.open(next(iter(chosen))).classes
    for name in labels:
        # In its file of class names lines end at these, and blanks around a name are cut off.
        if name != name.strip() or set(name) & {"\n", "\r"}:
            raise UserError(
                f"TFDS cannot keep the name of the class '{name}': it begins or ends with a blank "
                "or has a line break. Rename it."
            )
    sources = [dataset.labelled(name, labels, f"the split {names[0]}") for name in chosen]
    sources, _ = check.sound(sources, config.data)
    # TFDS syntax such as train[:80%] is no name of a split.
    names = [re.sub(r"\W+", "_", name).strip("_") for name in names]
    written = dict(zip(names, sources, strict=True))
    try:
        out.absolute().parent.mkdir(parents=True, exist_ok=True)
        # Beside `out`, so that it can be renamed.
        with tempfile.TemporaryDirectory(prefix=".lightnets-", dir=out.absolute().parent) as folder:
            _build(folder, out.name, labels, written).rename(out)
    except OSError as error:
        raise UserError(f"Cannot write {out}: {error.strerror or error}.") from None
    return {name: source.count for name, source in written.items()}


def _chosen(dataset: Dataset, config: Config) -> dict[str, str]:
    """Returns the splits that a run would choose, by what they are called in the new set."""
    if all(layout.role(name) in ("val", "test") for name in dataset.sizes):
        return {}
    train, evaluation = dataset.choose(config.data)
    chosen = {train: config.data.train_split or "train"}
    return chosen if evaluation is None else chosen | {evaluation: config.data.eval_split or "val"}


def _build(
    folder: str, name: str, labels: list[str], sources: dict[str, AnySource]
) -> pathlib.Path:
    """Prepares a TFDS data set below `folder` and returns its version folder."""

    class Images(  # pyright: ignore[reportGeneralTypeIssues]
        tfds.dataset_builders.AdhocBuilder,
        skip_registration=True,  # pyright: ignore[reportCallIssue]
    ):
        def _info(self) -> tfds.core.DatasetInfo:
            return tfds.core.DatasetInfo(
                builder=self,
                description=self._description,
                features=self._feature_spec,
                supervised_keys=("image", "label"),
            )

    with quiet():
        builder = Images(
            name=re.sub(r"\W+", "_", name).strip("_").lower()[:_LONGEST] or "images",
            version="1.0.0",
            description="Labelled images, converted by `lightnets data convert`.",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(None, None, 3)),
                    "label": tfds.features.ClassLabel(names=labels),
                    # Where the image came from, to find it again.
                    "filename": tfds.features.Text(),
                }
            ),
            split_datasets={split: _examples(source) for split, source in sources.items()},
            data_dir=folder,
            file_format="array_record",
        )
        builder.download_and_prepare()
    return pathlib.Path(builder.data_dir)


def _examples(source: AnySource):
    for place, (contents, label) in enumerate(
        zip(check.results(source), source.read_labels(), strict=True)
    ):
        name = source.name(place)
        if isinstance(contents, Exception):
            raise UserError(f"{name}: {check.reason(contents)}")
        # TFDS takes the bytes of an open file as they are. What needs Pillow needs it here last.
        file = io.BytesIO(pillow.portable(contents))
        yield place, {"image": file, "label": int(label), "filename": name}
