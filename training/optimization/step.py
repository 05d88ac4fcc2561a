"""One training step, the same for one device, many replicas and many machines.

In every replica: forward and backward over its part of the batch (cut into `accumulate`
parts), then ONE sum over all replicas of the gradients of the summed loss, of the weights of
the samples and of the batch-norm statistics; then, on numbers that are now equal everywhere,
the finite check, the loss scale, clipping and the update. Hence:

- The loss is the weighted mean over the global batch, however it is cut.
- Clipping acts on the global gradient.
- All replicas take the same decision about a gradient that is not finite.
- Moving statistics never differ between replicas, so any step may be saved or evaluated.

Keras 3.15 does each of these per replica before its own sum (see `docs/training.md`).
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import math
import threading
from collections.abc import Callable, Iterator
from typing import Any

import keras
import tensorflow as tf

from keras_lightnets.layers import recompute_activations
from keras_lightnets.layers.replicas import sum_over_replicas
from lightnets.config.keys import DistillationConfig, OptimizerConfig, TrainConfig
from lightnets.optimization import batch_norm
from lightnets.optimization.ema import WeightAverage

# As `keras.optimizers.LossScaleOptimizer`: start high, halve on overflow, double after a while.
_INITIAL_SCALE = 2.0**15
_GROWTH_STEPS = 2000


Judge = Callable[[tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]]


class LoopState:
    """What a step changes besides weights and optimizer; part of every checkpoint.

    Attributes:
        step: Batches taken since the start of the run, int64. The position in the data.
        totals: Sums of loss x weight, weight, hits x weight in this epoch, float64 `(3,)`.
        failed_step: First step whose gradients were not finite and not to be mended, or -1.
        loss_scale: Factor on the loss, float32; 1 unless gradients are float16.
        finite_steps: Steps since the loss scale changed, int64.
        skipped: Steps skipped because of the loss scale, int64.
    """

    def __init__(self, scaled: bool):
        """Makes the variables; call inside the scope of the strategy."""

        def variable(value, dtype, name):
            return tf.Variable(value, dtype=dtype, trainable=False, name=name)

        self.scaled = scaled
        self.step = variable(0, tf.int64, "step")
        self.totals = variable([0.0, 0.0, 0.0], tf.float64, "totals")
        self.failed_step = variable(-1, tf.int64, "failed_step")
        self.loss_scale = variable(_INITIAL_SCALE if scaled else 1.0, tf.float32, "loss_scale")
        self.finite_steps = variable(0, tf.int64, "finite_steps")
        self.skipped = variable(0, tf.int64, "skipped")

    @property
    def variables(self) -> list[tf.Variable]:
        """All variables, in a fixed order."""
        return [
            self.step,
            self.totals,
            self.failed_step,
            self.loss_scale,
            self.finite_steps,
            self.skipped,
        ]

    def start_epoch(self) -> None:
        """Sets the sums of the epoch to zero."""
        self.totals.assign(tf.zeros_like(self.totals))

    def judge(self, finite: tf.Tensor) -> None:
        """Adapts the loss scale, or notes the failure, after one step's finite check."""
        # At a scale of 1 there is nothing left to halve: the loss itself is broken.
        hopeless = tf.logical_not(finite) & (self.loss_scale <= 1.0)
        first = hopeless & (self.failed_step < 0)
        self.failed_step.assign(tf.where(first, self.step, self.failed_step))
        if not self.scaled:
            return
        finite_steps = tf.where(finite, self.finite_steps + 1, 0)
        grow = finite_steps >= _GROWTH_STEPS
        after_finite = tf.where(grow, self.loss_scale * 2.0, self.loss_scale)
        after_overflow = tf.maximum(self.loss_scale / 2.0, 1.0)
        self.loss_scale.assign(tf.where(finite, after_finite, after_overflow))
        self.finite_steps.assign(tf.where(grow, tf.zeros_like(finite_steps), finite_steps))
        self.skipped.assign_add(tf.cast(tf.logical_not(finite), tf.int64))


class TrainStep:
    """Trains `model` on one global batch; call it in a replica (`strategy.run`)."""

    def __init__(
        self,
        model: keras.Model,
        optimizer: keras.Optimizer,
        state: LoopState,
        config: TrainConfig,
        clipping: OptimizerConfig,
        average: WeightAverage | None = None,
        jit: bool = False,
        teacher: Callable[[tf.Tensor], tf.Tensor] | None = None,
        distillation: DistillationConfig | None = None,
        judge: Judge | None = None,
    ):
        """Everything must have been made inside the scope of the strategy.

        Args:
            model: Images `(batch, height, width, 3)` to logits `(batch, classes)`.
            optimizer: Built, without clipping, accumulation or loss scaling of its own.
            state: Counters and sums.
            config: Accumulation, label smoothing, seed.
            clipping: `global_clipnorm`, `clipnorm`, `clipvalue`.
            average: Updated after the weights.
            jit: Compile forward and backward pass with XLA; of one replica the update, too.
            teacher: Images to the float32 logits `(batch, classes)` that are learned, too.
            distillation: How much they count, and how soft they are.
            judge: From labels and logits, float32 `(b, classes)`, to the loss of each sample and
                the number that is summed up beside it, `(b,)`; None: cross-entropy and hits.
        """
        self._judge = judge or self._of_classes
        self._model = model
        self._optimizer = optimizer
        self._state = state
        self._config = config
        self._clipping = clipping
        self._average = average
        self._teacher = teacher
        self._distillation = distillation or DistillationConfig()
        self._generators = _generators(model)
        for generator in self._generators:
            generator.next = functools.partial(_next_given, generator)
        self._statistics = batch_norm.statistics(model)
        self._ranges = batch_norm.ranges(model)
        self._backward = tf.function(self._gradients, jit_compile=True) if jit else self._gradients
        self._compiled_update = tf.function(self._update, jit_compile=True) if jit else None
        _leave_reduction_to_us(optimizer)

    def __call__(
        self,
        images: tf.Tensor,
        labels: tf.Tensor,
        weights: tf.Tensor,
        stop: tf.Tensor,
        observe: Callable[[int, tf.Tensor], None] | None = None,
        number: tf.Tensor | None = None,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Takes one step and tells what was seen in it.

        Args:
            images: This replica's share, uint8 or float 0..255, `(b, height, width, 3)`.
            labels: Shares of the classes, float32 `(b, classes)`.
            weights: Weight of each sample, float32 `(b,)`; 0 leaves it out.
            stop: This process' reasons to stop, float32 `(reasons,)`, 0 or 1 each.
            observe: Called with the number k of each part and its float32 logits, those of the
                images k, k + K, k + 2K, ... where K is `accumulate`.
            number: That of the step, int32 `()`, if the host knows it: a GPU that has to tell it
                is waited for.

        Returns:
            The sum of `stop` over all replicas: all stop in the same step, or none. And the sums
            of loss x weight, weight and hits x weight over the global batch, float32 `(3,)`; zero
            if the step was not finite.
        """
        # With a loss scale a step may have to be undone, batch-norm statistics included.
        undo = [tf.identity(variable) for variable in self._changed if self._state.scaled]
        replicas = tf.distribute.get_replica_context().num_replicas_in_sync
        batch = tf.cast(tf.shape(images)[0] * replicas, tf.float32)
        sums, gradient = self._accumulate(images, labels, weights, batch, observe, number)
        # The identity places the input on the device of the replica; the sum needs one.
        values = [sums, tf.identity(stop), gradient]
        if replicas > 1 and self._statistics:
            values.append(_joined([v.value for v in self._statistics]) / replicas)
        sums, stop, gradient, *means = _sum_over_replicas(values)

        # Replicas update together, which XLA does not compile.
        update = self._compiled_update if replicas == 1 else None
        return stop, (update or self._update)(batch, sums, gradient, means, undo)

    def _update(self, batch, sums, gradient, means, undo):
        """Updates all that a step changes; returns the sums, or zeros of a step to be skipped.

        Args:
            batch: Images in the global batch.
            sums: As of `__call__`, over all replicas.
            gradient: Of all variables, summed over all replicas.
            means: One vector of the statistics that several replicas share, or nothing.
            undo: Values of `_changed` before the step, where it may be skipped.
        """
        # The backward pass divided by the batch size to stay in float16's range.
        gradient *= batch / (tf.maximum(sums[1], 1e-9) * self._state.loss_scale)
        norm = tf.linalg.global_norm([gradient])
        finite = tf.math.is_finite(norm) & tf.reduce_all(tf.math.is_finite(sums))
        for mean in means:
            finite &= tf.reduce_all(tf.math.is_finite(mean))
            values = _parted(mean, self._statistics)
            for variable, value in zip(self._statistics, values, strict=True):
                variable.assign(value)
        variables = self._model.trainable_variables
        self._optimizer.apply(self._clip(gradient, norm, variables), variables)
        # Not a conditional: the optimizer leaves the replica to update, which no branch may.
        for variable, before in zip(self._changed, undo, strict=False):
            variable.assign(tf.where(finite, variable, before))
        if self._average is not None:
            self._average.update(self._state.step, finite)
        self._state.judge(finite)
        sums = tf.where(finite, sums, 0.0)
        self._state.totals.assign_add(tf.cast(sums, tf.float64))
        self._state.step.assign_add(1)
        return sums

    def _accumulate(self, images, labels, weights, batch, observe, number):
        """Returns the sums of loss, weight and hits, and the scaled gradient of all parts."""
        parts = self._config.accumulate
        sums, total = tf.zeros((3,)), tf.zeros(())
        for part in range(parts):
            # Every K-th image, so that a part holds the same images for any number of
            # replicas. The parts must run one after the other, or all need memory at once.
            with tf.control_dependencies([sums, total]):
                piece = [tf.identity(x[part::parts]) for x in (images, labels, weights)]
            if part:
                self._share_ranges()
            seeds = self._seeds_of(self._state.step if number is None else number, part)
            # Outside of what XLA compiles: a teacher may consist of anything.
            taught = self._teacher(piece[0]) if self._teacher else None
            part_sums, gradient, logits = self._backward(
                *piece, batch=batch, seeds=seeds, taught=taught
            )
            if observe is not None:
                observe(part, logits)
            sums += part_sums
            total = total + gradient if part else gradient
        return sums, total

    def _share_ranges(self) -> None:
        """Averages over replicas the ranges that the next part is rounded in."""
        replicas = tf.distribute.get_replica_context().num_replicas_in_sync
        if self._ranges and replicas > 1:
            shared = sum_over_replicas([v.value / replicas for v in self._ranges])
            for variable, value in zip(self._ranges, shared, strict=True):
                variable.assign(value)

    def _gradients(self, images, labels, weights, batch, seeds, taught=None):
        """Returns sums as `_accumulate`, one vector of the gradients of all variables, logits."""
        seeded = _seeded(self._generators, seeds)
        with seeded, recompute_activations(self._config.recompute), tf.GradientTape() as tape:
            logits = tf.cast(self._model(tf.cast(images, tf.float32), training=True), tf.float32)
            known: Any = 1.0
            if taught is not None:
                # Of an image without a label, or mixed with one, the teacher's answer is taken
                # for right; it counts in the teacher's loss alone.
                known = tf.reduce_sum(labels, -1)
                labels += (1.0 - known)[:, None] * tf.nn.softmax(taught)
            losses, hits = self._judge(labels, logits)
            if taught is not None:
                share = self._distillation.student_loss_weight
                soft = distillation_loss(taught, logits, self._distillation.temperature)
                losses = share * known * losses + (1.0 - share) * soft
            loss = tf.reduce_sum(losses * weights)
            scaled = loss * (self._state.loss_scale / batch)
        variables = [v.value for v in self._model.trainable_variables]
        gradients: Any = tape.gradient(
            scaled, variables, unconnected_gradients=tf.UnconnectedGradients.ZERO
        )
        sums = tf.stack([loss, tf.reduce_sum(weights), tf.reduce_sum(hits * weights)])
        return sums, _joined([tf.cast(gradient, tf.float32) for gradient in gradients]), logits

    def _of_classes(self, labels: tf.Tensor, logits: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        losses = cross_entropy(labels, logits, self._config.label_smoothing)
        hits = tf.cast(tf.equal(tf.argmax(labels, -1), tf.argmax(logits, -1)), tf.float32)
        return losses, hits

    def _seeds_of(self, number: Any, part: int) -> list[tf.Tensor]:
        """Seeds of random layers by (seed, layer, step, replica, part), so that nothing is kept.

        On the host, where random operations read theirs.
        """
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        place = replica * self._config.accumulate + part
        fold_in = tf.random.experimental.stateless_fold_in  # pyright: ignore[reportAttributeAccessIssue]
        seeds = []
        with tf.device("CPU:0"):
            for layer in range(len(self._generators)):
                seed = tf.constant([self._config.seed, layer], tf.int64)
                for value in (number, place):
                    seed = fold_in(seed, tf.cast(value, tf.int64))
                seeds.append(tf.cast((seed & 0x7FFFFFFF) % (2**31 - 2), tf.int32))
        return seeds

    def _clip(self, gradient: tf.Tensor, norm: tf.Tensor, variables: list) -> list[tf.Tensor]:
        """Returns the gradients of the variables, clipped, out of the vector of all."""
        if limit := self._clipping.global_clipnorm:
            (gradient,), _ = tf.clip_by_global_norm([gradient], limit, use_norm=norm)
        gradients = _parted(gradient, variables)
        if limit := self._clipping.clipnorm:
            gradients = [tf.clip_by_norm(gradient, limit) for gradient in gradients]
        if limit := self._clipping.clipvalue:
            gradients = [tf.clip_by_value(gradient, -limit, limit) for gradient in gradients]
        return gradients

    @property
    def _changed(self) -> list[tf.Variable]:
        """What a step changes, but for its own state."""
        trained = self._model.trainable_variables
        return [v.value for v in (*trained, *self._optimizer.variables, *self._statistics)]


def cross_entropy(labels: tf.Tensor, logits: tf.Tensor, smoothing: float = 0.0) -> tf.Tensor:
    """Returns the softmax cross-entropy of each sample, float32 `(b,)`.

    Args:
        labels: Shares of the classes, float32 `(b, classes)`.
        logits: Float32 `(b, classes)`.
        smoothing: Share of every label that is spread over all classes.
    """
    target = labels * (1.0 - smoothing) + smoothing / labels.shape.with_rank(2)[-1]
    return tf.nn.softmax_cross_entropy_with_logits(target, logits)


def distillation_loss(teacher: tf.Tensor, student: tf.Tensor, temperature: float) -> tf.Tensor:
    """Returns how far the student's answers are from the teacher's, float32 `(b,)`.

    The Kullback-Leibler divergence of the softened probabilities, times the temperature squared:
    gradients keep their size whatever that is (Hinton et al., https://arxiv.org/abs/1503.02531).

    Args:
        teacher: Float32 logits `(b, classes)`.
        student: Float32 logits `(b, classes)`.
        temperature: Both are divided by it.
    """
    softened = teacher / temperature
    target = tf.nn.softmax(softened)
    cross = tf.nn.softmax_cross_entropy_with_logits(target, student / temperature)
    entropy = tf.nn.softmax_cross_entropy_with_logits(target, softened)
    return temperature**2 * (cross - entropy)


def _sum_over_replicas(values: list[tf.Tensor]) -> list[tf.Tensor]:
    """Sums float32 values of any shapes in one message; one replica alone sends none."""
    if tf.distribute.get_replica_context().num_replicas_in_sync == 1:
        return values
    (total,) = sum_over_replicas([_joined(values)])
    return _parted(total, values)


def _joined(values: list[tf.Tensor]) -> tf.Tensor:
    """One vector of all values: a GPU takes as long to begin with a small tensor as a large one."""
    return tf.concat([tf.reshape(value, (-1,)) for value in values], 0)


def _parted(vector: tf.Tensor, like: list) -> list[tf.Tensor]:
    """The values that `_joined` made `vector` of, of the shapes of those in `like`."""
    parts = tf.split(vector, [math.prod(each.shape) for each in like])
    return [tf.reshape(part, each.shape) for part, each in zip(parts, like, strict=True)]


def _generators(model: keras.Model) -> list[keras.random.SeedGenerator]:
    """Returns the seeds of the random layers, such as dropout, in the order of the layers."""
    layers = model._flatten_layers()  # those of inner models, too
    return [generator for layer in layers for generator in layer._seed_generators]


# Generator -> the seeds it is to hand out. Replicas are threads, which take turns within a step.
_given = threading.local()


def _next_given(generator: keras.random.SeedGenerator, ordered: bool = True) -> tf.Tensor:
    """What stands for `generator.next`: in a step a seed of its own, else the next one of Keras.

    The generator's state would lie on the GPU, from where each seed would have to be fetched.
    """
    seeds = getattr(_given, "seeds", {})
    return next(seeds[generator]) if generator in seeds else type(generator).next(generator)


@contextlib.contextmanager
def _seeded(generators: list[keras.random.SeedGenerator], seeds: list) -> Iterator[None]:
    """Gives each generator its seed, int32 `(2,)`, and others for a layer that is called again."""

    def counting_from(seed: tf.Tensor) -> Iterator[tf.Tensor]:
        return (tf.add(seed, [0, call]) for call in itertools.count())

    _given.seeds = dict(zip(generators, map(counting_from, seeds), strict=True))
    try:
        yield
    finally:
        _given.seeds = {}


def _leave_reduction_to_us(optimizer: keras.Optimizer) -> None:
    """Stops the optimizer from summing, a second time, gradients that are summed already.

    The one place that relies on a private part of Keras; `tests/optimization/test_step.py` names
    the version it was checked with.
    """
    if not hasattr(optimizer, "_all_reduce_sum_gradients"):
        raise RuntimeError(
            f"Keras {keras.version()} reduces gradients in an unknown way. Install Keras 3.15."
        )
    optimizer._all_reduce_sum_gradients = list


def seen_so_far(state: LoopState, metric: str = "accuracy") -> dict[str, float]:
    """Returns mean loss and accuracy, or what else is summed up, of the epoch so far."""
    loss, weight, hits = state.totals.numpy()
    weight = max(float(weight), 1e-9)
    return {"loss": float(loss) / weight, metric: float(hits) / weight}
