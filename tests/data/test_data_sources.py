"""Folders, lists, TFDS in both formats, arrays and datasets: found, split and ordered alike."""

import dataclasses
import io
import itertools
import json
import os

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from PIL import Image

import lightnets.data
from lightnets.config import keys as configuration
from lightnets.data.sources import order
from lightnets.data.sources.digits import Digits
from lightnets.distribution import strategy
from lightnets.distribution.batches import distribute
from lightnets.support.errors import UserError
from tests import processes


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def picture(number, kind="PNG"):
    """Returns a file of a picture that no other number has."""
    pixels = np.random.default_rng(number).integers(0, 256, (4, 5, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).resize((40, 30)).save(file, kind)
    return file.getvalue()


def make_folder(root, classes=("cat", "dog"), each=10, first=0):
    for number in range(len(classes) * each):
        name = classes[number % len(classes)]
        path = root / name / ("deep/er" if number % 3 == 0 else "") / f"{number}.PnG"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(first + number))
    return root


def config(dataset, seed=0, **data):
    values = {"dataset": str(dataset), "resize_shorter": 32, "crop": "center", "flip": False}
    return configuration.from_dict(
        {"model": {"image_size": 32}, "data": values | data, "train": {"seed": seed}}
    )


def batches(splits, steps, start=0, **options):
    data = splits.train(start, **{"global_batch": 4} | options)
    return [tuple(part.numpy() for part in batch) for batch in data.take(steps)]


def assert_equal(left, right):
    assert len(left) == len(right)
    for one, other in zip(left, right, strict=True):
        for a, b in zip(one, other, strict=True):
            np.testing.assert_array_equal(a, b)


def make_list(tmp_path, kind):
    folder = make_folder(tmp_path / "pictures")
    rows = [
        (str(path.relative_to(tmp_path)), path.relative_to(folder).parts[0])
        for path in sorted(folder.rglob("*.PnG"))
    ]
    path = tmp_path / f"list.{kind}"
    if kind == "csv":
        path.write_text("path,label\n" + "".join(f"{file},{label}\n" for file, label in rows))
    else:
        keys = ("path", "label")
        path.write_text("".join(json.dumps(dict(zip(keys, r, strict=True))) + "\n" for r in rows))
    return path


def pixels_and_labels(count):
    images = np.stack([np.full((32, 32, 3), number, np.uint8) for number in range(count)])
    return images, np.arange(count) % 2


def open_kind(kind, tmp_path, **options):
    if kind == "folder":
        return lightnets.data.load(config(make_folder(tmp_path / "pictures"), **options))
    if kind in ("csv", "jsonl"):
        return lightnets.data.load(config(make_list(tmp_path, kind), **options))
    if kind == "arrays":
        return lightnets.data.from_arrays(config("arrays", **options), pixels_and_labels(20))
    if kind == "dataset":
        data = tf.data.Dataset.from_tensor_slices(pixels_and_labels(20))
        return lightnets.data.from_dataset(
            config("dataset", **options), data, data.take(5), labels=["even", "odd"]
        )
    Digits(data_dir=str(tmp_path / "tfds"), file_format=kind).download_and_prepare(
        download_config=tfds.download.DownloadConfig(num_shards=3)
    )
    folder = tmp_path / "tfds" / "digits" / "1.0.0"
    named = config(folder, train_split="train[:24]", eval_split="test[:5]", **options)
    return lightnets.data.load(named)


KINDS = ("folder", "csv", "jsonl", "arrays", "dataset", "tfrecord", "array_record")
RANDOM = {
    "crop": "random_resized",
    "flip": True,
    "color_jitter": 0.3,
    "random_erasing": 0.5,
    "mixup": 0.4,
}


def with_threads(splits, threads):
    data = dataclasses.replace(splits.config.data, num_threads=threads)
    return dataclasses.replace(splits, config=dataclasses.replace(splits.config, data=data))


# Two that differ in all they do; the others run at night.
TIERS = {"folder": pytest.mark.slow, "tfrecord": pytest.mark.slow}
SOME = [pytest.param(kind, marks=TIERS.get(kind, pytest.mark.nightly)) for kind in KINDS]


@pytest.mark.parametrize("kind", SOME)
def test_every_source_gives_a_pure_function_of_seed_and_step(kind, tmp_path):
    splits = open_kind(kind, tmp_path, **RANDOM)
    whole = batches(splits, 12)
    # Resumed in the first epoch, at its end and in a later one, with other numbers of threads.
    for threads, start in enumerate((1, splits.train_examples // 4, 9), 1):
        assert_equal(batches(with_threads(splits, threads), 12 - start, start), whole[start:])
    left, right = (batches(splits, 12, shard=shard, shards=2) for shard in range(2))
    assert_equal(
        [
            tuple(np.concatenate(pair) for pair in zip(a, b, strict=True))
            for a, b in zip(left, right, strict=True)
        ],
        whole,
    )


@pytest.mark.parametrize("kind", SOME)
def test_an_epoch_shows_every_example_once_in_another_order_each_time(kind, tmp_path):
    splits = open_kind(kind, tmp_path)
    steps = splits.train_examples // 4
    shown = [
        [images.tobytes() for batch in batches(splits, steps, epoch * steps) for images in batch[0]]
        for epoch in range(2)
    ]
    assert len(set(shown[0])) == len(shown[0]) == steps * 4
    assert shown[0] != shown[1]
    train = dataclasses.replace(splits.config.train, seed=1)
    other = dataclasses.replace(splits, config=dataclasses.replace(splits.config, train=train))
    assert_raises_unequal(batches(other, steps), batches(splits, steps))


def replica_batches(config, steps, replicas):
    """Returns what the replicas of one machine get, in their order."""
    devices = strategy.create(f"cpu:{replicas}")
    splits = lightnets.data.load(config)
    found = distribute(
        lambda shard, shards: splits.train(2, global_batch=4, shard=shard, shards=shards),
        4,
        devices,
    )
    parts = [
        [devices.experimental_local_results(part) for part in batch]
        for batch in itertools.islice(found, steps)
    ]
    assert len(parts[0][0]) == replicas
    return [tuple(np.concatenate([p.numpy() for p in part]) for part in batch) for batch in parts]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["folder", "tfrecord", "array_record"])
def test_one_and_two_replicas_see_the_same_batches(kind, tmp_path):
    splits = open_kind(kind, tmp_path, **RANDOM)
    for replicas in (1, 2):
        found = processes.call(replica_batches, splits.config, 6, replicas)
        assert_equal(found, batches(splits, 6, start=2))


def assert_raises_unequal(left, right):
    with pytest.raises(AssertionError):
        assert_equal(left, right)


def test_the_global_seed_of_tensorflow_changes_nothing(tmp_path):
    splits = open_kind("dataset", tmp_path)
    before = batches(splits, 6)
    tf.random.set_seed(99)
    assert_equal(batches(splits, 6), before)


def test_no_tuner_keeps_those_waiting_who_have_had_enough(tmp_path):
    """It slept for as long again as a pipeline had lasted, up to a minute, and missed its end."""
    splits = lightnets.data.load(config(make_folder(tmp_path / "pictures")))
    for data in (splits.train(global_batch=4), splits.evaluation(4)):
        assert data.options().autotune.enabled is False


def test_a_permutation_is_one():
    positions = [
        order.step_positions(
            tf.constant(step, tf.int64), examples=23, global_batch=5, seed=3, shard=0, shards=1
        ).numpy()
        for step in range(4)
    ]
    assert len(set(np.concatenate(positions))) == 20


def test_folders_of_splits_and_sorted_classes(tmp_path):
    make_folder(tmp_path / "Train", ("zebra", "ant"))
    make_folder(tmp_path / "val", ("ant",), 3, first=100)
    splits = lightnets.data.load(config(tmp_path))
    assert splits.labels == ["ant", "zebra"]
    assert (splits.train_examples, splits.eval_examples) == (20, 3)
    assert set(splits.eval_source.read_labels()) == {0}


def test_classes_that_only_the_evaluation_has_are_named(tmp_path):
    make_folder(tmp_path / "train")
    make_folder(tmp_path / "val", ("cat", "dgo"), 2)
    with pytest.raises(UserError, match="val has classes that the split train lacks: dgo"):
        lightnets.data.load(config(tmp_path))


def test_the_held_out_images_are_stratified_seeded_and_saved(tmp_path):
    folder = make_folder(tmp_path / "pictures")

    def held_out(splits):
        return [splits.eval_source.name(place) for place in range(splits.eval_examples)]

    splits = lightnets.data.load(config(folder, val_split=0.3))
    assert np.bincount(splits.eval_source.read_labels()).tolist() == [3, 3]
    assert held_out(splits) == held_out(lightnets.data.load(config(folder, val_split=0.3)))
    assert held_out(splits) != held_out(lightnets.data.load(config(folder, 1, val_split=0.3)))
    splits.save(tmp_path)
    # The saved file decides, not the seed or share of the configuration.
    again = lightnets.data.load(config(folder, 1, val_split=0.1), saved=tmp_path)
    assert held_out(again) == held_out(splits)
    (folder / "cat" / "new.png").write_bytes(picture(1000))
    with pytest.raises(UserError, match=r"have changed since the run was started \(20 then, 21"):
        lightnets.data.load(config(folder), saved=tmp_path)


def test_a_class_whose_name_cannot_be_kept_is_refused_first(tmp_path):
    folder = make_folder(tmp_path / "pictures")
    (folder / "cat").rename(folder / "a\nb ")
    assert lightnets.data.load(config(folder)).labels == ["a\nb ", "dog"]
    (folder / "dog").rename(folder / os.fsdecode(b"caf\xe9"))
    with pytest.raises(UserError, match=r"caf\\xe9' is not UTF-8"):
        lightnets.data.load(config(folder))


def test_damaged_files_stop_training_with_their_names(tmp_path):
    folder = make_folder(tmp_path / "pictures")
    (folder / "cat" / "broken.jpg").write_bytes(picture(1, "JPEG")[:300])
    (folder / "dog" / "text.png").write_text("no picture")
    with pytest.raises(UserError) as error:
        lightnets.data.load(config(folder), checked=True)
    assert f"{folder}/cat/broken.jpg: it is damaged or cut off" in str(error.value)
    assert f"{folder}/dog/text.png: it is no image of a known format" in str(error.value)


def test_damaged_files_can_be_skipped_also_after_a_resume(tmp_path):
    folder = make_folder(tmp_path / "pictures")
    (folder / "cat" / "broken.jpg").write_bytes(picture(1, "JPEG")[:300])
    splits = lightnets.data.load(config(folder, skip_corrupt=True), checked=True)
    assert splits.train_examples + splits.eval_examples == 20
    assert list(splits.excluded) == [f"{folder}/cat/broken.jpg"]
    splits.save(tmp_path)
    again = lightnets.data.load(config(folder, skip_corrupt=True), saved=tmp_path)
    assert_equal(batches(again, 3, 5), batches(splits, 3, 5))


def test_what_was_found_is_remembered_until_a_file_changes(tmp_path, monkeypatch):
    folder = make_folder(tmp_path / "pictures")
    lightnets.data.load(config(folder), checked=True)
    with monkeypatch.context() as patched:
        patched.setattr(lightnets.data.check, "find_damaged", None)
        lightnets.data.load(config(folder), checked=True)
    (folder / "cat" / "2.PnG").write_bytes(b"")
    with pytest.raises(UserError, match=r"1 image of .* cannot be read"):
        lightnets.data.load(config(folder), checked=True)


def test_a_large_list_is_not_gone_through_before_the_first_batch(tmp_path, monkeypatch):
    """Caught: a pass over the files, which for a million of them takes minutes."""
    monkeypatch.setattr(lightnets.data.sources.listing, "UNASKED_LIMIT", 15)
    # No file there could be read, so one that is looked at would be found missing.
    rows = [f"{number}.png,{'ab'[number % 2]}\n" for number in range(40)]
    (tmp_path / "list.csv").write_text("path,label\n" + "".join(rows))
    asked = []

    def watch(name):
        real = getattr(os, name)

        def watched(path, *arguments, **options):
            asked.append(os.fspath(path) if isinstance(path, (str, os.PathLike)) else path)
            return real(path, *arguments, **options)

        monkeypatch.setattr(os, name, watched)

    for name in ("stat", "lstat", "open", "access"):
        watch(name)
    splits = lightnets.data.load(config(tmp_path / "list.csv"), checked=True)
    splits.save(tmp_path / "split.json")
    splits.train(global_batch=4)
    lightnets.data.load(config(tmp_path / "list.csv"), saved=tmp_path / "split.json")
    # The first one tells whether images are files at all, for the digest in `split.json`.
    assert {path for path in asked if str(path).endswith(".png")} <= {str(tmp_path / "0.png")}
    assert splits.train_examples == 32


def test_the_bytes_decide_not_the_extension(tmp_path):
    folder = make_folder(tmp_path / "pictures")
    (folder / "cat" / "jpeg_named.png").write_bytes(picture(1, "JPEG"))
    (folder / "cat" / "no_extension").write_bytes(picture(2, "GIF"))
    (folder / "cat" / "notes.txt").write_text("not an image")
    splits = lightnets.data.load(config(folder, crop="random_resized"), checked=True)
    assert splits.train_examples + splits.eval_examples == 22
    batches(splits, 5)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "file,weight\nx,1\n", "must name the columns `path` and `label`"),
        ("a.csv", "path,label\nx.png\n", "Line 2 of .* lacks a column"),
        ("a.csv", "path,label\n", "lists no images"),
        ("a.jsonl", "{]\n", "Line 1 of .* is not JSON"),
        ("a.jsonl", '{"path": "x"}\n', 'needs the keys "path" and "label"'),
        ("a.txt", "x", r"is a file, but no .csv or .jsonl"),
    ],
)
def test_a_broken_list_is_explained(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=message):
        lightnets.data.load(config(tmp_path / name))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("./nowhere", r"There is no file or folder \./nowhere"),
        ("tf_flower", "no folder, list or name of a TFDS data set. Did you mean 'tf_flowers'"),
        ("tf_flowers", "is not prepared in .* --download"),
        ("imagenet2012", r"ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar .*downloads/manual"),
    ],
)
def test_a_missing_data_set_is_explained_without_a_network(tmp_path, name, message):
    with pytest.raises(UserError, match=message):
        lightnets.data.load(config(name, data_dir=str(tmp_path)))


def test_class_weights_balance_the_classes(tmp_path):
    make_folder(tmp_path / "pictures", ("cat",), 15)
    make_folder(tmp_path / "pictures", ("dog",), 5, first=50)
    splits = lightnets.data.load(config(tmp_path / "pictures", class_weights="balanced"))
    for _, labels, weights in batches(splits, 4):
        np.testing.assert_allclose(weights, np.where(labels[:, 0] == 1, 16 / 24, 16 / 8))


def test_wrong_arrays_are_explained():
    images, labels = pixels_and_labels(4)
    with pytest.raises(UserError, match="must be uint8"):
        lightnets.data.from_arrays(config("arrays"), (images / 255, labels))
    with pytest.raises(UserError, match="integers, one for each of 4"):
        lightnets.data.from_arrays(config("arrays"), (images, labels[:3]))
