import keras
import numpy as np
import pytest

from lightnets.config.keys import OptimizerConfig
from lightnets.optimization.schedules import Schedule

EPOCHS, STEPS_PER_EPOCH = 10, 20
TOTAL = EPOCHS * STEPS_PER_EPOCH


def build(**options):
    config = OptimizerConfig(learning_rate=0.4, **options)
    return Schedule(config, STEPS_PER_EPOCH, EPOCHS, global_batch=64)


def rates(schedule, steps):
    return np.array([float(schedule(step)) for step in steps])


STEPS = np.array([0, 1, 19, 20, 21, 99, 100, 199])


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"schedule": "constant"}, np.full(len(STEPS), 0.4)),
        ({"schedule": "linear"}, 0.4 * (1 - STEPS / 200)),
        ({"schedule": "linear", "end_rate": 0.1}, 0.4 * (0.1 + 0.9 * (1 - STEPS / 200))),
        ({"schedule": "cosine"}, 0.2 * (1 + np.cos(np.pi * STEPS / 200))),
        ({"schedule": "polynomial", "power": 2.0}, 0.4 * (1 - STEPS / 200) ** 2),
        ({"schedule": "exponential", "decay_rate": 0.9}, 0.4 * 0.9 ** (STEPS / 20)),
        ({"schedule": "step", "decay_rate": 0.9}, 0.4 * 0.9 ** (STEPS // 20)),
        (
            {"schedule": "step", "decay_rate": 0.94, "decay_epochs": 2.5},
            0.4 * 0.94 ** (STEPS // 50),
        ),
    ],
)
def test_closed_forms(options, expected):
    np.testing.assert_allclose(rates(build(**options), STEPS), expected, rtol=2e-6, atol=1e-9)


@pytest.mark.parametrize(
    ("options", "reference"),
    [
        ({"schedule": "cosine"}, keras.optimizers.schedules.CosineDecay(0.4, TOTAL)),
        (
            {"schedule": "cosine", "end_rate": 0.05},
            keras.optimizers.schedules.CosineDecay(0.4, TOTAL, alpha=0.05),
        ),
        (
            {"schedule": "cosine", "warmup_epochs": 2.0},
            keras.optimizers.schedules.CosineDecay(
                0.0, TOTAL - 40, warmup_target=0.4, warmup_steps=40
            ),
        ),
        (
            {"schedule": "polynomial", "power": 1.5},
            keras.optimizers.schedules.PolynomialDecay(0.4, TOTAL, 0.0, power=1.5),
        ),
        (
            {"schedule": "step", "decay_rate": 0.98},
            keras.optimizers.schedules.ExponentialDecay(0.4, 20, 0.98, staircase=True),
        ),
        (
            {"schedule": "exponential", "decay_rate": 0.98},
            keras.optimizers.schedules.ExponentialDecay(0.4, 20, 0.98),
        ),
    ],
)
def test_equal_to_keras(options, reference):
    steps = range(0, TOTAL + 30, 7)  # also beyond the end
    np.testing.assert_allclose(
        rates(build(**options), steps), rates(reference, steps), rtol=1e-5, atol=1e-8
    )


@pytest.mark.parametrize("kind", ["constant", "linear", "cosine", "exponential", "step"])
def test_warm_up_is_per_step_and_reaches_the_peak(kind):
    schedule = build(schedule=kind, warmup_epochs=1.5, warmup_start=0.1)
    expected = 0.4 * (0.1 + 0.9 * np.arange(31) / 30)  # step 30 has the full rate
    np.testing.assert_allclose(rates(schedule, range(31)), expected, rtol=1e-6)


def test_decay_counts_from_the_end_of_the_warm_up():
    schedule = build(schedule="linear", warmup_epochs=2.0)
    np.testing.assert_allclose(rates(schedule, [40, 120, 200]), [0.4, 0.2, 0.0], atol=1e-7)


def test_rate_follows_the_global_batch_on_request():
    assert float(build(schedule="constant", scale_to_batch=256)(0)) == pytest.approx(0.1)
    assert float(build(schedule="constant")(0)) == pytest.approx(0.4)


def test_an_extension_begins_anew_at_its_rate():
    # Mutation: one that counts its steps from the start of the run, or ends where it did.
    schedule = build(schedule="linear", warmup_epochs=1.0, extensions={"8": 0.2, "4": 0.1})
    steps, expected = (
        [20, 79, 80, 120, 159, 160, 180, 199, 210],
        [0.4, 0.4 / 60, 0.1, 0.05, 0.1 / 80],
    )
    expected += [0.2, 0.1, 0.2 / 40, 0.0]
    np.testing.assert_allclose(rates(schedule, steps), expected, rtol=1e-5, atol=1e-8)


def test_late_steps_of_long_runs_are_exact():
    # 5.5 million steps; a bfloat16 or float16 step counter would stand still.
    schedule = Schedule(
        OptimizerConfig(schedule="linear", learning_rate=1.0), 5_500_000, epochs=1, global_batch=1
    )
    assert float(schedule(5_499_999)) == pytest.approx(1 / 5_500_000, rel=0.1)


def test_a_warm_up_that_rounds_to_the_whole_run_ends_at_the_peak():
    options = OptimizerConfig(learning_rate=0.4, schedule="cosine", warmup_epochs=0.9)
    schedule = Schedule(options, 1, epochs=1, global_batch=64)
    np.testing.assert_allclose(rates(schedule, [0, 1, 2]), [0.0, 0.4, 0.0], atol=1e-7)
