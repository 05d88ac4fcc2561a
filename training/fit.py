"""`model.fit` with the training step of this package, for your own Python.

    from lightnets.distribution import strategy
    from lightnets.fit import FitModel

    with strategy.create("cpu:2").scope():
        network = keras_lightnets.ShuffleNetV1(...)
        model = FitModel(network)
        model.compile("sgd", "categorical_crossentropy", metrics=["accuracy"])
    model.fit(images, labels, validation_split=0.1, callbacks=[...])
    network.save("network.keras")

Progress, callbacks, metrics and history are Keras' own; what happens in a step is
`lightnets.optimization.step`. `lightnets train` has a loop of its own, which also resumes
exactly and runs on several machines; both take the same steps (`tests/optimization/test_fit.py`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import keras_lightnets
from keras_lightnets.layers import placement
from lightnets import fit_batches
from lightnets.config.keys import OptimizerConfig, TrainConfig
from lightnets.distribution import strategy
from lightnets.optimization import batch_norm
from lightnets.optimization.step import LoopState, TrainStep, cross_entropy


@dataclasses.dataclass
class _Parts:
    """What Keras must not take for layers of the model."""

    network: keras.Model
    logits: keras.Model
    state: LoopState
    config: TrainConfig
    jit: bool = False
    step: TrainStep = dataclasses.field(init=False)  # when Keras builds its function


class FitModel(keras.Model):
    """A classifier whose `fit`, `evaluate` and `predict` are right on every number of replicas.

    It shares all layers with the network it is made from. Gradients are summed over replicas
    once, then checked, clipped as the optimizer says and applied; batch-norm statistics are
    averaged in every step; with `mixed_float16` all replicas skip the same steps. A smaller
    last batch is filled up with its own images at weight 0, which no loss and no metric counts.

    The loss is the mean over the global batch, weighted by the weights of the samples, which
    must not be negative.
    """

    def __init__(
        self,
        network: keras.Model,
        *,
        accumulate: int = 1,
        sync_bn: bool = False,
        recompute: bool = False,
        seed: int = 0,
    ):
        """Wraps a network; under a strategy call it, and `compile`, inside its scope.

        Args:
            network: Functional, images to probabilities or logits; these come from a layer
                `logits`, as in all networks of `keras_lightnets`.
            accumulate: Parts into which each replica's batch is cut to save memory.
            sync_bn: Batch norm normalizes by the global batch, not by the replica's share.
            recompute: See `keras_lightnets.layers.recompute_activations`.
            seed: Decides dropout, and the order in which arrays are shuffled.

        Raises:
            ValueError: There is no layer `logits`, or several machines take part.
        """
        placement.need_tensorflow("FitModel")
        super().__init__(inputs=network.inputs, outputs=network.outputs, name=network.name)
        if isinstance(self.distribute_strategy, tf.distribute.MultiWorkerMirroredStrategy):
            raise ValueError("FitModel works on one machine. Use lightnets train on several.")
        logits = keras_lightnets.logits_model(network)
        if sync_bn and self.replicas > 1:
            batch_norm.synchronize(logits)
        scaled = any(layer.compute_dtype == "float16" for layer in network.layers)
        config = TrainConfig(accumulate=accumulate, recompute=recompute, seed=seed, sync_bn=sync_bn)
        self._parts = _Parts(network, logits, LoopState(scaled), config)

    @property
    def replicas(self) -> int:
        """How many replicas train."""
        return self.distribute_strategy.num_replicas_in_sync

    def compile(
        self,
        optimizer: Any = "rmsprop",
        loss: Any = "categorical_crossentropy",
        loss_weights: Any = None,
        metrics: Any = None,
        weighted_metrics: Any = None,
        run_eagerly: bool = False,
        steps_per_execution: int = 1,
        jit_compile: bool | str = "auto",
        auto_scale_loss: bool = True,
    ) -> None:
        """Configures training; arguments as of `keras.Model.compile`, in its order.

        Args:
            optimizer: Its clipping acts on the global gradient, its `use_ema` is Keras' own.
            loss: Categorical or sparse categorical cross-entropy, by name or as an object whose
                `label_smoothing` counts. Labels may be one-hot or class numbers with either.
            loss_weights: Must be None: there is one output.
            metrics: Of labels and probabilities, without the weights of the samples.
            weighted_metrics: The same with them.
            run_eagerly: For debugging.
            steps_per_execution: With several replicas the strategy must come from
                `lightnets.distribution.strategy.create`, whose reductions work in a loop.
            jit_compile: XLA for forward and backward pass; `auto`: on GPUs,
                but not with `sync_bn` on several of them.
            auto_scale_loss: Must be True: with float16 the step scales the loss.

        Raises:
            ValueError: Something does not work with this step, and what does instead.
        """
        optimizer = keras.optimizers.get(optimizer)
        _check_optimizer(optimizer)
        if loss_weights is not None:
            raise ValueError("loss_weights needs several outputs. Leave it out.")
        if not auto_scale_loss:
            raise ValueError("FitModel always scales a float16 loss. Leave out auto_scale_loss.")
        parts = self._parts
        parts.config = dataclasses.replace(parts.config, label_smoothing=_label_smoothing(loss))
        wanted = {True: "on", False: "off", "auto": "auto"}[jit_compile]
        parts.jit = strategy.jit(wanted, self.distribute_strategy, parts.config.sync_bn)
        super().compile(
            optimizer,
            metrics=metrics,
            weighted_metrics=weighted_metrics,
            steps_per_execution=steps_per_execution,
            run_eagerly=run_eagerly,
            jit_compile=False,  # the step compiles its own share
            auto_scale_loss=False,  # the step scales
        )

    def make_train_function(self, force: bool = False) -> None:
        """Builds the optimizer and the step, where Keras builds its function."""
        if self.train_function is None or force:
            parts = self._parts
            with self.distribute_strategy.scope():
                self.optimizer.build(self.trainable_variables)
            parts.step = TrainStep(
                parts.logits,
                self.optimizer,
                parts.state,
                parts.config,
                OptimizerConfig(),
                jit=parts.jit,
            )
        super().make_train_function(force)

    def train_step(self, data: Any) -> dict[str, tf.Tensor]:
        """Takes one step on a replica's share of a batch."""
        images, labels, weights = _unpack(data)
        counted = weights >= 0.0
        stride = self._parts.config.accumulate

        def observe(part: int, logits: tf.Tensor) -> None:
            self._count(*(x[part::stride] for x in (labels, weights, counted)), logits=logits)

        _, sums = self._parts.step(
            images,
            fit_batches.one_hot(labels, self.output_shape[-1]),
            tf.maximum(weights, 0.0),
            tf.zeros((1,)),
            observe,
        )
        # The same sums on all replicas: the mean over replicas that Keras takes keeps it.
        self.metrics[0].update_state(sums[0] / tf.maximum(sums[1], 1e-9), sample_weight=sums[1])
        return self.get_metrics_result()

    def test_step(self, data: Any) -> dict[str, tf.Tensor]:
        """Evaluates a replica's share of a batch."""
        images, labels, weights = _unpack(data)
        counted = weights >= 0.0
        logits = tf.cast(self._parts.logits(images, training=False), tf.float32)
        smoothing = self._parts.config.label_smoothing
        losses = cross_entropy(fit_batches.one_hot(labels, logits.shape[-1]), logits, smoothing)
        self.metrics[0].update_state(losses, sample_weight=tf.maximum(weights, 0.0))
        self._count(labels, weights, counted, logits)
        return self.get_metrics_result()

    def _count(
        self, labels: tf.Tensor, weights: tf.Tensor, counted: tf.Tensor, logits: tf.Tensor
    ) -> None:
        labels, weights, logits = (tf.boolean_mask(x, counted) for x in (labels, weights, logits))
        self.compute_metrics(None, labels, tf.nn.softmax(logits), sample_weight=weights)

    def predict_step(self, data: Any) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns probabilities, and which images are no filling."""
        images, weights = data
        return self(images, training=False), weights >= 0.0

    def fit(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        epochs: int = 1,
        *,
        sample_weight: Any = None,
        class_weight: Mapping[int, float] | None = None,
        shuffle: bool = True,
        validation_data: Any = None,
        validation_split: float = 0.0,
        validation_batch_size: int | None = None,
        callbacks: Any = None,
        **kwargs: Any,
    ) -> keras.callbacks.History:
        """Trains; arguments as of `keras.Model.fit`.

        Args:
            x: Array of images, or `tf.data.Dataset` of batches.
            y: Labels, one-hot `(n, classes)` or class numbers `(n,)`.
            batch_size: Global: over all replicas.
            epochs: Passes over the data.
            sample_weight: At least 0 each.
            class_weight: Factor on the weights of a class' samples; 1 for those not named.
            shuffle: Whether arrays come in another order in each epoch, the same on any number
                of replicas.
            validation_data: `(x, y)`, `(x, y, weights)` or a dataset.
            validation_split: Share of the arrays, the last ones, that is held out.
            validation_batch_size: None: `batch_size`.
            callbacks: Keras callbacks.
            **kwargs: The rest of `keras.Model.fit`.

        Raises:
            ValueError: The batch cannot be shared by the replicas and parts, a label is no class
                number (of a dataset: `tf.errors.InvalidArgumentError`), and others.
            FloatingPointError: Loss or gradient were not finite; names the step.
        """
        if validation_split and validation_data is None:
            (x, y, sample_weight), validation_data = _split(x, y, sample_weight, validation_split)
        if validation_data is not None:
            if not isinstance(validation_data, tf.data.Dataset):
                validation_batch_size = validation_batch_size or batch_size
            held_out = keras.utils.unpack_x_y_sample_weight(validation_data)
            validation_data = self._batches(*held_out, batch_size=validation_batch_size)
        taken = int(self._parts.state.step.numpy())  # or each call would shuffle in the same way
        data = self._batches(
            x,
            y,
            sample_weight,
            batch_size,
            multiple=self.replicas * self._parts.config.accumulate,
            exact=True,
            seed=self._parts.config.seed + taken if shuffle else None,
        )
        if class_weight:
            data = _with_class_weights(data, class_weight, self.output_shape[-1])
        guard = _Guard(self._parts.state)
        if isinstance(callbacks, keras.callbacks.CallbackList):
            callbacks.append(guard)
        else:  # first, so that no other sees weights that are broken
            callbacks = [guard, *tf.nest.flatten(callbacks or [])]
        return super().fit(
            data,
            epochs=epochs,
            callbacks=callbacks,
            validation_data=validation_data,
            shuffle=False,  # done already
            **kwargs,
        )

    def evaluate(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        *,
        sample_weight: Any = None,
        **kwargs: Any,
    ) -> Any:
        """Counts every image once, on any number of replicas; see `keras.Model.evaluate`."""
        return super().evaluate(self._batches(x, y, sample_weight, batch_size), **kwargs)

    def predict(self, x: Any, batch_size: int | None = None, **kwargs: Any) -> np.ndarray:
        """Returns what the network gives, float32 `(n, classes)`; see `keras.Model.predict`."""
        data = self._batches(x, batch_size=batch_size)
        data = data.map(lambda images, *others: (images, others[-1]))
        probabilities, counted = super().predict(data, **kwargs)
        return probabilities[counted]

    def predict_on_batch(self, x: Any) -> np.ndarray:
        """Returns what the network gives, float32 `(n, classes)`, of a batch of any size."""
        return self._parts.network.predict_on_batch(x)

    def save(self, filepath: Any, overwrite: bool = True, **kwargs: Any) -> None:
        """Writes the network, which loads without this package's training part.

        `ModelCheckpoint` calls it too. The optimizer is not in the file.
        """
        self._parts.network.save(filepath, overwrite=overwrite, **kwargs)

    def _batches(
        self, x: Any, y: Any = None, weights: Any = None, batch_size: int | None = None, **how: Any
    ) -> tf.data.Dataset:
        how = {"multiple": self.replicas, "classes": self.output_shape[-1], **how}
        return fit_batches.batches(x, y, weights, batch_size, **how)


class _Guard(keras.callbacks.Callback):
    """Ends training in the step that breaks it."""

    def __init__(self, state: LoopState):
        super().__init__()
        self._state = state

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        failed = int(self._state.failed_step.numpy())
        if failed >= 0:
            raise FloatingPointError(
                f"The loss or its gradient was not finite in step {failed}. Try a lower learning "
                "rate, a warm-up, or global_clipnorm=1 of the optimizer."
            )


def _unpack(data: Any) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Returns images, labels and weights; those of `train_on_batch` may lack the weights."""
    images, labels, weights = keras.utils.unpack_x_y_sample_weight(data)
    if labels is None:
        raise ValueError("Labels are missing: give y, or a dataset of (images, labels).")
    images, labels = tf.convert_to_tensor(images), tf.convert_to_tensor(labels)
    if weights is None:
        weights = tf.ones(tf.shape(images)[:1])
    return images, labels, tf.cast(weights, tf.float32)


def _with_class_weights(
    data: tf.data.Dataset, class_weight: Mapping[int, float], classes: int
) -> tf.data.Dataset:
    factors = tf.constant([float(class_weight.get(number, 1.0)) for number in range(classes)])

    def weigh(images, labels, weights):
        return (
            images,
            labels,
            weights * tf.linalg.matvec(fit_batches.one_hot(labels, classes), factors),
        )

    return data.map(weigh)


def _split(x: Any, y: Any, weights: Any, share: float) -> tuple[tuple, tuple]:
    """Cuts the last `share` off arrays, as Keras does."""
    if isinstance(x, tf.data.Dataset):
        raise ValueError("validation_split needs arrays. Cut the dataset by take and skip.")
    first = int(len(x) * (1.0 - share))
    arrays = [x, y, weights]
    trained = tuple(None if array is None else array[:first] for array in arrays)
    return trained, tuple(None if array is None else array[first:] for array in arrays)


def _check_optimizer(optimizer: keras.Optimizer) -> None:
    if isinstance(optimizer, keras.mixed_precision.LossScaleOptimizer):
        raise ValueError("FitModel scales the loss itself. Give the optimizer that is inside.")
    if optimizer.gradient_accumulation_steps:
        raise ValueError(
            "gradient_accumulation_steps does not work with replicas. "
            f"Use FitModel(accumulate={optimizer.gradient_accumulation_steps}) with a batch that "
            "many times as large."
        )
    if optimizer.use_ema and optimizer.ema_overwrite_frequency:
        raise ValueError("ema_overwrite_frequency does not work with replicas. Leave it out.")


def _label_smoothing(loss: Any) -> float:
    """Returns the smoothing of a cross-entropy; the step computes the loss itself."""
    known = ("categorical_crossentropy", "sparse_categorical_crossentropy")
    found = keras.losses.get(loss)
    classes = (keras.losses.CategoricalCrossentropy, keras.losses.SparseCategoricalCrossentropy)
    if isinstance(found, classes):
        return float(found.get_config().get("label_smoothing", 0.0))
    if getattr(found, "__name__", None) in known:
        return 0.0
    raise ValueError(f"The loss must be {known[0]} or {known[1]}. Received: {loss!r}.")
