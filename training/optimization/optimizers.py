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

from collections.abc import Iterable, Sequence
from typing import Any

import keras
import tensorflow as tf

from lightnets.config.keys import Config, OptimizerConfig
from lightnets.optimization.batch_norm import leaf_layers
from lightnets.optimization.muon import Muon
from lightnets.optimization.schedules import Schedule


def build(config: Config, steps_per_epoch: int, model: keras.Model) -> keras.optimizers.Optimizer:
    """Returns the optimizer of a run, its slots built for all trainable variables of `model`.

    Call it inside the strategy's scope, with no layer frozen that ever learns. To leave out
    variables at a step, leave them out of `optimizer.apply(gradients, variables)`: they then
    get neither decay nor momentum.

    Args:
        config: The run; sections `optimizer` and `train` are read.
        steps_per_epoch: Optimizer steps in an epoch.
        model: The network.
    """
    options = config.optimizer
    rate = Schedule(options, steps_per_epoch, config.train.epochs, config.train.batch_size)
    kind, names = _KINDS[options.name]
    # None is not handed on: the optimizers' own defaults differ from one another.
    given = {name: getattr(options, name) for name in names.split()}
    given = {name: value for name, value in given.items() if value is not None}
    spared = variables_without_decay(model, options)
    if issubclass(kind, _L2):
        optimizer = kind(rate, l2=options.weight_decay, without_l2=spared, **given)
    else:
        if kind is Muon:
            given["matrices"] = matrices_for_muon(model)
        optimizer = kind(rate, weight_decay=options.weight_decay, **given)
        optimizer.exclude_from_weight_decay(var_list=spared)
    optimizer.build(model.trainable_variables)
    return optimizer


def variables_without_decay(model: keras.Model, options: OptimizerConfig) -> list[keras.Variable]:
    """Returns the trainable variables of `model` that get no weight decay.

    Those are the vectors (batch norm's gamma and beta, biases) unless
    `optimizer.decay_norm_and_bias`, and the depthwise kernels unless `optimizer.decay_depthwise`.
    """
    excluded = []
    for layer in leaf_layers(model):
        depthwise = isinstance(layer, keras.layers.DepthwiseConv2D)
        for variable in layer.trainable_variables:
            if len(variable.shape) <= 1:
                keep = options.decay_norm_and_bias
            else:
                keep = options.decay_depthwise or not depthwise
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
        for layer in leaf_layers(model)
        if isinstance(layer, keras.layers.Conv2D) and not layer.name.startswith("logits")
    ]
    return {layer.kernel.path: layer.groups for layer in layers[1:]}


class _L2(keras.optimizers.Optimizer):
    """Base of optimizers with an L2 penalty on all variables but those named."""

    def __init__(
        self,
        *args: Any,
        l2: float = 0.0,
        without_l2: Sequence[keras.Variable] = (),
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self._l2 = l2
        self._without_l2 = {variable.path for variable in without_l2}

    def build(self, variables: Iterable[keras.Variable]) -> None:
        if not self.built:
            variables = list(variables)
            self._has_l2 = [variable.path not in self._without_l2 for variable in variables]
            super().build(variables)

    def _penalized(self, gradient: tf.Tensor, variable: Any) -> tf.Tensor:
        gradient = tf.cast(gradient, variable.dtype)
        if self._l2 and self._has_l2[self._get_variable_index(variable)]:
            gradient += self._l2 * tf.convert_to_tensor(variable)
        return gradient


class SGD(_L2):
    """Stochastic gradient descent with momentum and L2 penalty; equal to `torch.optim.SGD`.

    `m = momentum * m + gradient; variable -= rate * m`, as PyTorch and TensorFlow 1 have it.
    Keras puts the rate into `m`, so that a change of the rate acts on old gradients too.

    Args:
        learning_rate: A number or a schedule.
        momentum: Share of the old direction kept at each step.
        nesterov: Whether to look one step ahead.
        **kwargs: `l2`: the penalty's gradient is `l2 * variable`; `without_l2`: the variables
            that have no penalty.
    """

    def __init__(
        self, learning_rate: Any, momentum: float = 0.9, nesterov: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(learning_rate, **kwargs)
        self._momentum = momentum
        self._nesterov = nesterov

    def build(self, variables: Iterable[keras.Variable]) -> None:
        if not self.built:
            super().build(variables)
            self._momentums = self.add_optimizer_variables(variables, "momentum")

    def update_step(self, gradient: tf.Tensor, variable: Any, learning_rate: Any) -> None:
        slot = self._momentums[self._get_variable_index(variable)].value
        # One operation, where TensorFlow would launch five for each variable.
        tf.raw_ops.ResourceApplyMomentum(
            var=variable.handle,
            accum=slot.handle,
            lr=tf.cast(learning_rate, variable.dtype),
            grad=self._penalized(gradient, variable),
            momentum=tf.cast(self._momentum, variable.dtype),
            use_nesterov=self._nesterov,
        )


class RMSprop(_L2, keras.optimizers.RMSprop):
    """RMSprop of TensorFlow 1, with which Google trained MobileNet v1 and v2; L2 penalty.

    Epsilon lies inside the square root, `rate * gradient / sqrt(mean_square + epsilon)`, as in
    Keras (PyTorch adds it outside), and the mean of squares starts at 1 (Keras: 0), which damps
    the first steps. Arguments as of `keras.optimizers.RMSprop`, and `l2` and `without_l2` as of
    `SGD`.
    """

    def update_step(self, gradient: tf.Tensor, variable: Any, learning_rate: Any) -> None:
        super().update_step(self._penalized(gradient, variable), variable, learning_rate)

    def add_optimizer_variables(
        self, trainable_variables: Any, name: Any, initializer: Any = "zeros"
    ) -> Any:
        if name == "velocity":  # Keras' name for the mean of squares
            initializer = "ones"
        return super().add_optimizer_variables(trainable_variables, name, initializer)


# What each is made with: the class, and the keys of the configuration that it takes.
_KINDS: dict[str, tuple[Any, str]] = {
    "sgd": (SGD, "momentum nesterov"),
    "rmsprop": (RMSprop, "rho momentum epsilon"),
    "adamw": (keras.optimizers.AdamW, "beta_1 beta_2 epsilon"),
    "lion": (keras.optimizers.Lion, "beta_1 beta_2"),
    "muon": (Muon, "momentum nesterov beta_1 beta_2 epsilon"),
}
