import numpy as np
import pytest
from sklearn import metrics

from lightnets.evaluation.scoring import guessing_loss, score


def test_scores_equal_those_of_scikit_learn():
    rng = np.random.default_rng(0)
    true = rng.integers(0, 6, 200)
    probabilities = rng.dirichlet(np.ones(6), 200)
    result = score(true, probabilities, top=3)
    assert result["images"] == 200
    assert result["accuracy"] == metrics.accuracy_score(true, probabilities.argmax(-1))
    assert result["loss"] == pytest.approx(metrics.log_loss(true, probabilities, labels=range(6)))
    assert result["top_3_accuracy"] == metrics.top_k_accuracy_score(
        true, probabilities, k=3, labels=range(6)
    )


def test_k_is_cut_to_what_says_something():
    assert set(score([0, 1], np.eye(2), top=5)) == {"images", "accuracy", "loss"}
    assert "top_2_accuracy" in score([0, 1, 2], np.eye(3), top=5)


def test_a_confident_mistake_has_a_finite_loss():
    assert score([1], np.array([[1.0, 0.0]]))["loss"] == pytest.approx(-np.log(1e-7))


def test_guessing_is_the_best_answer_that_is_the_same_for_all():
    shares = np.array([0.7, 0.2, 0.1])
    assert guessing_loss(np.ones(10) / 10) == pytest.approx(np.log(10))
    assert guessing_loss(np.array([0.5, 0.5, 0.0])) == pytest.approx(np.log(2), abs=1e-5)
    for smoothing in (0.0, 0.2):
        targets = (1 - smoothing) * shares + smoothing / 3
        losses = [
            -np.sum(targets * np.log(answer))
            for answer in np.random.default_rng(0).dirichlet(np.ones(3), 2000)
        ]
        assert guessing_loss(shares, smoothing) == pytest.approx(min(losses), abs=1e-2)
        assert guessing_loss(shares, smoothing) <= min(losses)


def test_no_images_are_refused():
    with pytest.raises(ValueError, match="no images"):
        score(np.zeros(0, int), np.zeros((0, 3)))
