"""Trains one configuration on every device it names, and resumes it to the bit.

There is one loop for one device, several replicas and several machines. What it does is a
function of the configuration alone: killed at any moment and resumed, it ends with the bits
it would have ended with otherwise.
"""

from __future__ import annotations

import contextlib
import pathlib
import re
import time
from typing import Any

import tensorflow as tf

from lightnets.config.keys import Config
from lightnets.data import failures
from lightnets.data.sources import tfds as tfds_source
from lightnets.distribution import workers
from lightnets.optimization.step import seen_so_far
from lightnets.run import run_lock
from lightnets.run.loop import Loop
from lightnets.run.training import Training
from lightnets.support import console
from lightnets.support.errors import UserError
from lightnets.support.progress import duration


def train(config: Config, out: pathlib.Path | None, *, resume: bool = False) -> dict[str, Any]:
    """Runs `config`, leaves everything in the run directory `out`, returns the results.

    Args:
        config: The resolved configuration.
        out: Run directory; None for a dry run: build everything, time a few steps, write nothing.
        resume: Continue from the last checkpoint in `out`, if there is one.

    Raises:
        Interrupted: SIGTERM or SIGINT; the state is saved.
        UserError: Something outside the program is wrong, or another job is in `out`.
    """
    members = workers.cluster(config.train)
    again = workers.resume_command(config.train, out) if out else "the same command"
    place = contextlib.nullcontext()
    if out is not None and (members is None or members.is_chief):
        place = run_lock.held(out)
    training: Training | None = None
    with place, workers.explain_failures(members, again):
        try:
            training = Training(config, out, resume=resume)
            return _run(training, config)
        except (tf.errors.OpError, MemoryError) as error:
            if lacking := re.search(_NOT_IN_XLA, str(error)):
                raise UserError(
                    f"{config.model.label} has {lacking[1]}, which XLA lacks. Add --jit off."
                ) from None
            if not _lacks_memory(error):
                raise
            raise UserError(_how_to_save_memory(config, training)) from None


def _run(training: Training, config: Config) -> dict[str, Any]:
    def steps() -> range:
        step = int(training.state.step.numpy())
        # Batches are made in advance, and an error may overtake those before it.
        return range(step, step + config.train.steps_per_execution + 32)

    batch = training.config.train.batch_size
    with failures.explain(training.splits, global_batch=batch, steps=steps):
        return _dry_run(training) if training.out is None else Loop(training, training.out).run()


def _dry_run(training: Training) -> dict[str, Any]:
    """Times a few steps; prints sizes and an estimate."""
    for line in training.describe():
        console.line(line)
    train = training.config.train
    batches = training.batches()
    seconds = []
    for number in range(4):
        started = time.perf_counter()
        training.take_steps(batches, 1, [0.0, 0.0])
        training.state.step.numpy()  # waits for the device
        seconds.append(time.perf_counter() - started)
        if number == 0:
            console.line(f"First step {seconds[0]:.1f} s (includes building)")
    step = min(seconds[1:])
    total = step * training.steps_per_epoch * train.epochs
    console.line(
        f"Then {step * 1e3:.0f} ms a step, {train.batch_size / step:.0f} images/s; "
        f"about {duration(total)} of training in all"
    )
    console.line(f"Loss after {len(seconds)} steps: {seen_so_far(training.state)['loss']:.4f}")
    for folder in tfds_source.prepared:
        console.line(f"Prepared {folder}, which a run will use.")
    console.line("No run was written.")
    return {"step_seconds": step, "estimated_seconds": total}


# What somebody's network may have, and none of ours has.
_NOT_IN_XLA = r"Detected unsupported operations when trying to compile graph .*?: (\w+) "

# cuDNN, cuBLAS and the driver that get no memory raise InternalError, in these words.
_NO_MEMORY = re.compile(r"ALLOC\w*_FAILED|out.of.memory|allocation failed", re.IGNORECASE)


def _lacks_memory(error: Exception) -> bool:
    kinds = (MemoryError, tf.errors.ResourceExhaustedError)
    return isinstance(error, kinds) or bool(_NO_MEMORY.search(str(error)))


def _how_to_save_memory(config: Config, training: Training | None) -> str:
    """Says what lacked memory; `training` is None if it was the network itself."""
    train = training.config.train if training else config.train
    share = train.batch_size // training.replicas if training else 0  # of a replica
    parts = range(train.accumulate + 1, share + 1)
    cut = next((f"train.accumulate={k} (same result) or " for k in parts if share % k == 0), "")
    recompute = "a smaller model.image_size" if train.recompute else "train.recompute=true"
    return (
        f"Out of memory at train.batch_size={train.batch_size}, "
        f"train.accumulate={train.accumulate}, model.image_size={config.model.image_size}. "
        f"Try {cut}{recompute}."
    )
