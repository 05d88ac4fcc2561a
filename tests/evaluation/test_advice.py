import pathlib

import numpy as np
import pytest

from lightnets.config.keys import from_dict
from lightnets.evaluation.advice import in_place, of_predictions, of_training

TRUE = np.repeat([0, 1, 2], [40, 30, 30])


def predicted(said, true=TRUE):
    return list(of_predictions(["a", "b", "c"], true, np.asarray(said)))


def test_a_good_run_gets_no_advice():
    assert predicted(TRUE) == []
    history = [{"accuracy": 0.9, "val_accuracy": 0.9}] * 10
    assert list(of_training(from_dict({}), history, 50)) == []


def test_chance_and_classes_never_answered_are_named():
    chance, never = predicted(np.zeros(100, int))
    assert "0.4 on 100 images is not surely better than to answer a always (0.4)" in chance
    assert "lightnets data show DATA" in chance
    assert never.startswith("No image was taken for b, c.")
    # Half of the answers are right: far from chance.
    assert predicted(np.where(np.arange(100) % 4 < 3, TRUE, (TRUE + 1) % 3)) == []


def test_a_class_of_which_hardly_any_image_was_held_out_is_named():
    true = np.repeat([0, 1, 2], [30, 30, 4])
    assert predicted(true, true) == ["Fewer than 5 held-out images of c: the numbers say little."]


@pytest.mark.parametrize(
    ("model", "way"),
    [
        ({}, "--weights imagenet"),
        ({"weights": "imagenet"}, "--freeze backbone"),
        ({"weights": "imagenet", "freeze": "backbone"}, "data.auto_augment=trivialaugment"),
    ],
)
def test_learning_by_heart_is_named_with_what_helps_this_run(model, way):
    history = [{"accuracy": 0.99, "val_accuracy": 0.7}] * 5
    (line,) = of_training(from_dict({"model": model}), history, 50)
    assert "29 points better" in line
    assert way in line


def test_few_images_and_an_early_end_are_named():
    history = [{"accuracy": 0.1 * n, "val_accuracy": 0.1 * n} for n in range(1, 6)]
    few, rising = of_training(from_dict({"train": {"epochs": 5}}), history, 12)
    assert few.startswith("12 training images a class")
    command = "lightnets train --resume RUN --extend 5"
    assert rising.endswith(f"Try {command}")
    (pasted,) = in_place([rising], pathlib.Path("my runs/1"), "data")
    assert pasted.endswith("lightnets train --resume 'my runs/1' --extend 5")


def test_a_run_that_has_learned_everything_need_not_go_on():
    history = [{"accuracy": 0.2 * n, "val_accuracy": 0.2 * n} for n in range(1, 6)]
    assert list(of_training(from_dict({"train": {"epochs": 5}}), history, 50)) == []
