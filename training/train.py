"""Trains one configuration: the loop around `training.step`, and all that it leaves behind.

There is one loop for one device, several replicas and several machines. What it does is a
function of the configuration alone: killed at any moment and resumed, it ends with the bits
it would have ended with otherwise.
"""

from __future__ import annotations

import contextlib
import math
import os
import pathlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import keras_lightnets
from training import batch_norm, data, finetune, optimizers, report, scoring, strategy
from training.checkpoint import Checkpoints
from training.config import Config
from training.ema import WeightAverage
from training.errors import UserError
from training.evaluate import Evaluator, distribute
from training.history import History
from training.interrupts import Interrupted, Interrupts
from training.progress import Progress, duration
from training.run import Run, write_json
from training.step import LoopState, TrainStep, seen_so_far


def train(
    config: Config, out: pathlib.Path | None, *, resume: bool = False, dry_run: bool = False
) -> dict[str, Any]:
    """Runs `config`, leaves everything in the run directory `out`, returns the results.

    Args:
        config: The resolved configuration.
        out: Run directory; None only with `dry_run`.
        resume: Continue from the last checkpoint in `out`, if there is one.
        dry_run: Build everything, time a few steps, write nothing.

    Raises:
        Interrupted: SIGTERM or SIGINT; the state is saved.
        UserError: Something outside the program is wrong.
    """
    with _explain_memory(config):
        trainer = Trainer(config, out, resume=resume)
        if dry_run:
            return trainer.dry_run()
        return trainer.run()


class Trainer:
    """A run in progress: everything built from the configuration, nothing written yet."""

    def __init__(self, config: Config, out: pathlib.Path | None, *, resume: bool = False):
        self.config = config
        self.resume = resume
        self.out = out
        if config.train.deterministic:
            tf.config.experimental.enable_op_determinism()
        self.strategy = strategy.create(config.train.devices)
        self.replicas = self.strategy.num_replicas_in_sync
        strategy.check_batch(config.train, self.replicas)
        self.policy = strategy.precision(config.train.precision)
        self.jit = strategy.jit(config.train.jit, self.strategy)
        self.chief = True
        self.splits = data.load(config, **({"saved": out} if resume else {}))
        self.steps_per_epoch = self.splits.train_examples // config.train.batch_size
        if not self.steps_per_epoch:
            raise UserError(
                f"train.batch_size (={config.train.batch_size}) exceeds the "
                f"{self.splits.train_examples} training images. Use a smaller one."
            )
        keras.utils.set_random_seed(config.train.seed)
        with self.strategy.scope():
            self._build()

    def _build(self) -> None:
        config = self.config
        # What is evaluated and saved is another copy of the network, in float32: the weights
        # to judge (the present ones or their average) are copied to it, so that nothing that
        # is trained is ever swapped or averaged away.
        self.judged = build_model(config, self.splits)
        with _dtype_policy(self.policy):
            trained = build_model(config, self.splits)
        trained.set_weights(self.judged.get_weights())
        self.model = keras_lightnets.logits_model(trained)
        if config.train.sync_bn and self.replicas > 1:
            batch_norm.synchronize(self.model)
        self.optimizer = optimizers.build(config, self.steps_per_epoch, self.model)
        self.state = LoopState(scaled=self.policy == "mixed_float16")
        averaged = self.model.trainable_variables
        self.average = WeightAverage(averaged, config.train.ema) if config.train.ema else None
        self._evaluator = Evaluator(self.judged, self.strategy)
        self.start_epoch(0)

    def start_epoch(self, epoch: int) -> None:
        """Freezes and releases layers as this epoch (from 0) wants it."""
        changed = finetune.set_trainable(self.model, self.config.model, epoch)
        if changed or not hasattr(self, "_steps"):
            # What is differentiated is fixed in the graph: a change needs another one.
            with self.strategy.scope():
                step = TrainStep(
                    self.model,
                    self.optimizer,
                    self.state,
                    self.config.train,
                    self.config.optimizer,
                    self.average,
                    self.jit,
                )
            self._steps = self._make_loop(step)

    def _make_loop(self, step: TrainStep) -> Any:
        @tf.function(reduce_retracing=True)
        def steps(iterator, count, stop):
            stopping = tf.zeros(())
            for _ in tf.range(count):
                images, labels, weights = next(iterator)
                wishes = self.strategy.run(step, args=(images, labels, weights, stop))
                stopping = self.strategy.experimental_local_results(wishes)[0]
            return stopping

        return steps

    def take_steps(self, batches: Iterator[Any], count: int) -> None:
        """Trains on the next `count` batches in one call of TensorFlow."""
        self._steps(batches, tf.constant(count), tf.constant(0.0))

    def batches(self) -> Iterator[Any]:
        """Returns the training batches from the present step on, without end."""
        size = self.config.train.batch_size

        def share(shard: int, shards: int) -> tf.data.Dataset:
            step = int(self.state.step.numpy())
            return self.splits.train(step, global_batch=size, shard=shard, shards=shards)

        return iter(distribute(share, size, self.strategy))

    def run(self) -> dict[str, Any]:
        """Trains to the end, or until something stops it."""
        return _Loop(self).run()

    def evaluate(self, each_batch: Callable[[], None]) -> tuple[np.ndarray, np.ndarray]:
        """Judges the average of the weights, or the weights where there is none.

        Args:
            each_batch: Called after every batch; may raise to end it.

        Returns:
            True classes `(images,)` and probabilities `(images, classes)`.
        """
        self._copy_to_judged()
        return self.predict(each_batch)

    def predict(self, each_batch: Callable[[], None]) -> tuple[np.ndarray, np.ndarray]:
        """Returns what `evaluate` does, of the judged network as it is."""
        batch = strategy.eval_batch(self.config.train, self.replicas)
        return self._evaluator(self.splits, batch, each_batch)

    def _copy_to_judged(self) -> None:
        values = {v.path: v.value for v in self.model.weights}
        if self.average is not None:
            values |= self.average.by_path()
        targets = keras_lightnets.logits_model(self.judged).weights
        for source, target in zip(self.model.weights, targets, strict=True):
            target.assign(values[source.path])

    def save_weights(self, name: str) -> None:
        """Writes the evaluated network to `weights/<name>.keras`, whole or not at all."""
        if self.chief:
            save_model(self.judged, self.out / "weights" / f"{name}.keras")

    def load_weights(self, name: str) -> None:
        """Reads `weights/<name>.keras` into the network that is evaluated."""
        self.judged.load_weights(self.out / "weights" / f"{name}.keras")

    def checkpoints(self, history: History) -> Checkpoints:
        """Returns the checkpoints, which cover all that changes during a run."""
        average = self.average.variables if self.average else []
        return Checkpoints(
            self.out / "checkpoints",
            {
                "model": [v.value for v in self.model.weights],
                "optimizer": [v.value for v in self.optimizer.variables],
                "average": average,
                "loop": self.state.variables,
            },
            history.values,
            keep=self.config.train.keep_checkpoints,
            writer=self.chief,
        )

    def describe(self) -> str:
        """Returns one line about what is trained on what."""
        train = self.config.train
        count = sum(math.prod(v.shape) for v in self.judged.trainable_variables)
        devices = f"{self.replicas} replica{'s' if self.replicas > 1 else ''}"
        return (
            f"{self.config.model.name}, {count:,} weights, {self.policy}; "
            f"{self.splits.train_examples} images, batch {train.batch_size} on {devices}; "
            f"{train.epochs} epochs of {self.steps_per_epoch} steps"
        )

    def dry_run(self) -> dict[str, Any]:
        """Times a few steps and one evaluation batch; prints sizes and an estimate."""
        print(self.describe())
        batches = self.batches()
        seconds = []
        for _ in range(4):
            started = time.perf_counter()
            self.take_steps(batches, 1)
            self.state.step.numpy()
            seconds.append(time.perf_counter() - started)
        step = min(seconds[1:])
        total = step * self.steps_per_epoch * self.config.train.epochs
        print(f"First step {seconds[0]:.1f} s (includes building), then {step * 1e3:.0f} ms a step")
        print(f"{self.config.train.batch_size / step:.0f} images/s; about {duration(total)} in all")
        print(f"Loss after {len(seconds)} steps: {seen_so_far(self.state)['loss']:.4f}")
        print("Nothing was written.")
        return {"step_seconds": step, "estimated_seconds": total}


class _Loop:
    """The epochs of a run: train, evaluate, record, save."""

    def __init__(self, trainer: Trainer):
        self.trainer = trainer
        self.train = trainer.config.train
        self.out = trainer.out
        self.history = History(self.train.monitor)
        self.checkpoints = trainer.checkpoints(self.history)
        self.progress = Progress(
            self.train.epochs, trainer.steps_per_epoch, self.train.batch_size, shown=trainer.chief
        )
        self.deadline = math.inf
        if self.train.time_limit_minutes:
            self.deadline = time.monotonic() + 60 * self.train.time_limit_minutes
        self.trained_seconds = 0.0

    def run(self) -> dict[str, Any]:
        self._start()
        try:
            with Interrupts() as self.interrupts:
                stopped = self._epochs()
                return self._finish(stopped)
        finally:
            self.progress.close()

    @property
    def step(self) -> int:
        return int(self.trainer.state.step.numpy())

    def _start(self) -> None:
        trainer = self.trainer
        restored, problems = self.checkpoints.restore() if trainer.resume else (None, [])
        for problem in problems:
            self.progress.say(f"{problem} Taking the checkpoint of step {restored} instead.")
        if restored is None:
            if trainer.resume and (self.out / "history.json").exists():
                raise UserError(
                    f"{self.out} has a history but no checkpoints: it cannot be resumed. "
                    "Restore the checkpoints folder from a copy, or train anew with --overwrite."
                )
            Run.create(self.out, trainer.config, trainer.splits)
        self.progress.say(trainer.describe())
        if restored is not None:
            self.progress.say(f"Resuming after step {restored}, in epoch {self._epoch + 1}.")
        steps = trainer.steps_per_epoch * self.train.epochs
        momentum = trainer.config.model.bn_momentum
        warning = batch_norm.few_steps_warning(steps, momentum)
        if warning and batch_norm.statistics(trainer.model):
            self.progress.say(f"Warning: {warning}")

    @property
    def _epoch(self) -> int:
        """Number of epochs that are done and recorded."""
        return len(self.history.rows)

    def _epochs(self) -> str | None:
        """Trains the epochs that are left; returns why it stopped early, if it did."""
        batches = None
        while self._epoch < self.train.epochs:
            patience = self.train.early_stopping_epochs
            if patience and self.history.epochs_since_best >= patience:
                return f"no better {self.train.monitor} for {patience} epochs"
            batches = batches or self.trainer.batches()
            if not self._train_epoch(batches):
                return f"time limit of {self.train.time_limit_minutes:g} minutes"
            self._end_epoch()
            if time.monotonic() > self.deadline and self._epoch < self.train.epochs:
                return f"time limit of {self.train.time_limit_minutes:g} minutes"
        return None

    def _train_epoch(self, batches: Iterator[Any]) -> bool:
        """Takes the steps that are left of this epoch; returns False when time is up."""
        epoch, per_epoch = self._epoch, self.trainer.steps_per_epoch
        step, end = self.step, (epoch + 1) * per_epoch
        self.progress.start_epoch(epoch + 1, step - epoch * per_epoch)
        started, first = time.monotonic(), step
        self.trainer.start_epoch(epoch)
        shown = started
        while step < end:
            count = self._steps_to_take(step, end)
            self.trainer.take_steps(batches, count)
            step += count
            self._check_interrupted()
            if time.monotonic() - shown > 0.5:
                shown = time.monotonic()
                self._check_finite()
                self.progress.update(epoch + 1, step - epoch * per_epoch)
            out_of_time = step < end and time.monotonic() > self.deadline
            every = self.train.checkpoint_steps
            if out_of_time or (every and step % every == 0 and step < end):
                self._save()
            if out_of_time:
                return False
        self._check_finite()
        self.trained_seconds = time.monotonic() - started
        self.steps_trained = step - first
        return True

    def _steps_to_take(self, step: int, end: int) -> int:
        count = min(self.train.steps_per_execution, end - step)
        if every := self.train.checkpoint_steps:
            count = min(count, every - step % every)
        return count

    def _end_epoch(self) -> None:
        """Evaluates, records, writes. The checkpoint comes last: a kill before repeats it."""
        trainer = self.trainer
        numbers = scoring.score(*trainer.evaluate(self._check_interrupted))
        if not math.isfinite(numbers["loss"]):
            raise UserError(
                f"The loss on held-out images is {numbers['loss']} after step {self.step}. "
                f"{self._advice()}"
            )
        row = {"epoch": self._epoch + 1, "step": self.step, **seen_so_far(trainer.state)}
        row["learning_rate"] = float(keras.ops.convert_to_numpy(trainer.optimizer.learning_rate))
        row |= {f"val_{key}": value for key, value in numbers.items() if key != "images"}
        if trainer.state.scaled:
            row["loss_scale"] = float(trainer.state.loss_scale.numpy())
            row["skipped_steps"] = int(trainer.state.skipped.numpy())
        best = self.history.add(row)
        if best:
            trainer.save_weights("best")
        if trainer.chief:
            self.history.write(self.out)
        trainer.state.totals.assign(tf.zeros_like(trainer.state.totals))
        self._save()
        self.progress.end_epoch(row, self.trained_seconds, self.steps_trained)
        self._check_interrupted()

    def _finish(self, stopped: str | None) -> dict[str, Any]:
        """Writes the last weights, and the numbers and pictures of the best ones."""
        if stopped:
            self.progress.say(f"Stopped: {stopped}.")
        trainer = self.trainer
        last = scoring.score(*trainer.evaluate(self._check_interrupted))
        trainer.save_weights("last")
        if self.history.best is None:  # the time was up before the first epoch was
            trainer.save_weights("best")
        trainer.load_weights("best")
        predictions = trainer.predict(self._check_interrupted)
        results = {
            **scoring.score(*predictions),
            "best_epoch": self.history.best and self.history.best["epoch"],
            "epochs": self._epoch,
            "steps": self.step,
            "stopped": stopped,
            "last": last,
        }
        if trainer.chief:
            self._report(*predictions)
            write_json(self.out / "results.json", results)
        return results

    def _report(self, true: np.ndarray, probabilities: np.ndarray) -> None:
        labels = self.trainer.splits.labels
        rows = report.per_class(true, probabilities, labels)
        report.write_per_class(rows, self.out / "per_class.csv")
        report.write_confusion_matrix(
            true, probabilities, labels, self.out / "confusion_matrix.png"
        )
        report.write_curves(self.history.rows, self.out / "curves.png")

    def _save(self) -> None:
        self._check_finite()
        self.checkpoints.save(self.step)

    def _check_finite(self) -> None:
        failed = int(self.trainer.state.failed_step.numpy())
        if failed >= 0:
            good = self.checkpoints.steps()
            kept = f"The last good checkpoint is that of step {good[-1]}. " if good else ""
            raise UserError(
                f"The loss or its gradient was not finite in step {failed}. {kept}{self._advice()}"
            )

    def _advice(self) -> str:
        precision = "" if self.trainer.policy == "float32" else ", train.precision=float32"
        return (
            "Try a lower optimizer.learning_rate, a longer optimizer.warmup_epochs, "
            f"optimizer.global_clipnorm=1{precision}."
        )

    def _check_interrupted(self) -> None:
        if not self.interrupts.signum:
            return
        self._save()
        raise Interrupted(
            f"Interrupted; saved after step {self.step}. Continue with: "
            f"lightnets train --resume {self.out}",
            self.interrupts.signum,
        )


def build_model(config: Config, splits: data.Splits) -> keras.Model:
    """Returns the network of `config`: 0..255 RGB images to probabilities of the labels."""
    model = config.model
    arguments = {
        "input_shape": (model.image_size, model.image_size, 3),
        "classes": len(splits.labels),
        "alpha": model.alpha,
        "dropout_rate": model.dropout_rate,
        "bn_momentum": model.bn_momentum,
        "small_input": model.small_input,
        "include_preprocessing": True,
        "weights": finetune.weights_file(model.weights),
        **model.args,
    }
    known = {key: value for key, value in arguments.items() if value is not None}
    try:
        return keras_lightnets.create_model(model.name, **known)
    except ValueError as error:
        raise UserError(f"Cannot build {model.name}: {error}") from None


def save_model(model: keras.Model, path: pathlib.Path) -> None:
    """Writes a `.keras` file, whole or not at all.

    Raises:
        UserError: It cannot be written; a previous file stays.
    """
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp.keras")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        model.save(temporary)
        temporary.replace(path)
    except OSError as error:
        raise UserError(f"Cannot write {path}: {error.strerror or error}.") from None
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def _dtype_policy(name: str) -> Iterator[None]:
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


@contextlib.contextmanager
def _explain_memory(config: Config) -> Iterator[None]:
    try:
        yield
    except (tf.errors.ResourceExhaustedError, MemoryError):
        train = config.train
        raise UserError(
            f"Out of memory at train.batch_size={train.batch_size}, "
            f"train.accumulate={train.accumulate}, model.image_size={config.model.image_size}. "
            f"Try train.accumulate={train.accumulate * 2}: same result, about half the memory."
        ) from None
