"""Features of a frozen backbone, stored once: the same run, in a fraction of the time."""

import dataclasses
import os
import signal

import keras
import numpy as np
import pytest

import keras_lightnets
from lightnets import data
from lightnets.config import keys as configs
from lightnets.config.validate import validate
from lightnets.evaluation import features
from lightnets.optimization import finetune
from lightnets.run import build, loop, stored, train, training
from lightnets.support.errors import UsageError
from tests import processes, toy

# Nothing that is random about an image; and all that is, in as many views as there are epochs.
STILL = {"crop": "center", "flip": False}
MOVING = {"crop": "random_resized", "color_jitter": 0.2, "random_erasing": 0.5, "views": 3}


def config_of(folder, data=(), **more):
    """Three epochs of five steps on 40 of 50 images of noise, and all that keeps state."""
    if not folder.exists():
        toy.noise_files(folder, 50, ("a", "b", "c"))
    config = toy.config(
        **{"model__freeze": "backbone", "label_smoothing": 0.1, "ema": 0.9, "accumulate": 2, **more}
    )
    values = {"dataset": str(folder), "class_weights": "balanced", **dict(data)}
    return configs.update(config, {"data": values}, where="test")


def trained(config, out, *, images=False):
    """Trains the toy network; returns its weights, and what each epoch said of the pictures.

    Args:
        config: The run.
        out: Its folder.
        images: Features are never stored.
    """
    out.mkdir(exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "build_model", toy.build_model)
        if images:
            patch.setattr(stored, "epochs", lambda config: 0)
        run = training.Training(config, out)
        assert run.head_epochs == 0 if images else run.head_epochs
        told = []
        for epoch in range(config.train.epochs):
            if epoch in (0, run.head_epochs):
                batches = run.batches()
            run.start_epoch(epoch)
            for _ in range(run.steps_per_epoch):
                run.take_steps(batches, 1, [0.0, 0.0])
            told += [*run.evaluate(lambda: None, epoch), run.state.totals.numpy()]
    return [*run.model.get_weights(), *told]


def assert_close(ours, theirs):
    for mine, other in zip(ours, theirs, strict=True):
        if not np.issubdtype(mine.dtype, np.integer):  # states of seeds
            np.testing.assert_allclose(mine, other, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("keys", "more"),
    [
        pytest.param(MOVING, {}, marks=pytest.mark.slow),
        # Then the backbone learns, too, and the images come back.
        pytest.param(
            STILL,
            {"model__freeze": None, "model__head_warmup_epochs": 2},
            marks=pytest.mark.nightly,
        ),
    ],
)
def test_the_run_is_that_of_the_whole_network_while_no_view_comes_back(tmp_path, keys, more):
    # Mutation: the view of an epoch is always the first one.
    config = config_of(tmp_path / "pictures", keys, **more)
    assert_close(trained(config, tmp_path), trained(config, tmp_path, images=True))
    assert (tmp_path / stored.NAME).exists()


@pytest.mark.parametrize(
    ("keys", "learning"),
    [
        ({"model__freeze": "backbone"}, {"logits"}),
        ({"model__freeze": None, "model__head_warmup_epochs": 2}, {"conv", "bn", "logits"}),
    ],
)
def test_only_what_ever_learns_has_slots_and_averages(tmp_path, keys, learning):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "build_model", toy.build_model)
        run = training.Training(config_of(tmp_path / "images", STILL, **keys), None)
    averaged = run.average.by_path()
    assert {path.split("/")[0] for path in averaged} == learning
    assert sum(v.path.endswith("momentum") for v in run.optimizer.variables) == len(averaged)


def finished(config, out, die_at=None):
    """Trains to the end, or kills itself before a step; returns the outcome."""
    build.build_model, loop.Loop._report = toy.build_model, lambda *_: None
    take_steps = training.Training.take_steps

    def watched(self, *args):
        if int(self.state.step.numpy()) == die_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return take_steps(self, *args)

    training.Training.take_steps = watched
    train.train(config, out, resume=True)
    return toy.outcome(out)


@pytest.mark.slow
def test_a_killed_run_ends_with_the_same_bits(tmp_path):
    # Mutation: the rows are shuffled by the steps of this process.
    keys = {**MOVING, "views": 2}
    warm_up = {"model__freeze": None, "model__head_warmup_epochs": 3, "epochs": 4}
    config = config_of(tmp_path / "pictures", keys, checkpoint_steps=2, **warm_up)
    whole = processes.call(finished, config, tmp_path / "whole")
    child = processes.Child(finished, config, tmp_path / "killed", die_at=8)
    with pytest.raises(ChildProcessError):
        child.result()
    written = (tmp_path / "killed" / stored.NAME).stat().st_mtime_ns
    assert processes.call(finished, config, tmp_path / "killed") == whole
    assert (tmp_path / "killed" / stored.NAME).stat().st_mtime_ns == written


def test_folds_share_features_of_images_that_do_not_change(tmp_path, monkeypatch):
    # Mutations: rows of other images; each fold looks at its images anew.
    looked, through = [], features.through

    def counted(network, batches, images, what):
        looked.append(images)
        return through(network, batches, images, what)

    monkeypatch.setattr(features, "through", counted)
    keras.utils.set_random_seed(0)
    for fold in (1, 2):
        config = config_of(tmp_path / "pictures", {**STILL, "folds": 3, "fold": fold})
        splits = data.load(config)
        if fold == 1:
            (tmp_path / "run").mkdir()
            configs.save(config, tmp_path / "run" / "config.yaml")
            backbones = [stored.cut(toy.build_model(config, splits)).backbone] * 2
        shared, alone = (
            stored.store(folder / f"fold-{fold}" / stored.NAME, config, splits, backbones)
            for folder in (tmp_path / "run", tmp_path)
            if not (folder / f"fold-{fold}").mkdir()
        )
        np.testing.assert_array_equal(shared.train_features, alone.train_features)
        np.testing.assert_array_equal(shared.held_out, alone.held_out)
    assert looked == [50, 50, 32, 18, 33, 17]
    assert [path.name for path in (tmp_path / "run").glob("**/*.npz")] == [stored.NAME]


@pytest.mark.nightly
def test_two_replicas_agree_with_one(tmp_path):
    one, two = (
        config_of(tmp_path / "pictures", MOVING, model__dropout_rate=0.0, devices=f"cpu:{number}")
        for number in (1, 2)
    )
    assert_close(trained(one, tmp_path), processes.call(trained, two, tmp_path / "two"))


def test_a_file_that_is_damaged_or_of_another_run_is_written_anew(tmp_path, monkeypatch):
    config = config_of(tmp_path / "pictures", STILL)
    splits = data.load(config)
    keras.utils.set_random_seed(0)
    file = tmp_path / stored.NAME
    looked = []
    for name in ("view", "evaluation"):
        monkeypatch.setattr(data.Splits, name, lambda *_: None)
    monkeypatch.setattr(features, "through", lambda *args: looked.append(1) or np.ones((40, 2)))

    def looks(config, weight=None):
        backbone = stored.cut(network).backbone
        if weight is not None:
            backbone.get_layer("conv").set_weights([weight])
        before = len(looked)
        stored.store(file, config, splits, [backbone, backbone])
        return len(looked) - before

    network = toy.build_model(config, splits)
    assert (looks(config), looks(config)) == (2, 0)
    assert looks(config_of(tmp_path / "pictures", {**STILL, "interpolation": "bicubic"})) == 2
    assert looks(config) == 2
    assert looks(config, network.get_layer("conv").get_weights()[0] + 1) == 2
    file.write_bytes(file.read_bytes()[:-200])
    assert (looks(config), looks(config)) == (2, 0)
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == [stored.NAME]


def test_where_features_cannot_stand_for_the_images_the_reason_is_said(tmp_path, monkeypatch):
    network = toy.build_model(toy.config(), toy.ToySplits(0))

    def why(data=(), **more):
        config = config_of(tmp_path / "pictures", data, **more)
        splits = dataclasses.replace(data_splits, config=config)
        return stored.obstacle(config, splits, network)

    data_splits = data.load(config_of(tmp_path / "pictures"))
    assert why(STILL) is None
    assert why(MOVING) is None
    assert "augmented anew in each epoch. To store some views of each: --views 4" in why()
    assert "mixup" in why({**MOVING, "mixup": 0.2})
    assert "several machines" in why(STILL, workers="a:1,b:2")
    monkeypatch.setattr(stored, "_SHARE", 0)
    assert "GiB do not fit into half of the free memory" in why(STILL)
    keys = {"model__freeze": None, "model__image_size": 32}
    with pytest.raises(UsageError, match="Add --freeze backbone"):
        validate(config_of(tmp_path / "pictures", MOVING, **keys))


@pytest.mark.parametrize("name", ["squeezenet", "mobilenet_v2"])
def test_a_network_in_two_parts_is_the_network(name):
    keras.utils.set_random_seed(0)
    network = keras_lightnets.create_model(
        name, input_shape=(64, 64, 3), classes=3, dropout_rate=0.5
    )
    parts = stored.cut(network)
    images = np.random.default_rng(0).uniform(0, 1, (2, 64, 64, 3)).astype(np.float32)
    whole = network(images, training=False)
    np.testing.assert_allclose(parts.head(parts.backbone(images)), whole, atol=1e-6)
    assert {v.path.split("/")[0] for v in parts.head.trainable_variables} == {
        layer.name for layer in finetune.stages(network)[finetune.HEAD]
    }
    assert any("seed_generator" in v.path for v in parts.head.variables), "dropout is the head's"
