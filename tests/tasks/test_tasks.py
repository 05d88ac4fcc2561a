"""The tasks: losses, numbers of held-out images, thresholds, and what the configuration refuses."""

import types

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_lightnets.errors import ParityError
from keras_lightnets.export import tasks as served
from lightnets import tasks
from lightnets.config import keys as configs
from lightnets.config import resolve, validate
from lightnets.evaluation.scoring import Predictions
from lightnets.run.history import History
from lightnets.support.errors import UsageError
from tests import toy

NAN = np.nan
TRUE = np.array([[1, 0], [0, NAN], [1, 1], [0, 1]], np.float32)
NAMES = ["cat", "dog"]
SCORES = np.array([[0.9, 0.4], [0.2, 0.1], [0.3, 0.8], [0.1, 0.3]], np.float32)


def test_what_is_not_known_counts_in_no_loss_and_no_number():
    # Mutation: `known` left out of the share.
    logits = np.log(SCORES / (1 - SCORES))
    losses, hits = tasks.MultiLabel((0.5, 0.5)).judge(tf.constant(TRUE), tf.constant(logits))
    each = -np.log(np.where(TRUE == 1, SCORES, 1 - SCORES))
    expected = [each[0].mean(), each[1, 0], each[2].mean(), each[3].mean()]
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    np.testing.assert_allclose(hits, [1, 1, 0.5, 0.5])
    found = tasks.MultiLabel((0.5, 0.5)).score(Predictions(TRUE, SCORES, NAMES))
    assert found["loss"] == pytest.approx(each[~np.isnan(TRUE)].mean(), rel=1e-5)
    # Of cats the first two are the cats; of dogs 0.8, then 0.4, which is none, then 0.3.
    assert found["mean_average_precision"] == pytest.approx((1 + (1 + 2 / 3) / 2) / 2)


def test_thresholds_are_those_of_the_best_f1_between_two_scores():
    # Mutation: the first score that is one in place of the best F1.
    task = tasks.MultiLabel((0.5, 0.5)).fitted(Predictions(TRUE, SCORES, NAMES))
    np.testing.assert_allclose(task.thresholds[0], 0.25)
    assert task.present(SCORES)[:, 0].tolist() == [True, False, True, False]
    # Of dogs all three known ones give 2 * 2 / (3 + 2), the surest alone 2 / 3.
    np.testing.assert_allclose(task.thresholds[1], 0.15)
    first = Predictions(TRUE[:1, 1:], SCORES[:1, 1:], NAMES[1:])
    assert tasks.MultiLabel((0.5,)).fitted(first).thresholds == (0.5,)


def test_values_are_learned_in_standard_deviations_and_told_in_units():
    values = np.array([[10.0, 0], [30, 2], [20, 4]], np.float32)
    config = toy.config(task="regression")
    task = tasks.Regression.begin(config, lambda: values, 2)
    assert task.mean == [20, 2]
    logits = np.array([[0.0, 0.0]], np.float32)
    losses, errors = task.judge(tf.constant(values[:1]), tf.constant(logits))
    np.testing.assert_allclose(losses, [1.5], rtol=1e-5)  # both are sqrt(3/2) deviations away
    np.testing.assert_allclose(errors, [6], rtol=1e-5)  # the mean of 10 and 2
    found = task.score(Predictions(values, values + np.float32([3, -1]), NAMES))
    assert found["mae"] == pytest.approx(2)
    assert task.guessing(values, 2) == pytest.approx(1)
    given = keras.Input((2,))
    end = keras.layers.Softmax()(keras.layers.Dense(2, name="logits")(given))
    network = task.finish(keras.Model(given, end))
    network.get_layer("logits").set_weights([np.eye(2), np.zeros(2)])
    std = np.sqrt([200 / 3, 8 / 3])
    told = network(np.float32([[1, -1]]))
    np.testing.assert_allclose(told, [[20 + std[0], 2 - std[1]]], rtol=1e-5)


def test_huber_forgives_what_is_far_off():
    task = tasks.Regression((0.0,), (1.0,), "huber")
    labels, logits = tf.constant([[0.0], [0.0]]), tf.constant([[0.5], [3.0]])
    np.testing.assert_allclose(task.judge(labels, logits)[0], [0.125, 2.5])


@pytest.mark.parametrize(
    ("task", "keys", "message"),
    [
        (
            "regression",
            {"data": {"mixup": 0.2}},
            "data.mixup is for classification and multi-label",
        ),
        ("multi-label", {"data": {"folds": 3}}, "data.folds is for classification, not for --task"),
        (
            "multi-label",
            {"train": {"label_smoothing": 0.1}},
            "train.label_smoothing is for classif",
        ),
        ("classification", {"train": {"loss": "huber"}}, "train.loss is for regression, not for"),
        (
            "regression",
            {"train": {"monitor": "val_accuracy"}},
            "train.monitor must be val_loss, va",
        ),
    ],
)
def test_what_means_nothing_to_a_task_is_refused(task, keys, message):
    monitor = {"regression": "val_loss", "multi-label": "val_loss"}.get(task, "val_accuracy")
    config = configs.from_dict({"train": {"task": task, "monitor": monitor}})
    config = configs.update(config, keys, where="the test")
    with pytest.raises(UsageError, match=message):
        validate.validate(config)


def test_a_recipe_gives_way_to_the_task():
    args = types.SimpleNamespace(
        recipe="finetune", config=None, set=[], **{"train.task": "multi-label"}
    )
    config = resolve.resolve(args)
    assert config.train.label_smoothing == 0
    assert config.train.monitor == "val_mean_average_precision"


def test_the_lowest_error_is_the_best():
    history = History("val_mae")
    assert [history.add({"epoch": k, "val_mae": v}) for k, v in enumerate((3.0, 1.0, 2.0))] == [
        True,
        True,
        False,
    ]


@pytest.mark.filterwarnings("error")
def test_a_label_that_no_held_out_image_knows_does_not_hide_what_guessing_costs():
    true = np.array([[1, 0, NAN], [0, NAN, NAN], [1, NAN, NAN], [0, NAN, NAN]])
    # Four known entries of a label that half of the images have, one of a label that none has.
    assert tasks.MultiLabel((0.5,) * 3).guessing(true, 3) == pytest.approx(np.log(2) * 4 / 5, 1e-5)


def test_the_gate_of_scores_looks_at_each_label_and_of_values_at_their_spread():
    labels = served.MultiLabel((0.5, 0.25))
    found = labels.compare("x", SCORES, SCORES + 1e-6, TRUE, None, 1e-5)
    assert (found["label_agreement"], found["keras_accuracy"]) == (1, 5 / 7)
    # The other way round at one threshold.
    other = SCORES.copy()
    other[2, 0] = 0.6
    with pytest.raises(ParityError, match=r"labels agreement 0\.8750"):
        labels.compare("x", SCORES, other, TRUE, None, 0.1)
    values = served.Regression((0.0,), (1000.0,))
    own = np.array([[5000.0], [0]], np.float32)
    assert values.compare("x", own, own + 0.05, None, None, 1e-5)["max_difference"] < 1e-4
    with pytest.raises(ParityError, match=r"differ from the Keras model's by 2\.00e-04 standard"):
        values.compare("x", own, own + 0.2, None, None, 1e-5)
    with pytest.raises(ParityError, match=r"the mean error rises by 5\.00e-02"):
        values.compare("x", own, own + 50, own, 0.01, 1e-5)


def test_a_model_says_what_its_numbers_mean():
    for task in (tasks.MultiLabel((0.25, 0.5)), tasks.Regression((1.0,), (2.0,), "huber")):
        assert tasks.of(task.about()).about() == task.about()
        assert served.of(task.about()).about() == task.about()
    assert type(tasks.of(None)) is tasks.Classification
    assert served.of(None) is served.CLASSIFICATION


def test_what_is_shown_of_an_answer():
    labels = tasks.MultiLabel((0.5, 0.25))
    answers = [("a.png", labels.answer(SCORES[0], NAMES, None, 1)), ("b.png", None)]
    answers[1] = ("b.png", labels.answer(SCORES[1], NAMES, None, 1))
    shown = labels.shown(answers, exact=False)
    assert shown.cells == [["a.png", "cat 0.90, dog 0.40"], ["b.png", "none"]]
    assert shown.records[0]["labels"] == ["cat", "dog"]
    assert labels.shown(answers, exact=True).cells[1] == ["b.png", "", "0.200000", "0.100000"]
    values = tasks.Regression((0.0,), (1.0,))
    one = [("a.png", values.answer(np.float32([12345.678]), ["age"], None, 1))]
    assert values.shown(one, exact=False).cells == [["a.png", "12346"]]
    assert values.shown(one, exact=True).header == ["file", "age"]
    assert [tasks.of_answer(a).name for a in (answers[0][1], one[0][1])] == [
        "multi-label",
        "regression",
    ]
