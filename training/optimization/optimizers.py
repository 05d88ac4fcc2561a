"""Optimizers by name, with the weight decay that the sources of the recipes mean.

* `sgd`, `rmsprop`: L2 penalty. `weight_decay * w` is added to the gradient, so it passes through
  the momentum (and through RMSprop's normalization), as in Caffe, TF-Slim, PyTorch and every
  paper of these networks. Keras' own `weight_decay` argument is another thing: it shrinks the
  weights by `rate * weight_decay` directly, which with momentum 0.9 is ten times weaker.
* `adamw`, `lion`, `muon`: decoupled. Weights shrink by `rate * weight_decay` at each step, as in
  their papers and in PyTorch.

Neither kind clips: gradients arrive reduced over replicas, checked and clipped.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import keras
import tensorflow as tf

from lightnets.config.keys import Config
from lightnets.optimization import schedules
from lightnets.optimization.muon import Muon


def build(config: Config, steps_per_epoch: int, model: keras.Model) -> keras.optimizers.Optimizer:
    """Returns the optimizer of a run, its slots built for all trainable variables of `model`.

    Call it inside the strategy's scope and before layers are frozen. To leave out variables at
    a step, leave them out of `optimizer.apply(gradients, variables)`: they then get neither
    decay nor momentum.

    Args:
        config: The run; sections `optimizer` and `train` are read.
        steps_per_epoch: Optimizer steps in an epoch.
        model: The network.
    """
    options = config.optimizer
    rate = schedules.build(options, steps_per_epoch, config.train.epochs, config.train.batch_size)
    without_decay = [v.path for v in variables_without_decay(model, config)]
    if options.name == "sgd":
        optimizer = SGD(
            rate,
            momentum=options.momentum,
            nesterov=options.nesterov,
            l2=options.weight_decay,
            without_l2=without_decay,
        )
    elif options.name == "rmsprop":
        optimizer = RMSprop(
            rate,
            rho=options.rho,
            momentum=options.momentum,
            epsilon=1e-7 if options.epsilon is None else options.epsilon,
            l2=options.weight_decay,
            without_l2=without_decay,
        )
    else:
        optimizer = _decoupled(config, rate, model)
        excluded = set(without_decay)
        optimizer.exclude_from_weight_decay(
            var_list=[v for v in model.trainable_variables if v.path in excluded]
        )
    optimizer.build(model.trainable_variables)
    return optimizer


def _decoupled(
    config: Config, rate: schedules.Schedule, model: keras.Model
) -> keras.optimizers.Optimizer:
    options = config.optimizer
    # Only what the user set: the optimizers' own defaults differ from one another.
    betas = {
        key: value
        for key, value in (("beta_1", options.beta_1), ("beta_2", options.beta_2))
        if value is not None
    }
    epsilon = {} if options.epsilon is None else {"epsilon": options.epsilon}
    decay = {"weight_decay": options.weight_decay}
    if options.name == "adamw":
        return keras.optimizers.AdamW(rate, **betas, **epsilon, **decay)
    if options.name == "lion":
        return keras.optimizers.Lion(rate, **betas, **decay)
    return Muon(
        rate,
        matrices=matrices_for_muon(model),
        momentum=options.momentum,
        nesterov=options.nesterov,
        **betas,
        **epsilon,
        **decay,
    )


def variables_without_decay(model: keras.Model, config: Config) -> list[keras.Variable]:
    """Returns the trainable variables of `model` that get no weight decay.

    Those are the vectors (batch norm's gamma and beta, biases) unless
    `optimizer.decay_norm_and_bias`, and the depthwise kernels unless `optimizer.decay_depthwise`.
    """
    excluded = []
    for layer in _leaf_layers(model):
        depthwise = isinstance(layer, keras.layers.DepthwiseConv2D)
        for variable in layer.trainable_variables:
            if len(variable.shape) <= 1:
                keep = config.optimizer.decay_norm_and_bias
            else:
                keep = config.optimizer.decay_depthwise or not depthwise
            if not keep:
                excluded.append(variable)
    return excluded


def matrices_for_muon(model: keras.Model) -> dict[str, int]:
    """Returns the paths of the kernels that Muon updates as matrices, each with its groups.

    Muon is meant for the hidden matrices: convolutions, but not the first one, which sees pixels,
    nor the classifier. A grouped convolution is one matrix per group. Depthwise kernels are nine
    numbers per channel, hardly matrices; they go to AdamW with the rest.
    """
    layers = [
        layer
        for layer in _leaf_layers(model)
        if isinstance(layer, keras.layers.Conv2D) and not layer.name.startswith("logits")
    ]
    return {layer.kernel.path: layer.groups for layer in layers[1:]}


def _leaf_layers(model: keras.Model) -> Iterator[keras.layers.Layer]:
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from _leaf_layers(layer)
        else:
            yield layer


class _L2(keras.optimizers.Optimizer):
    """Mixin: adds `l2 * variable` to the gradient of all variables but those named."""

    def __init__(
        self, *args: Any, l2: float = 0.0, without_l2: Sequence[str] = (), **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.l2 = l2
        self.without_l2 = list(without_l2)

    def build(self, variables: Iterable[keras.Variable]) -> None:
        if self.built:
            return
        variables = list(variables)
        excluded = set(self.without_l2)
        self._has_l2 = [v.path not in excluded for v in variables]
        super().build(variables)

    def update_step(self, gradient: tf.Tensor, variable: Any, learning_rate: Any) -> None:
        gradient = tf.cast(gradient, variable.dtype)
        if self.l2 and self._has_l2[self._get_variable_index(variable)]:
            gradient += self.l2 * tf.convert_to_tensor(variable)
        super().update_step(gradient, variable, learning_rate)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "l2": self.l2, "without_l2": list(self.without_l2)}


class _Momentum(keras.optimizers.Optimizer):
    """`m = momentum * m + gradient; variable -= rate * m`, as PyTorch and TensorFlow 1 have it.

    Keras puts the rate into `m`, so that a change of the rate acts on old gradients too.
    """

    def __init__(
        self, learning_rate: Any, momentum: float = 0.9, nesterov: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(learning_rate, **kwargs)
        self.momentum = momentum
        self.nesterov = nesterov

    def build(self, variables: Iterable[keras.Variable]) -> None:
        if self.built:
            return
        super().build(variables)
        self._momentums = self.add_optimizer_variables(variables, "momentum")

    def update_step(self, gradient: tf.Tensor, variable: Any, learning_rate: Any) -> None:
        rate = tf.cast(learning_rate, variable.dtype)
        slot = self._momentums[self._get_variable_index(variable)]
        momentum = self.momentum * tf.convert_to_tensor(slot) + gradient
        self.assign(slot, momentum)
        step = gradient + self.momentum * momentum if self.nesterov else momentum
        self.assign_sub(variable, rate * step)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "momentum": self.momentum, "nesterov": self.nesterov}


@keras.saving.register_keras_serializable(package="lightnets")
class SGD(_L2, _Momentum):
    """Stochastic gradient descent with momentum and L2 penalty; equal to `torch.optim.SGD`.

    Args:
        learning_rate: A number or a schedule.
        momentum: Share of the old direction kept at each step.
        nesterov: Whether to look one step ahead.
        l2: The penalty's gradient is `l2 * variable`.
        without_l2: Paths of the variables that have no penalty.
    """


@keras.saving.register_keras_serializable(package="lightnets")
class RMSprop(_L2, keras.optimizers.RMSprop):
    """RMSprop of TensorFlow 1, with which Google trained MobileNet v1 and v2; L2 penalty.

    Epsilon lies inside the square root, `rate * gradient / sqrt(mean_square + epsilon)`, as in
    Keras (PyTorch adds it outside), and the mean of squares starts at 1 (Keras: 0), which damps
    the first steps.

    Args:
        learning_rate: A number or a schedule.
        rho: Decay of the mean of squares.
        momentum: Decay of the sum of steps.
        epsilon: Added to the mean of squares; 1.0 in TF-Slim's recipes.
        l2: The penalty's gradient is `l2 * variable`.
        without_l2: Paths of the variables that have no penalty.
    """

    def add_optimizer_variables(
        self, trainable_variables: Any, name: Any, initializer: Any = "zeros"
    ) -> Any:
        if name == "velocity":  # Keras' name for the mean of squares
            initializer = "ones"
        return super().add_optimizer_variables(trainable_variables, name, initializer)
