"""A run goes on, and is measured and exported, where its data set lies elsewhere."""

import os
import signal

import numpy as np
import pytest

from lightnets import data
from lightnets.config import keys as configs
from lightnets.run.directory import Run
from lightnets.support.errors import UserError
from lightnets.support.interrupts import Interrupted
from tests import processes, toy


def on_pictures(config, out, at_step=None):
    """Trains the toy network on files."""
    load, install = data.load, toy.install

    def with_files(**_):
        install()
        data.load = load

    toy.install = with_files
    return toy.run(config, out, at_step=at_step)


def be_told_to_stop():
    os.kill(os.getpid(), signal.SIGTERM)


def config_of(pictures, **keys):
    return configs.update(toy.config(**keys), {"data": {"dataset": str(pictures)}}, where="test")


@pytest.mark.nightly
def test_a_run_whose_data_moved_ends_with_the_same_bits(tmp_path):
    old, new = tmp_path / "pictures", tmp_path / "else" / "where"
    toy.noise_files(old, 40, ("a", "b", "c", "d"))
    processes.call(on_pictures, config_of(old), tmp_path / "whole")
    with pytest.raises(Interrupted):
        processes.call(on_pictures, config_of(old), tmp_path / "run", (5, be_told_to_stop))
    new.parent.mkdir()
    old.rename(new)
    with pytest.raises(UserError, match=r"There is no .*pictures, on .*: --dataset PLACE"):
        processes.call(on_pictures, config_of(old), tmp_path / "run")
    processes.call(on_pictures, config_of(new), tmp_path / "run")
    whole, moved = (processes.call(toy.outcome, tmp_path / name) for name in ("whole", "run"))
    assert moved == whole
    # From now on the run knows the new place.
    assert Run.open(tmp_path / "run").config.data.dataset == str(new)
    spoil(new)
    with pytest.raises(UserError, match="not their contents"):
        processes.call(on_pictures, config_of(new), tmp_path / "run")


def spoil(folder):
    """Changes one picture, but not its size."""
    path = sorted(folder.rglob("*.png"))[-1]
    contents = bytearray(path.read_bytes())
    contents[-1] ^= 1
    path.write_bytes(contents)


def folder(root):
    return toy.noise_files(root, 24, ("a", "b"))


def split_folder(root):
    toy.noise_files(root / "train", 24, ("a", "b"))
    toy.noise_files(root / "val", 8, ("a", "b"))
    return root


def listed(root):
    toy.noise_files(root, 24, ("x", "y"))
    rows = [f"{path.relative_to(root)},{path.parent.name}" for path in sorted(root.rglob("*.png"))]
    (root / "list.csv").write_text("\n".join(["path,label", *rows]))
    return root / "list.csv"


def relabel(root):
    text = (root / "list.csv").read_text()
    first = text.index(",x")
    (root / "list.csv").write_text(text[:first] + ",y" + text[first + 2 :])


def rename(root):
    path = sorted(root.rglob("*.png"))[0]
    path.rename(path.with_name("another.png"))


CHANGES = {"contents": spoil, "name": rename, "label": relabel}


@pytest.mark.parametrize(
    ("make", "change"),
    [
        (folder, "contents"),
        (folder, "name"),
        (split_folder, "contents"),
        (split_folder, "name"),
        (listed, "contents"),
        (listed, "label"),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_a_data_set_is_known_again_elsewhere_and_a_changed_one_is_not(
    make, change, tmp_path, monkeypatch
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    old = make(tmp_path / "old")
    splits = data.load(config_of(old), checked=True)
    run = Run.create(tmp_path / "run", config_of(old), splits)
    labels = splits.train_source.read_labels()
    (tmp_path / "old").rename(tmp_path / "new")
    new = tmp_path / "new" / old.relative_to(tmp_path / "old")
    moved = run.splits(str(new))
    np.testing.assert_array_equal(moved.train_source.read_labels(), labels)
    for before, after in (
        (splits.train_source, moved.train_source),
        (splits.eval_source, moved.eval_source),
    ):
        names = [before.name(place) for place in range(before.count)]
        assert [after.name(place) for place in range(after.count)] == [
            name.replace(str(tmp_path / "old"), str(tmp_path / "new")) for name in names
        ]
    with pytest.raises(UserError, match="If it has moved, name its new place: --dataset PLACE"):
        run.splits()
    CHANGES[change](tmp_path / "new")
    with pytest.raises(UserError, match=r"have changed since|not their contents"):
        run.splits(str(new))
