"""A run in memory: data, devices, network, optimizer and the step that ties them together."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import pathlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import keras_lightnets
from lightnets import data, tasks
from lightnets.config.keys import Config
from lightnets.distribution import strategy, workers
from lightnets.distribution.batches import distribute
from lightnets.evaluation.evaluator import Evaluator
from lightnets.optimization import batch_norm, finetune, optimizers
from lightnets.optimization.ema import WeightAverage
from lightnets.optimization.step import LoopState, TrainStep
from lightnets.run import build, foreign, stored, teacher
from lightnets.run.checkpoint import Checkpoints
from lightnets.run.history import History
from lightnets.support.errors import UsageError, told
from lightnets.support.words import count

_CALIBRATION_IMAGES = 128


class Training:
    """Everything built from a configuration; writes nothing by itself.

    Attributes:
        config: The run; its batch fits the training set.
        asked: The run as it was asked for.
        out: Run directory, or None.
        members: The workers, or None on a single machine.
        chief: Whether this process writes files and talks to the user.
        splits: The data.
        model: What is trained: images to logits.
        evaluator: Holds the copy that is evaluated and saved.
        task: What the network is to answer.
        state: Step, sums and loss scale.
        steps_per_epoch: Global batches in an epoch.
        teacher: Whose answers are learned, too, or None.
        head_epochs: The first epochs, in which the head learns on stored features.
    """

    def __init__(self, config: Config, out: pathlib.Path | None, *, resume: bool = False):
        """Builds everything.

        Args:
            config: The run.
            out: Run directory; None for a dry run.
            resume: Whether `out` may hold the run already.
        """
        build.check_arguments(config.model)
        self.asked = self.config = config
        self.out = out
        self.resume = resume
        if config.train.deterministic:
            tf.config.experimental.enable_op_determinism()
        self.members = workers.cluster(config.train)
        self.chief = self.members is None or self.members.is_chief
        self.strategy = strategy.create(config.train.devices, self.members, config.train.gpu_memory)
        self.replicas = self.strategy.num_replicas_in_sync
        strategy.check_batch(config.train, self.replicas)
        self.policy = "float32"
        if config.model.quantize == "none":
            self.policy = strategy.precision(config.train.precision, self.strategy)
        self._jit = strategy.jit(config.train.jit, self.strategy, config.train.sync_bn)
        self.splits = data.load(config, saved=out if resume else None, checked=True)
        self._fit_batch()
        self.steps_per_epoch = self.splits.epoch_examples // self.config.train.batch_size
        keras.utils.set_random_seed(config.train.seed)
        self._steps: Any = None
        self._step = 0  # the next one
        self._on_features = False
        self._stored: stored.Stored | None = None
        with self.strategy.scope():
            self._build()
            self._plan_features()
        self.start_epoch(0)

    def _fit_batch(self) -> None:
        """Halves a batch that is larger than the training set until it fits.

        The run keeps what was asked for: this follows from it and the number of images, also
        on another number of devices.
        """
        size, images = self.asked.train.batch_size, self.splits.epoch_examples
        while size > images:
            size //= 2
        train = dataclasses.replace(self.asked.train, batch_size=size)
        self.config = dataclasses.replace(self.asked, train=train)
        try:
            strategy.check_batch(train, self.replicas)
        except UsageError as error:
            raise UsageError(f"{error} There are {count(images, 'training image')}.") from None

    def _build(self) -> None:
        config = self.config
        batch = strategy.eval_batch(config.train, self.replicas)
        evaluated = build.build_model(config, self.splits)
        if config.model.quantize == "int8":
            evaluated = self._quantized(evaluated)
        if config.model.foreign and self.resume and self.out:
            foreign.check(self.out, evaluated, config.model.name)
        self.task = tasks.of_run(config, self.splits)
        self.task.note(evaluated)
        dense = self.task.dense
        self.evaluator = Evaluator(evaluated, self.splits, batch, self.strategy, dense=dense)
        with _dtype_policy(self.policy):
            trained = (
                build.build_model(config, self.splits)
                if config.model.quantize == "none"
                else keras.models.clone_model(evaluated)
            )
        trained.set_weights(evaluated.get_weights())
        self.model = keras_lightnets.logits_model(trained)
        if config.train.sync_bn and self.replicas > 1:
            batch_norm.synchronize(self.model)
        # What never learns has no slots and no average: they would fill memory and checkpoints.
        finetune.set_trainable(self.model, config.model, sys.maxsize)
        self.optimizer = optimizers.build(config, self.steps_per_epoch, self.model)
        self.state = LoopState(scaled=self.policy == "mixed_float16")
        averaged = self.model.trainable_variables
        self.average = WeightAverage(averaged, config.train.ema) if config.train.ema else None
        # Last of all: random weights are the same with a teacher and without.
        self.teacher = self._learned_from()

    def _learned_from(self) -> teacher.Teacher | None:
        target = self.config.distillation.teacher
        if target is None:
            return None
        found = teacher.load(target, self.splits.labels, self.splits.transform.image_size)
        if self.resume and self.out:
            found.check(self.out, target)
        return found

    def _plan_features(self) -> None:
        """Decides whether the first epochs train the head on stored features."""
        self.head_epochs, self._why_not = stored.epochs(self.config), None
        if not self.head_epochs:
            return
        self._why_not = "a dry run stores no features"
        if self.out:
            self._why_not = stored.obstacle(self.config, self.splits, self.model)
        if self._why_not:
            self.head_epochs = 0
        else:
            self._trained, self._evaluated = map(stored.cut, (self.model, self.evaluator.model))

    def _quantized(self, network: keras.Model) -> keras.Model:
        """What trains as its int8 file computes, with the ranges of training images."""
        count = min(_CALIBRATION_IMAGES, self.splits.epoch_examples)
        images = next(iter(self.splits.train(0, global_batch=count)))[0].numpy()
        with told(ValueError):
            return keras_lightnets.quantize_aware(network, np.rint(images).astype("uint8"))

    def start_epoch(self, epoch: int) -> None:
        """Freezes and releases layers for an epoch, counted from 0."""
        changed = finetune.set_trainable(self.model, self.config.model, epoch)
        on_features = epoch < self.head_epochs
        if self._steps is None or changed or on_features != self._on_features:
            self._on_features = on_features
            # What is differentiated is fixed in the graph: a change needs another one.
            step = TrainStep(
                self._trained.head if on_features else self.model,
                self.optimizer,
                self.state,
                self.config.train,
                self.config.optimizer,
                self.average,
                self._jit,
                self.teacher and self.teacher.logits,
                self.config.distillation,
                self.task.judge,
            )
            self._steps = self._graph(step)

    def _graph(self, step: TrainStep) -> Callable:
        # Nothing in a step branches on a tensor. To rewrite all that it calls, in case it did,
        # would be a tenth of the time to the first step.
        @tf.autograph.experimental.do_not_convert
        def one(iterator, stop, number):
            arguments = (*next(iterator), stop)
            stops, _ = self.strategy.run(step, args=arguments, kwargs={"number": number})
            return self.strategy.experimental_local_results(stops)[0]

        @tf.function
        def steps(iterator, first, count, stop):
            if self.config.train.steps_per_execution == 1:
                return one(iterator, stop, first)
            stops = tf.zeros_like(stop)
            for number in tf.range(first, first + count):
                stops = one(iterator, stop, number)
            return stops

        return steps

    def take_steps(self, batches: Iterator[Any], count: int, stop: list[float]) -> tf.Tensor:
        """Trains on the next `count` batches in one call of TensorFlow.

        Args:
            batches: From `batches`.
            count: At most `train.steps_per_execution`.
            stop: This process' reasons to stop, 0 or 1 each.

        Returns:
            The sum of `stop` over all replicas of all workers.
        """
        first, self._step = self._step, self._step + count
        stops = tf.constant(stop, tf.float32)
        return self._steps(batches, tf.constant(first), tf.constant(count), stops)

    def batches(self) -> Iterator[Any]:
        """Returns the training batches from the present step on, without end."""
        size = self.config.train.batch_size
        # From here on it is counted here, too: to ask a GPU is to wait for it.
        step = self._step = int(self.state.step.numpy())
        images: Any = self.splits
        if self.out and step < self.head_epochs * self.steps_per_epoch:
            images = self._stored = self._stored or self._store(self.out)

        def share(shard: int, shards: int) -> tf.data.Dataset:
            return images.train(step, global_batch=size, shard=shard, shards=shards)

        return iter(distribute(share, size, self.strategy))

    def _store(self, out: pathlib.Path) -> stored.Stored:
        parts = (self._trained, self._evaluated)
        backbones = [part.backbone for part in parts]
        found = stored.store(out / stored.NAME, self.config, self.splits, backbones)
        images: Any = found
        batch = strategy.eval_batch(self.config.train, self.replicas)
        head, dense = self._evaluated.head, self.task.dense
        self._head = Evaluator(head, images, batch, self.strategy, dense=dense)
        return found

    def evaluate(
        self, each_batch: Callable[[], None], epoch: int | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Evaluates the average of the weights, or the weights where there is none.

        Args:
            each_batch: Called after every batch; may raise to end it.
            epoch: That has just ended; stored features stand for its images. None: the images.

        Returns:
            What is true, and what the network says; see `Task`.
        """
        self.evaluator.copy(self.model, self.average.by_path() if self.average else {})
        on_features = epoch is not None and epoch < self.head_epochs
        return (self._head if on_features else self.evaluator).predict(each_batch)

    def agree(self, value: int) -> int:
        """Returns the chief's `value` on all workers, once all have asked."""
        return self.total(value if self.chief else 0)

    def total(self, value: int) -> int:
        """Returns the sum of the workers' values, once all have asked."""
        if self.members is None:
            return value
        mine = self.strategy.experimental_distribute_values_from_function(
            lambda _: tf.constant(value, tf.int32)
        )
        replicas = self.replicas // len(self.members.addresses)  # each adds its worker's value
        return int(self.strategy.reduce(tf.distribute.ReduceOp.SUM, mine, axis=None)) // replicas

    def checkpoints(self, out: pathlib.Path, history: History) -> Checkpoints:
        """Returns the checkpoints, which cover all that changes during a run."""
        return Checkpoints(
            out / "checkpoints",
            {
                "model": [v.value for v in self.model.weights],
                "optimizer": [v.value for v in self.optimizer.variables],
                "average": self.average.variables if self.average else [],
                "loop": self.state.variables,
            },
            history.values,
            keep=self.config.train.keep_checkpoints,
            writer=self.chief,
        )

    def describe(self) -> list[str]:
        """Returns lines about the data, what is trained on what, and the order of the images."""
        train = self.config.train
        batch = f"{train.batch_size}"
        if train.batch_size < self.asked.train.batch_size:
            batch += f" (not {self.asked.train.batch_size}: there are fewer images)"
        weights = sum(math.prod(v.shape) for v in self.evaluator.model.trainable_variables)
        devices = count(self.replicas, "replica")
        if self.members is not None:
            devices += f" in {count(len(self.members.addresses), 'worker')}"
        distillation, learned_from = self.config.distillation, []
        if distillation.teacher:
            learned_from = [
                f"Teacher: {distillation.teacher}, temperature {distillation.temperature:g}; "
                f"the labels' loss weighs {distillation.student_loss_weight:g}"
            ]
        more = self.splits.epoch_examples - self.splits.train_examples
        without = f", {more} of them without a label" if more else ""
        features = []
        if self.head_epochs:
            features = ["The backbone does not learn: its features are computed once and stored."]
        elif self._why_not and self.config.model.freeze == "backbone":
            features = [f"The whole network runs in every step: {self._why_not}"]
        model = self.config.model
        if model.freeze == "backbone" and model.has_builder and not model.weights:
            features.append(
                "Warning: the backbone has random weights and does not learn: all that the "
                "classifier gets is random features. Name --weights, or leave out --freeze."
            )
        return [
            self.splits.describe(),
            f"{self.config.model.label}, {weights:,} weights, {self.policy}; "
            f"{count(self.splits.epoch_examples, 'image')}{without}, batch {batch} on {devices}; "
            f"{count(train.epochs, 'epoch')} of {count(self.steps_per_epoch, 'step')}",
            f"Order of the images: {self.splits.order}",
            *foreign.remarks(self.config.model, self.evaluator.model),
            *learned_from,
            *features,
        ]


@contextlib.contextmanager
def _dtype_policy(name: str) -> Iterator[None]:
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
