"""Half precision: an overflow on one replica is one for all, and broken runs stop."""

import json

import numpy as np
import pytest

from lightnets.support.errors import UserError
from tests import processes, toy

# In step 7 (the second of epoch 2) only the second half of the batch overflows float16.
OVERFLOW = {"heavy_step": 7}


def check(out):
    """One step was skipped and the scale halved, everywhere; all is finite."""
    rows = json.loads((out / "history.json").read_text())
    assert [row["skipped_steps"] for row in rows] == [0, 1, 1]
    assert [row["loss_scale"] for row in rows] == [2.0**15, 2.0**14, 2.0**14]
    for value in processes.call(toy.weights_of, out / "weights" / "last.keras"):
        assert np.isfinite(value).all()
    return rows


@pytest.mark.parametrize("devices", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_an_overflow_on_the_second_replica_skips_the_step(tmp_path, devices):
    # Catches a finite check before the sum, which sees the first replica only.
    config = toy.config(precision="mixed_float16", devices=f"cpu:{devices}", ema=0.9)
    processes.call(toy.run, config, tmp_path, **OVERFLOW)
    check(tmp_path)


def test_an_overflow_on_the_second_worker_skips_the_step(tmp_path):
    addresses = ",".join(f"127.0.0.1:{port}" for port in processes.free_ports(2))
    children = [
        processes.Child(
            toy.run,
            toy.config(precision="mixed_float16", workers=addresses, worker_index=index),
            tmp_path,
            **OVERFLOW,
        )
        for index in range(2)
    ]
    for child in children:
        child.result()
    check(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_half_precision_learns_as_float32_does(tmp_path, precision):
    keys = {"epochs": 5, "optimizer__learning_rate": 0.02}
    exact = processes.call(toy.run, toy.config(**keys), tmp_path / "a")
    half = processes.call(toy.run, toy.config(**keys, precision=precision), tmp_path / "b")
    assert half["last"]["accuracy"] >= exact["last"]["accuracy"] - 0.05
    assert half["last"]["loss"] == pytest.approx(exact["last"]["loss"], abs=0.05)


@pytest.mark.parametrize(
    "precision", ["float32", pytest.param("mixed_float16", marks=pytest.mark.slow)]
)
def test_a_run_that_is_not_finite_stops_names_the_step_and_keeps_the_checkpoint(
    tmp_path, precision
):
    keys = {"checkpoint_steps": 2, "precision": precision}
    keys |= {"optimizer__schedule": "exponential", "optimizer__decay_rate": 1e12}
    keys |= {"optimizer__decay_epochs": 1.0, "optimizer__nesterov": False}
    with pytest.raises(
        UserError, match=r"not finite (in|after) step \d+.*last good checkpoint.*step \d+"
    ):
        processes.call(toy.run, toy.config(**keys, epochs=6), tmp_path)
