"""Evaluation counts every image once, for any size of the set and any number of replicas."""

import pytest

from tests import processes, toy
from training import scoring
from training.evaluate import Evaluator

SIZES = [1, 7, 359, 360]
BATCH = 32


def scores(devices):
    """Scores one network on sets of all sizes, in this process."""
    import keras

    from training import strategy

    keras.utils.set_random_seed(0)
    chosen = strategy.create(f"cpu:{devices}")
    results = []
    with chosen.scope():
        model = toy.build_model(toy.config(), toy.ToySplits(0))
    evaluator = Evaluator(model, chosen)
    for size in SIZES:
        true, probabilities = evaluator(toy.ToySplits(0, eval_examples=size), BATCH)
        results.append(scoring.score(true, probabilities))
    return results


def test_every_number_of_replicas_gives_the_same(tmp_path):
    # Catches padding that counts, and a last batch smaller than the number of replicas.
    one = processes.call(scores, 1)
    assert [result["images"] for result in one] == SIZES
    for devices in (2, 4):
        for result, expected in zip(processes.call(scores, devices), one, strict=True):
            assert result["images"] == expected["images"]
            assert result["accuracy"] == expected["accuracy"]
            assert result["loss"] == pytest.approx(expected["loss"], abs=1e-6)
