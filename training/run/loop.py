"""The epochs of a run: train, evaluate, record, save; stop for a reason, without losing a bit."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import math
import pathlib
import signal
import time
from collections.abc import Iterator
from typing import Any, NoReturn

import keras
import numpy as np

from keras_lightnets.export import model_card
from keras_lightnets.export import tasks as answers
from keras_lightnets.networks import complexity
from lightnets.config.tasks import flags
from lightnets.distribution.workers import resume_command
from lightnets.evaluation import page, report, scoring
from lightnets.evaluation.scoring import Predictions
from lightnets.optimization import batch_norm
from lightnets.optimization.step import seen_so_far
from lightnets.run import directory, foreign
from lightnets.run.history import History
from lightnets.run.training import Training
from lightnets.support.errors import UserError
from lightnets.support.interrupts import Interrupted, Interrupts
from lightnets.support.progress import Progress
from lightnets.support.words import command, count
from lightnets.support.writing import write_json, write_text
from lightnets.tasks.task import Task

_SIGNAL, _TIME = 0, 1  # places in the vector of reasons to stop
# Before so many steps a loss that has not moved says nothing.
_STEPS_TO_MOVE = 20


class Loop:
    """Runs a training to its end, or to its next interruption."""

    def __init__(self, training: Training, out: pathlib.Path):
        self.training = training
        self.options = training.config.train
        self.out = out
        self.history = History(self.options.monitor)
        self.checkpoints = training.checkpoints(out, self.history)
        self.progress = Progress(
            self.options.epochs,
            training.steps_per_epoch,
            self.options.batch_size,
            shown=training.chief,
            columns=training.task.columns,
        )
        self.deadline = math.inf
        if self.options.time_limit_minutes:
            self.deadline = time.monotonic() + 60 * self.options.time_limit_minutes
        self.interrupts = Interrupts()
        self.stuck = False
        # After which step the held-out images were last predicted, and what came out.
        self.predicted: tuple[int, Predictions | None] = (-1, None)
        self.tensorboard = None
        if self.options.tensorboard and training.chief:
            self.tensorboard = _tensorboard(out / "tensorboard")

    def run(self) -> dict[str, Any]:
        """Trains, and returns the results."""
        self._start()
        self.began = time.monotonic() - directory.seconds(self.out)
        try:
            with self.interrupts:
                results, found = self._finish(*self._epochs())
            if self.training.chief:
                self._report(results, found)
            return results
        except KeyboardInterrupt:
            again = command("train", "--resume", self.out)
            raise Interrupted(
                f"Interrupted; the run is finished but for its report. To write it: {again}",
                signal.SIGINT,
            ) from None
        finally:
            self.progress.close()

    @property
    def step(self) -> int:
        """Batches taken since the start of the run."""
        return int(self.training.state.step.numpy())

    @property
    def epoch(self) -> int:
        """Number of epochs that are done and recorded."""
        return len(self.history.rows)

    def _start(self) -> None:
        training = self.training
        restored = self._restore()
        if restored is None and training.chief:
            directory.Run.create(self.out, training.asked, training.splits)
            if training.config.model.foreign:
                foreign.save(self.out, training.evaluator.model)
            if training.teacher is not None:
                training.teacher.save(self.out)
        if restored is not None and training.chief:
            directory.follow(self.out, training.asked)
        for line in training.describe():
            self.progress.say(line)
        begun = training.config.optimizer.begun
        if self.epoch == self.options.epochs:
            self.progress.say(f"The run is finished. {self._way_on()}")
        elif begun and restored == begun * training.steps_per_epoch:
            rate = training.config.optimizer.extensions[str(begun)]
            self.progress.say(
                f"Going on for {count(self.options.epochs - begun, 'epoch')} after {begun}: "
                f"a new schedule from optimizer.learning_rate={rate:g}."
            )
        elif restored is not None:
            self.progress.say(f"Resuming after step {restored}, in epoch {self.epoch + 1}.")
        steps = training.steps_per_epoch * self.options.epochs
        model = training.config.model
        warning = batch_norm.few_steps_warning(steps, model.bn_momentum)
        # Loaded weights bring statistics along, and what never learns keeps its own.
        if warning and not model.weights and batch_norm.statistics(training.model):
            self.progress.say(f"Warning: {warning}")

    def _way_on(self) -> str:
        """How to train on from the end: the schedule of this run is over."""
        epochs = self.options.epochs - self.training.config.optimizer.begun
        return f"To train on: {command('train', '--resume', self.out, '--extend', epochs)}"

    @property
    def _is_over(self) -> bool:
        """Whether its schedule is over, or nothing has become better for too long."""
        begun = self.training.config.optimizer.begun
        waited = min(self.history.epochs_since_best, self.epoch - begun)
        patience = self.options.early_stopping_epochs
        return self.epoch >= self.options.epochs or 0 < patience <= waited

    def _restore(self) -> int | None:
        """Reads the newest checkpoint, the same one on all workers; returns its step."""
        training = self.training
        restored = None
        if training.resume and training.chief:
            restored, problems = self.checkpoints.restore()
            for problem in problems:
                self.progress.say(f"{problem} Taking the checkpoint of step {restored} instead.")
            if restored is None and (self.out / "history.json").exists():
                raise UserError(
                    f"{self.out} has a history but no checkpoints: it cannot be resumed. "
                    "Restore the checkpoints folder from a copy, or train anew with --overwrite."
                )
        chosen = training.agree(-1 if restored is None else restored)
        if chosen >= 0 and not training.chief:
            self.checkpoints.restore_step(chosen)
        return None if chosen < 0 else chosen

    def _epochs(self) -> tuple[str | None, str]:
        """Trains the epochs that are left; returns why it stopped early, and how to go on."""
        if self.training.config.model.quantize == "int8" and self.step == 0:
            self._begin()
        batches = None
        while not self._is_over:
            if batches is None or self.epoch == self.training.head_epochs:
                batches = self.training.batches()  # of features, then of images
            if not self._train_epoch(batches):
                again = f"Continue with: {resume_command(self.options, self.out)}"
                return f"time limit of {self.options.time_limit_minutes:g} minutes", again
            self._end_epoch()
        if self.epoch == self.options.epochs:
            return None, self._way_on()
        patience = self.options.early_stopping_epochs
        return f"no better {self.options.monitor} for {patience} epochs", self._way_on()

    def _begin(self) -> None:
        """Judges the network before its first step, which may be the best it will ever be."""
        task, numbers = self._judged(self._predict())
        self.history.begin({"epoch": 0, "step": 0, **_columns(numbers)})
        if self.training.chief:
            self._save_weights("best", task)
        self.progress.say(f"Held out, before training: {_told(numbers)}")

    def _train_epoch(self, batches: Iterator[Any]) -> bool:
        """Takes the steps that are left of this epoch; returns False when time is up."""
        epoch, per_epoch = self.epoch, self.training.steps_per_epoch
        step, end = self.step, (epoch + 1) * per_epoch
        self.training.start_epoch(epoch)
        self.progress.start_epoch(epoch + 1, step - epoch * per_epoch)
        shown = time.monotonic()
        while step < end:
            count = self._steps_until_pause(step, end)
            stops = self.training.take_steps(batches, count, self._reasons_to_stop())
            step += count
            stopping = self._stopping(stops)
            self._interrupt_if(stopping[_SIGNAL])
            if time.monotonic() - shown > 0.5:
                shown = time.monotonic()
                self._check_finite()
                self.progress.update(step - epoch * per_epoch)
            every = self.options.checkpoint_steps
            time_is_up = stopping[_TIME] and step < end
            if time_is_up or (every and step % every == 0 and step < end):
                self._save()
            if time_is_up:
                return False
        self._check_finite()
        self.progress.end_training(step - epoch * per_epoch)
        return True

    def _steps_until_pause(self, step: int, end: int) -> int:
        count = min(self.options.steps_per_execution, end - step)
        if every := self.options.checkpoint_steps:
            count = min(count, every - step % every)
        return count

    def _reasons_to_stop(self) -> list[float]:
        return [float(self.interrupts.signum > 0), float(time.monotonic() > self.deadline)]

    def _stopping(self, stops: Any) -> list[float]:
        """Returns the reasons to stop on which all workers agree at this step.

        One machine need not wait for the device to know its own.
        """
        alone = self.training.members is None
        return self._reasons_to_stop() if alone else stops.numpy().tolist()

    def _end_epoch(self) -> None:
        """Evaluates, records, writes. The checkpoint comes last: a kill before repeats it."""
        training = self.training
        if self.epoch < training.head_epochs:
            # Not kept: the numbers of the end are those of the whole network, on the images.
            found = self._labelled(training.evaluate(self._interrupt_together, self.epoch))
        else:
            found = self._predict()
        task, numbers = self._judged(found)
        if not math.isfinite(numbers["loss"]):
            self._stop_not_finite(f"The held-out loss is not finite after step {self.step}")
        metric = next(iter(task.columns))
        row = {"epoch": self.epoch + 1, "step": self.step, **seen_so_far(training.state, metric)}
        row["learning_rate"] = float(keras.ops.convert_to_numpy(training.optimizer.learning_rate))
        row |= _columns(numbers)
        if training.state.scaled:
            row["loss_scale"] = float(training.state.loss_scale.numpy())
            row["skipped_steps"] = int(training.state.skipped.numpy())
        best = self.history.add(row)
        if training.chief:
            if best:
                self._save_weights("best", task)
            self.history.write(self.out)
            directory.note_seconds(self.out, time.monotonic() - self.began)
            if self.tensorboard is not None:
                self.tensorboard(row)
        training.state.start_epoch()
        self._save()
        self.progress.end_epoch(row, best=best)
        self._warn_if_stuck(row, found.true)
        self._interrupt_together()

    def _predict(self) -> Predictions:
        """Predicts the held-out images by the weights of now, once for each step."""
        step, found = self.predicted
        if found is None or step != self.step:
            found = self._labelled(self.training.evaluate(self._interrupt_together))
            self.predicted = self.step, found
        return found

    def _labelled(self, found: tuple[np.ndarray, np.ndarray]) -> Predictions:
        return Predictions(*found, self.training.splits.labels)

    def _warn_if_stuck(self, row: dict[str, float], true: np.ndarray) -> None:
        """Says, the first time, that an epoch ended no better than guessing."""
        config = self.training.config
        if self.training.teacher is not None:  # the loss is not that of the labels
            return
        task, classes = self.training.task, len(self.training.splits.labels)
        # In a short first epoch the loss of training is mostly that of its start.
        learned = row["val_loss"] < 0.99 * task.guessing(true, classes)
        guessing = task.guessing(true, classes, config)
        moved = learned or row["loss"] < 0.99 * guessing
        if self.stuck or moved or self.step < _STEPS_TO_MOVE:
            return
        self.stuck = True
        rate = config.optimizer.learning_rate
        self.progress.say(
            f"Warning: the loss has not moved; that of guessing is {guessing:.3g}. If the next "
            f"epoch does not lower it, try --set optimizer.learning_rate={rate / 10:g} (now "
            f"{rate:g}) or --set optimizer.global_clipnorm=1, and check that each picture has the "
            "right class: " + command("data", "show", config.data.dataset, *flags(task.name))
        )

    def _finish(self, stopped: str | None, way_on: str) -> tuple[dict[str, Any], Predictions]:
        """Writes the last weights; returns the numbers of the best ones, and what they predict."""
        training = self.training
        if stopped:
            self.progress.say(f"Stopped: {stopped}. {way_on}")
        task, last = self._judged(self._predict())
        results = {
            "best_epoch": self.history.best and self.history.best["epoch"],
            "epochs": self.epoch,
            "steps": self.step,
            "stopped": stopped,
            "finished": self._is_over,
            "last": last,
        }
        if training.chief:
            self._save_weights("last", task)
            if self.history.best is None:  # the time was up before the first epoch was
                self._save_weights("best", task)
        training.agree(0)  # the files are there for all
        found = self._predict_by_the_best()
        network = training.evaluator.model
        results["parameters"] = complexity.count_parameters(network)[0]
        results["macs"] = complexity.count_macs(network)
        task, scores = self._judged(found)
        results = {**scores, **results}
        results["advice"] = [*task.advice(training.splits, self.history.rows, found)]
        if training.chief:
            write_json(self.out / "results.json", results)
        # Before the report, which takes its time and can be interrupted.
        self.progress.say(f"Held out: {_told(results)}")
        return results, found

    def _judged(self, found: Predictions) -> tuple[Task, dict[str, Any]]:
        """Returns the task, with what it takes from predictions, and how good they are."""
        task = self.training.task.fitted(found)
        return task, task.score(found)

    def _predict_by_the_best(self) -> Predictions:
        """Predicts the held-out images by the best weights, which the evaluator then holds."""
        best = self.history.best
        if best and best["step"] == self.step:
            return self._predict()  # the last ones are the best
        evaluator = self.training.evaluator
        directory.load_weights(evaluator.model, self._weights("best"))
        return self._labelled(evaluator.predict(self._interrupt_together))

    def _report(self, results: dict[str, Any], found: Predictions) -> None:
        config = self.training.config
        splits = dataclasses.replace(self.training.splits, config=config)  # its batch fits
        task = self.training.task.fitted(found)
        task.write_predictions([splits.eval_source], found, self.out / report.PREDICTIONS)
        rows = task.rows(found)
        task.write_rows(rows, self.out)
        task.draw(found, self.out)
        report.write_curves(self.history.rows, self.out / "curves.png")
        environment = json.loads((self.out / directory.ENVIRONMENT).read_text())
        results = {**results, task.table: rows, "environment": environment}
        # The others would wait for what is computed here alone.
        model = None if self.training.members else self.training.evaluator.model
        file = self.out / page.NAME
        task.write_page(splits, results, found, model, None, file)
        dataset = pathlib.Path(config.data.dataset).name
        without = splits.epoch_examples - splits.train_examples
        more = f", {without} more without labels" if without else ""
        card = model_card.render(
            config.model.label,
            found.labels,
            splits.transform,
            found.true,
            found.numbers,
            data=f"{dataset}, {splits.train_examples} images to train on{more}",
            weights=model_card.weights_of(self.training.evaluator.model, config.model.weights),
            chose=results["epochs"] > 1,
            card=answers.of(task.about()).card,
        )
        write_text(self.out / model_card.NAME, card)

    def _save_weights(self, name: str, task: Task) -> None:
        task.note(self.training.evaluator.model)
        directory.save_network(self.training.evaluator.model, self._weights(name))

    def _weights(self, name: str) -> pathlib.Path:
        return self.out / "weights" / f"{name}.keras"

    def _save(self) -> None:
        self._check_finite()
        self.checkpoints.save(self.step)

    def _check_finite(self) -> None:
        failed = int(self.training.state.failed_step.numpy())
        if failed >= 0:
            self._stop_not_finite(f"The loss or its gradient was not finite in step {failed}")

    def _stop_not_finite(self, what: str) -> NoReturn:
        good = self.checkpoints.steps()
        kept = f"The last good checkpoint is that of step {good[-1]}. " if good else ""
        precision = "" if self.training.policy == "float32" else ", train.precision=float32"
        raise UserError(
            f"{what}. {kept}Try a lower optimizer.learning_rate, a longer "
            f"optimizer.warmup_epochs, optimizer.global_clipnorm=1{precision}."
        )

    def _interrupt_together(self) -> None:
        """Stops now if this process, or any worker, was told to; all workers must call it."""
        self._interrupt_if(self.training.total(int(self.interrupts.signum > 0)))

    def _interrupt_if(self, told: float) -> None:
        if not told:
            return
        self._save()
        who = "Interrupted" if self.interrupts.signum else "Another worker was interrupted"
        raise Interrupted(
            f"{who}; saved after step {self.step}. Continue with: "
            f"{resume_command(self.options, self.out)}",
            self.interrupts.signum,
        )


def _columns(numbers: dict[str, Any]) -> dict[str, float]:
    """Returns how good predictions are as the history has it."""
    return {f"val_{key}": value for key, value in numbers.items() if key != "images"}


def _told(numbers: dict[str, Any]) -> str:
    return ", ".join(
        f"{name} {value:.4f}"
        for name, value in scoring.named(numbers).items()
        if not name.startswith("top ")
    )


def _tensorboard(folder: pathlib.Path) -> Any:
    """Returns what writes a row of the history for TensorBoard."""
    # TensorFlow writes the files, but takes `tf.summary.scalar` from this package.
    if importlib.util.find_spec("tensorboard") is None:
        raise UserError(
            "train.tensorboard needs the package tensorboard, which is not installed. "
            "Install it with: pip install tensorboard"
        )
    import tensorflow as tf

    writer = tf.summary.create_file_writer(str(folder))

    def write(row: dict[str, float]) -> None:
        with writer.as_default(step=row["epoch"]):
            for name, value in row.items():
                tf.summary.scalar(name, value)
        writer.flush()

    return write
