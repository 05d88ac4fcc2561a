"""Pictures without a label: in the steps of training, and nowhere else."""

import shutil

import numpy as np
import pytest
import tensorflow as tf

from lightnets import cli, data
from lightnets.config import keys as configs
from lightnets.support.errors import UserError
from tests import toy


@pytest.fixture
def places(tmp_path):
    """Nine pictures of a class, three of another; and twelve of none, two of them copies."""
    labelled = toy.noise_files(tmp_path / "labelled", 12, ("a", "a", "a", "b"))
    rng = np.random.default_rng(1)
    more = toy.noise_files(tmp_path / "more", 10, ("x/y", "."), rng=rng)
    for name in ("0.png", "1.png"):
        shutil.copy(labelled / "a" / name, more / f"copy of {name}")
    (more / "notes.txt").write_text("x")
    return labelled, more


def loaded(places, saved=None, **keys):
    values = {"dataset": str(places[0]), "unlabelled": str(places[1]), **keys}
    config = toy.config(model__image_size=32, distillation__teacher="somebody")
    config = configs.update(config, {"data": values}, where="test")
    return data.load(config, saved, checked=True)


def test_they_are_in_the_steps_alone(places, capsys):
    # Mutations: they are held out, too; copies of held-out pictures stay; class weights count them.
    splits = loaded(places, class_weights="balanced")
    said = capsys.readouterr().out
    assert "a picture that" in said
    assert "has (2), no image (1)" in said
    assert (splits.train_examples, splits.eval_examples, splits.epoch_examples) == (9, 3, 19)
    assert min(splits.train_source.read_labels()) == min(splits.eval_source.read_labels()) == 0
    np.testing.assert_allclose(splits.class_weights(), [9 / 14, 9 / 4])
    batches = splits.train(global_batch=19).take(1)
    (labels, weights) = next((labels.numpy(), weights.numpy()) for _, labels, weights in batches)
    assert labels.sum(0).tolist() == [7, 2]
    np.testing.assert_array_equal(weights[labels.sum(1) == 0], np.ones(10, np.float32))
    np.testing.assert_allclose(weights[labels[:, 1] == 1], 9 / 4)
    names = {splits.epoch_source.name(place) for place in range(19)}
    assert len(names) == 19
    assert sum(str(places[1]) in name for name in names) == 10


def test_each_picture_comes_once_in_an_epoch_with_its_own_pixels(places):
    # Mutations: the pixels of another picture; an order that depends on where a run began.
    splits = loaded(places, crop="center", flip=False)
    pixels = tf.concat([batch[0] for batch in splits.train(global_batch=19).take(2)], 0)
    own = np.concatenate(
        [list(splits.images(s, range(s.count))) for s in (splits.train_source, splits.unlabelled)]
    )
    for epoch in (pixels[:19], pixels[19:]):
        assert sorted(map(bytes, epoch.numpy())) == sorted(map(bytes, own))
    later = next(iter(splits.train(1, global_batch=19)))[0]
    np.testing.assert_array_equal(later, pixels[19:])
    parts = [next(iter(splits.train(1, global_batch=18, shard=s, shards=2)))[0] for s in (0, 1)]
    whole = next(iter(splits.train(1, global_batch=18)))[0]
    np.testing.assert_array_equal(tf.concat(parts, 0), whole)


def test_a_run_that_goes_on_wants_the_same_ones(places, tmp_path):
    # Mutation: nothing is verified.
    (tmp_path / "run").mkdir()
    loaded(places).save(tmp_path / "run")
    moved = places[1].rename(tmp_path / "moved")
    assert loaded((places[0], moved), tmp_path / "run").epoch_examples == 19
    next(moved.rglob("3.png")).unlink()
    with pytest.raises(UserError, match=r"The images of .*moved have changed.*\(10 then, 9 now\)"):
        loaded((places[0], moved), tmp_path / "run")


def test_a_list_needs_paths_alone(places, tmp_path):
    paths = sorted(places[1].rglob("[0-9].png"))
    for name, lines in (
        ("list.csv", ["path", *map(str, paths)]),
        ("list.jsonl", [f'{{"path": "{path}"}}' for path in paths]),
    ):
        (tmp_path / name).write_text("\n".join(lines))
        assert loaded((places[0], tmp_path / name)).unlabelled.count == 10


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--unlabelled", "more"], "is learned from a teacher alone"),
        (
            [
                *("--unlabelled", "more", "--teacher", "squeezenet"),
                *("--set", "distillation.student_loss_weight=1"),
            ],
            "and distillation.student_loss_weight below 1",
        ),
        (["--unlabelled", "mor", "--teacher", "squeezenet"], "There is no folder or list mor"),
        (
            ["--unlabelled", "more", "--task", "regression"],
            "data.unlabelled is for classification",
        ),
    ],
)
def test_what_cannot_be_is_one_line(flags, message, places, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    assert cli.main(["train", "labelled", *flags]) in (1, 2)
    assert message in capsys.readouterr().err
    assert sorted(tmp_path.iterdir()) == before


def test_places_without_a_picture_are_named(places, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="empty holds no picture that can be read"):
        loaded((places[0], tmp_path / "empty"))
    with pytest.raises(UserError, match=r"a holds no picture that .*labelled lacks"):
        loaded((places[0], places[0] / "a"))
    (places[1] / "bad.png").write_bytes(b"\x89PNG")
    with pytest.raises(
        UserError, match=r"1 image of .*more cannot be read \(.*bad\.png: it .*\)\. To train"
    ):
        loaded(places)
    assert loaded(places, skip_corrupt=True).unlabelled.count == 10
    (tmp_path / "gone.csv").write_text("path\ngone.png\n")
    with pytest.raises(UserError, match=r"can be read\. Left out: no such file \(1\)"):
        loaded((places[0], tmp_path / "gone.csv"))
