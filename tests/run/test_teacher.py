"""The teacher of a run: what it answers, and that a run with one is as exact as any other."""

import functools
import importlib

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_lightnets
from keras_lightnets.catalogue import imagenet
from lightnets import cli, data
from lightnets.config import keys as configs
from lightnets.evaluation import features
from lightnets.run import networks, teacher
from lightnets.support.errors import UserError
from tests import processes, toy
from tests.checkout import ROOT

LABELS = ["a", "b", "c"]
IMAGES = np.random.default_rng(0).integers(0, 256, (5, 48, 48, 3), np.uint8)


@pytest.fixture(scope="module")
def named(tmp_path_factory):
    """A network that knows its classes, in a file."""
    keras.utils.set_random_seed(0)
    shape = (48, 48, 3)
    model = keras_lightnets.create_model(
        "squeezenet", classes=["c", "x", "a", "b"], input_shape=shape, include_preprocessing=True
    )
    path = tmp_path_factory.mktemp("teacher") / "named.keras"
    model.save(path)
    return model, path


def test_it_answers_in_the_order_of_the_runs_classes(named):
    # Mutation: `places` not gathered.
    model, path = named
    logits = keras_lightnets.logits_model(model)(IMAGES.astype("float32"), training=False)
    expected = np.asarray(logits)[:, [2, 3, 0]]
    found = teacher.load(str(path), LABELS, (48, 48)).logits(tf.constant(IMAGES)).numpy()
    # But for a number that is the same for all classes of an image.
    found, expected = (x - x.mean(-1, keepdims=True) for x in (found, expected))
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_it_sees_images_at_its_own_size(named):
    # Mutation: no resizing, which the network refuses; smaller images without antialiasing.
    path = named[1]
    large = np.repeat(np.repeat(IMAGES, 2, axis=1), 2, axis=2)
    seen = teacher.load(str(path), LABELS, (96, 96))
    small = tf.image.resize(large, (48, 48), antialias=True)
    np.testing.assert_allclose(seen.logits(tf.constant(large)), seen.logits(small), atol=1e-5)


def test_classes_that_it_lacks_are_named(named):
    with pytest.raises(UserError, match=r"The data has classes that the teacher .*: d, e\. It has"):
        teacher.load(str(named[1]), ["a", "d", "e"], (48, 48))


def plain(tmp_path, units, activation):
    image = keras.Input((None, None, 3))
    x = keras.layers.Dropout(0.5)(keras.layers.GlobalAveragePooling2D()(image))
    model = keras.Model(image, keras.layers.Dense(units, activation)(x))
    model.save(tmp_path / "plain.keras")
    return model, str(tmp_path / "plain.keras")


def test_a_network_of_anybody_answers_by_probabilities_or_logits(tmp_path):
    answers = []
    for activation in ("softmax", None):
        model, path = plain(tmp_path, 3, activation)
        answers.append(tf.nn.softmax(teacher.load(path, LABELS, (48, 48)).logits(IMAGES)))
        expected = model(IMAGES.astype("float32"), training=False)
        expected = expected if activation else tf.nn.softmax(expected)
        np.testing.assert_allclose(answers[-1], expected, atol=1e-6)
    _, path = plain(tmp_path, 3, "sigmoid")
    with pytest.raises(UserError, match="neither probabilities that sum to 1 nor logits"):
        teacher.load(path, LABELS, (48, 48))
    with pytest.raises(UserError, match="has 3 classes, the data 2"):
        teacher.load(plain(tmp_path, 3, "softmax")[1], LABELS[:2], (48, 48))


def test_a_network_of_keras_applications_has_its_own_preprocessing(tmp_path, monkeypatch):
    # Mutation: pixels that are not brought to -1 to 1; a digest with the state of its dropout.
    original, made = keras.applications.MobileNet, []

    @functools.wraps(original)
    def build(weights):
        assert weights == "imagenet"
        # In place of the real one, whose answers are all the same without its weights.
        made.append(plain(tmp_path, 1000, "softmax")[0])
        made[-1].set_weights(made[0].get_weights())
        return made[-1]

    monkeypatch.setattr(keras.applications, "MobileNet", build)
    labels = [imagenet.class_names()[7], imagenet.class_names()[3]]
    first, second = (
        teacher.load("keras.applications:MobileNet", labels, (48, 48)) for _ in range(2)
    )
    assert first.digest == second.digest
    found = first.logits(tf.constant(IMAGES))
    expected, bare = (
        made[0](pixels, training=False).numpy()[:, [7, 3]]
        for pixels in (IMAGES / np.float32(127.5) - 1, IMAGES.astype("float32"))
    )
    np.testing.assert_allclose(tf.exp(found), expected, rtol=1e-3)
    assert not np.allclose(expected, bare, rtol=1e-2)
    with pytest.raises(UserError, match=r"no network 'MobileNat'\. Did you mean 'MobileNet'"):
        teacher.load("keras.applications:MobileNat", labels, (48, 48))

    @functools.wraps(original)
    def unreachable(weights):
        raise Exception("URL fetch failure on https://a/b.h5: None -- no route\nmore")

    monkeypatch.setattr(keras.applications, "MobileNet", unreachable)
    with pytest.raises(
        UserError, match=r"Cannot load the teacher .*: URL fetch failure on .* route"
    ):
        teacher.load("keras.applications:MobileNet", labels, (48, 48))


# All that keeps state, and a teacher with dropout and batch norm, too.
KEYS = {"accumulate": 2, "ema": 0.9, "checkpoint_steps": 4, "epochs": 2, "sync_bn": True}
KEYS |= {"model__dropout_rate": 0.0}


def taught(config, out, die_at=None):
    """Trains; returns what is left, and the digest of the teacher at the end."""
    opened, original = [], networks.open
    networks.open = lambda target: opened.append(original(target)) or opened[0]
    toy.run(config, out, at_step=toy.death_at(die_at))
    reader = tf.train.load_checkpoint(tf.train.latest_checkpoint(str(out / "checkpoints")))
    kept = [name for name in reader.get_variable_to_shape_map() if name.startswith("model/")]
    digest = features.fingerprint(opened[0].model)
    return toy.outcome(out), len(kept), digest, toy.weights_of(out / "weights" / "last.keras")


def other_teacher(config, out):
    """Resumes with a teacher of other weights; returns what the user is told."""
    with pytest.raises(UserError) as told:
        toy.run(config, out)
    return str(told.value)


def taught_without_labels(config, out, die_at=None):
    """Trains the toy network on files; returns the outcome and the weights at the end."""
    toy.run(config, out, at_step=toy.death_at(die_at), real=(data, "load"))
    return toy.outcome(out), toy.weights_of(out / "weights" / "last.keras")


@pytest.mark.slow
def test_a_run_with_pictures_without_labels_is_exact(tmp_path):
    # Mutations: their place in an epoch depends on the process; a run does not follow them.
    toy.noise_files(tmp_path / "labelled", 20, ("a", "b", "c", "d"))
    toy.noise_files(tmp_path / "more", 33, (".",), rng=np.random.default_rng(1))
    keras.utils.set_random_seed(0)
    toy.build_model(toy.config(), toy.ToySplits(0)).save(tmp_path / "teacher.keras")

    def config(place, devices="cpu:2"):
        keys = {"distillation__teacher": str(tmp_path / "teacher.keras"), **KEYS}
        keys |= {"data__dataset": str(tmp_path / "labelled"), "data__unlabelled": str(place)}
        return toy.config(devices=devices, data__random_erasing=0.5, data__mixup=0.2, **keys)

    more = tmp_path / "more"
    whole, weights = processes.call(taught_without_labels, config(more), tmp_path / "whole")
    alone = processes.call(taught_without_labels, config(more, "cpu:1"), tmp_path / "alone")[1]
    for mine, theirs in zip(alone, weights, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-5)
    killed = processes.Child(taught_without_labels, config(more), tmp_path / "killed", die_at=9)
    with pytest.raises(ChildProcessError):
        killed.result()
    moved = more.rename(tmp_path / "moved")
    found = processes.call(taught_without_labels, config(moved), tmp_path / "killed")[0]
    assert found == whole
    saved = configs.from_dict(configs.load(tmp_path / "killed" / "config.yaml"))
    assert saved.data.unlabelled == str(moved)


@pytest.mark.slow
def test_what_is_said_of_pictures_without_labels(tmp_path, monkeypatch, capsys):
    # Mutations: the report shows them as of the first class; they are not known to be learned from.
    monkeypatch.chdir(tmp_path)
    for split in ("train", "val"):
        toy.noise_files(tmp_path / "labelled" / split, 12, LABELS, rng=np.random.default_rng(5))
    toy.noise_files(tmp_path / "more", 9, LABELS, rng=np.random.default_rng(6))
    plain(tmp_path, 3, "softmax")
    flags = ["--recipe", "scratch-small", "--epochs", "1", "--batch-size", "4", "--out", "run"]
    flags += ["--model", "tests.foreign_networks:plain", "--image-size", "32"]
    flags += ["--teacher", "plain.keras", "--unlabelled", "more"]
    assert cli.main(["train", "labelled", *flags]) == 0
    assert "21 images, 9 of them without a label" in capsys.readouterr().out
    card = (tmp_path / "run" / "MODEL_CARD.md").read_text()
    assert "labelled, 12 images to train on, 9 more without labels" in card
    page = (tmp_path / "run" / "report.html").read_text()
    assert "12 to train on, 12 held out" in page
    assert "Without labels" in page
    # What has gone is asked for no more, but for what it was.
    assert cli.main(["evaluate", "run", "--dataset", "more", "--no-report"]) == 0
    assert "The run was trained on 9 of these images" in capsys.readouterr().out
    (tmp_path / "more").rename(tmp_path / "gone")
    assert cli.main(["evaluate", "run", "--report"]) == 0
    assert cli.main(["evaluate", "run", "--dataset", "gone", "--no-report"]) == 0
    assert "cannot be told: There is no folder or list" in capsys.readouterr().out


@pytest.mark.nightly
def test_pictures_without_labels_are_worth_points(tmp_path, monkeypatch):
    # benchmarks/results/distillation-*.csv has five seeds of twice as many steps.
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    distillation = importlib.import_module("distillation")
    monkeypatch.setattr(distillation, "EPOCHS_OF_SOME", 57)
    monkeypatch.setattr(distillation, "EPOCHS_OF_ALL", 4)
    assert distillation.train_teacher(tmp_path / "teacher.keras") > 0.95
    alone, _, with_more = distillation.of_seed(tmp_path / "teacher.keras", 0)
    assert with_more > alone + 0.05


@pytest.mark.slow
def test_a_run_with_a_teacher_is_exact(tmp_path):
    for number, name in enumerate(("teacher", "other")):
        keras.utils.set_random_seed(number)
        model = toy.build_model(toy.config(), toy.ToySplits(0))
        model.save(tmp_path / f"{name}.keras")
        if name == "teacher":
            digest = features.fingerprint(model)

    def config(devices="cpu:2", file="teacher.keras", **keys):
        keys |= {"distillation__teacher": str(tmp_path / file), **KEYS}
        return toy.config(devices=devices, **keys)

    whole, kept, after, weights = processes.call(taught, config(), tmp_path / "whole")
    # It has not moved, and nothing of it is kept but its digest.
    assert after == digest == (tmp_path / "whole" / teacher.NAME).read_text()
    assert kept == len(weights)
    killed = processes.Child(taught, config(), tmp_path / "killed", die_at=7)
    with pytest.raises(ChildProcessError):
        killed.result()
    said = processes.call(other_teacher, config(file="other.keras"), tmp_path / "killed")
    assert "have changed since the run" in said
    (tmp_path / "teacher.keras").rename(tmp_path / "moved.keras")
    moved = config(file="moved.keras")
    assert processes.call(taught, moved, tmp_path / "killed")[0] == whole
    saved = configs.from_dict(configs.load(tmp_path / "killed" / "config.yaml"))
    assert saved.distillation.teacher == str(tmp_path / "moved.keras")
    # One replica does what two do.
    alone = processes.call(taught, config("cpu:1", "moved.keras"), tmp_path / "alone")[3]
    for mine, theirs in zip(alone, weights, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-5)
