"""Any data set as ArrayRecord shards of TensorFlow Datasets: random access to every image."""

from __future__ import annotations

import io
import pathlib
import re
import shutil
import tempfile

import tensorflow_datasets as tfds

from lightnets.config.keys import Config
from lightnets.data import check, pillow
from lightnets.data.dataset import Dataset, find
from lightnets.data.sources import layout
from lightnets.data.sources.source import Source
from lightnets.data.sources.stream import Stream
from lightnets.data.sources.tfds import quiet
from lightnets.doctor.examine import contents_of
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
    parts = [dataset.open(name) for name in chosen]
    labels = parts[0].classes
    for name in labels:
        # In its file of class names lines end at these, and blanks around a name are cut off.
        if name != name.strip() or set(name) & {"\n", "\r"}:
            raise UserError(
                f"TFDS cannot keep the name of the class '{name}': it begins or ends with a blank "
                "or has a line break. Rename it."
            )
    sources = [
        part.of_classes(labels, f"{dataset.name}: the split {name}", f"the split {names[0]}")
        for name, part in zip(chosen, parts, strict=True)
    ]
    sources, _ = check.sound(sources, config.data)
    # TFDS syntax such as train[:80%] is no name of a split.
    names = [re.sub(r"\W+", "_", name).strip("_") for name in names]
    try:
        out.absolute().parent.mkdir(parents=True, exist_ok=True)
        # Beside `out`, so that it can be renamed.
        folder = pathlib.Path(tempfile.mkdtemp(prefix=".lightnets-", dir=out.absolute().parent))
    except OSError as error:
        raise UserError(f"Cannot write {out}: {error.strerror}.") from None
    try:
        written = dict(zip(names, sources, strict=True))
        _build(folder, out.name, labels, written).rename(out)
    except OSError as error:
        raise UserError(f"Cannot write {out}: {error.strerror or error}.") from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return {name: source.count for name, source in written.items()}


def _chosen(dataset: Dataset, config: Config) -> dict[str, str]:
    """Returns the splits that a run would choose, by what they are called in the new set."""
    if all(layout.role(name) in ("val", "test") for name in dataset.sizes):
        return {}
    train, evaluation = dataset.choose(config.data)
    chosen = {train: config.data.train_split or "train"}
    return chosen if evaluation is None else chosen | {evaluation: config.data.eval_split or "val"}


def _build(
    folder: pathlib.Path, name: str, labels: list[str], sources: dict[str, Source | Stream]
) -> pathlib.Path:
    """Prepares a TFDS data set below `folder` and returns its version folder."""
    pictures = tfds.features.Image(shape=(None, None, 3))
    if any(source.decoded for source in sources.values()):
        raise UserError("Only images in files can be converted.")

    class Images(  # pyright: ignore[reportGeneralTypeIssues]
        tfds.core.GeneratorBasedBuilder,
        skip_registration=True,  # pyright: ignore[reportCallIssue]
    ):
        VERSION = tfds.core.Version("1.0.0")
        pkg_dir_path = None

        def _info(self) -> tfds.core.DatasetInfo:
            return tfds.core.DatasetInfo(
                builder=self,
                description="Labelled images, converted by `lightnets data convert`.",
                features=tfds.features.FeaturesDict(
                    {
                        "image": pictures,
                        "label": tfds.features.ClassLabel(names=labels),
                        # Where the image came from, to find it again.
                        "filename": tfds.features.Text(),
                    }
                ),
                supervised_keys=("image", "label"),
            )

        def _split_generators(self, dl_manager):
            del dl_manager  # nothing to download
            return {split: _examples(source) for split, source in sources.items()}

        def _generate_examples(self):  # TFDS wants it; the splits above are generators already
            raise NotImplementedError

    Images.name = re.sub(r"\W+", "_", name).strip("_").lower()[:_LONGEST] or "images"
    with quiet():
        builder = Images(data_dir=str(folder), file_format="array_record")
        builder.download_and_prepare()
    return pathlib.Path(builder.data_dir)


def _examples(source: Source | Stream):
    for place, (contents, label) in enumerate(
        zip(contents_of(source), source.read_labels(), strict=True)
    ):
        name = source.name(place)
        if isinstance(contents, Exception):
            raise UserError(f"{name}: {check.reason(contents)}")
        # TFDS takes the bytes of an open file as they are. What needs Pillow needs it here last.
        file = io.BytesIO(pillow.portable(contents))
        yield place, {"image": file, "label": int(label), "filename": name}
