"""`data.cache`: the same batches, read once, and never more than there is room for."""

from __future__ import annotations

import dataclasses
import hashlib
import types

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import lightnets.data
from lightnets.config import keys as configuration
from lightnets.data import cache
from lightnets.support.errors import UserError
from tests import toy


@pytest.fixture
def pictures(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return toy.noise_files(tmp_path / "pictures", 12, "ab")


def splits(dataset, kind):
    data = {"dataset": str(dataset), "cache": kind}
    return lightnets.data.load(configuration.from_dict({"model": {"image_size": 16}, "data": data}))


def digest(batches):
    parts = (part.tobytes() for batch in batches.as_numpy_iterator() for part in batch)
    return hashlib.sha256(b"".join(parts)).hexdigest()


@pytest.mark.parametrize(
    ("dataset", "kind"),
    [
        ("folder", "disk"),
        pytest.param("folder", "memory", marks=pytest.mark.slow),
        pytest.param("digits", "auto", marks=pytest.mark.nightly),
    ],
)
def test_batches_are_the_same_and_files_are_read_once(pictures, dataset, kind):
    """Caught: a cache that is never filled, or by the position in the batch."""
    dataset = pictures if dataset == "folder" else dataset
    plain, kept = splits(dataset, "none"), splits(dataset, kind)
    steps = {"global_batch": 5}
    expected = digest(plain.train(**steps).take(4)), digest(plain.evaluation(4).take(9))
    assert (digest(kept.train(**steps).take(4)), digest(kept.evaluation(4).take(9))) == expected
    if dataset != "digits":
        for path in pictures.rglob("*.png"):
            path.unlink()
    assert (digest(kept.train(**steps).take(4)), digest(kept.evaluation(4).take(9))) == expected


def test_the_estimate_comes_first(pictures, monkeypatch):
    source = splits(pictures, "none").train_source
    size = sum(len(source.contents(at).numpy()) for at in range(source.count))
    assert cache.estimate(source) == size
    memory = types.SimpleNamespace(available=2 * size)
    monkeypatch.setattr(cache.psutil, "virtual_memory", lambda: memory)
    assert cache.cached([source], splits(pictures, "auto").config.data) == [source]  # 50 % > 20 %
    assert splits(pictures, "memory")
    memory.available = size
    with pytest.raises(UserError, match=r"do not fit into 80% of the 0.0 GiB of free memory"):
        splits(pictures, "memory")


@pytest.mark.slow
def test_a_set_larger_than_this_machine_is_not_kept(pictures, tmp_path, capsys):
    """A real one: 3 TB by a list that names the same eight files of 15 MB again and again."""
    for number in range(8):
        pixels = np.full((2300, 2200, 3), number, np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.bmp")
    rows = "".join(f"{number % 8}.bmp,{'ab'[number % 2]}\n" for number in range(200_000))
    (tmp_path / "list.csv").write_text("path,label\n" + rows)
    plain, auto = splits(tmp_path / "list.csv", "none"), splits(tmp_path / "list.csv", "auto")
    assert cache.estimate(auto.train_source) > 2e12
    assert auto.train_source.portable  # nothing is kept in this process
    assert digest(auto.train(global_batch=2).take(1)) == digest(plain.train(global_batch=2).take(1))
    for kind in ("memory", "disk"):
        with pytest.raises(UserError, match=r"about \d+\.\d GiB of images do not fit into 80% of"):
            splits(tmp_path / "list.csv", kind)
    assert "Keeping" not in capsys.readouterr().out


def test_what_is_read_in_order_is_refused(pictures):
    stream = types.SimpleNamespace(decoded=False)
    data = splits(pictures, "disk").config.data
    with pytest.raises(UserError, match="can only be read in order"):
        cache.cached([stream], data)


@pytest.mark.parametrize("kind", ["memory", "disk"])
def test_what_was_first_read_outside_a_graph_is_kept_as_bytes(pictures, kind):
    """Caught: keeping the array that TensorFlow passes for a string when it runs eagerly."""
    plain, kept = splits(pictures, "none"), splits(pictures, kind)
    for place in range(kept.train_source.count):
        expected = plain.train_source.contents(place).numpy()
        assert kept.train_source.contents(place).numpy() == expected
    expected = digest(plain.train(global_batch=5).take(2))
    assert digest(kept.train(global_batch=5).take(2)) == expected


@pytest.mark.parametrize("kind", ["memory", "disk"])
def test_what_is_kept_is_not_looked_up_again(pictures, kind):
    """Caught: reading the records of ArrayRecord again, though their contents are kept."""
    asked = []

    def lookup(positions):
        def note(wanted):
            asked.append(len(wanted))
            return wanted

        return plain.lookup(tf.numpy_function(note, [positions], tf.int64))

    plain = splits(pictures, "none").train_source
    store = {} if kind == "memory" else cache._Disk(pictures.parent / "store")
    kept = cache.with_store(dataclasses.replace(plain, lookup=lookup), store)
    for _ in range(2):
        found = [
            [kept.open(tf.nest.map_structure(lambda part: part[at], batch))[0] for at in range(4)]  # noqa: B023
            for batch, _ in kept.references(4).take(2)
        ]
    expected = [plain.contents(place).numpy() for place in range(8)]
    assert [contents.numpy() for batch in found for contents in batch] == expected
    assert asked == [5, 5, 1, 1]
