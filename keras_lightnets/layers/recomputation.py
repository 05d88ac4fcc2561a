"""Activations that the backward pass computes again instead of keeping them."""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Callable, Iterator
from typing import Any

import keras

from keras_lightnets.layers import placement
from keras_lightnets.layers.placement import tf, xla

_enabled: contextvars.ContextVar[bool] = contextvars.ContextVar("recompute", default=False)
_RECIPE = "_lightnets_recipe"  # attribute of a tensor that can be computed again

Forward = Callable[["tf.Tensor", "tf.Tensor"], "tf.Tensor"]
# (input, kernel, gradient of the output) -> gradients of the input and of the kernel
Gradients = Callable[["tf.Tensor", "tf.Tensor", "tf.Tensor"], tuple["tf.Tensor", "tf.Tensor"]]

# Keras' function -> TensorFlow's operation that takes the gradient from that of the output and from
# the output.
GRADIENTS = {
    keras.activations.relu: "ReluGrad",
    keras.activations.relu6: "Relu6Grad",
}


@contextlib.contextmanager
def recompute_activations(enabled: bool = True) -> Iterator[None]:
    """Trains in less memory: training steps traced inside the block keep fewer activations.

    A convolution, batch norm and ReLU keep two tensors for the backward pass: what the
    convolution gave and, for the next convolution's kernel, what the ReLU made of it. Inside the
    block the second is computed again from the first and the batch's statistics (Chen et al.,
    2016, https://arxiv.org/abs/1604.06174, for the cheapest operations only). MobileNet v2 then
    trains in about 0.7 of the memory and 1.07 times the time; gradients are equal up to rounding.

    Where it acts: in a `tf.function` (as `fit` makes one), on the inputs of `GroupedConv2D` and
    `DepthwiseConv2D` of this package that a `FusedBatchNormalization` has made, with or without
    this package's `Activation`, ReLU or ReLU6, behind it: each of them hands over how its output
    is computed again. A function that was traced outside the block keeps its form. Second
    derivatives raise `NotImplementedError`. `fit` with several replicas traces in threads that do
    not see the block; `lightnets train --set train.recompute=true` does.

        with recompute_activations():
            model.fit(data)

    Raises:
        ValueError: Keras runs on another backend than TensorFlow.
    """
    if enabled:
        placement.need_tensorflow("recompute_activations")
    token = _enabled.set(enabled)
    try:
        yield
    finally:
        _enabled.reset(token)


def recomputes() -> bool:
    """Whether activations are to be computed again in what is being traced now."""
    return _enabled.get() and not tf.executing_eagerly()


class Recipe:
    """How the tensor that carries it can be computed once more in the backward pass."""

    def __init__(self, compute: Callable[[tf.Tensor], tf.Tensor]) -> None:
        """Takes a function that computes the tensor, but not before its argument is there."""
        self._compute = compute
        self._graph: tf.Graph | None = None
        self._again: Any = None

    def compute(self, after: tf.Tensor) -> tf.Tensor:
        """The tensor once more, but not before `after`, a gradient, is there."""
        graph = tf.compat.v1.get_default_graph()
        if self._graph is not graph:
            self._graph, self._again = graph, self._compute(after)
        return self._again

    def computed(self, kept: tf.Tensor) -> tf.Tensor:
        """What `compute` gave, if a convolution behind has asked for it, else `kept`."""
        return self._again if self._graph is tf.compat.v1.get_default_graph() else kept


def remember(
    y: tf.Tensor, normalize: Callable[..., tf.Tensor], arguments: tuple[tf.Tensor, ...]
) -> None:
    """Notes that `y` can be computed again: `normalize(*arguments)`."""

    @tf.custom_gradient
    def compute(after, *arguments) -> Any:
        def second_derivative(*_):
            raise NotImplementedError(
                "recompute_activations() has no second derivative. Trace it outside the block."
            )

        # Without the dependency it would run, and take up memory, in the forward pass. XLA drops
        # dependencies, and takes equal operations for one, unless there is a barrier.
        if placement.compiled():
            *arguments, _ = xla.optimization_barrier(*arguments, after)
        with tf.control_dependencies([after]):
            return normalize(*arguments), second_derivative

    setattr(y, _RECIPE, Recipe(lambda after: compute(after, *arguments)))


def activate(x: tf.Tensor, activation: Callable[[tf.Tensor], tf.Tensor]) -> tf.Tensor:
    """`activation(x)`, one of `GRADIENTS`, whose gradient keeps no tensor that is recomputed."""
    recipe = getattr(x, _RECIPE, None)
    if recipe is None:
        return activation(x)
    again = Recipe(lambda after: activation(recipe.compute(after)))

    @tf.custom_gradient
    def activated(x) -> Any:
        y = activation(x)
        gradient = getattr(tf.raw_ops, GRADIENTS[activation])
        return y, lambda dy: gradient(gradients=dy, features=again.computed(y))

    outputs = activated(x)
    setattr(outputs, _RECIPE, again)
    return outputs


def convolve(
    inputs: tf.Tensor, kernel: tf.Tensor, forward: Forward, gradients: Gradients
) -> tf.Tensor:
    """`forward(inputs, kernel)`, differentiated by `gradients`.

    The inputs are not kept for `gradients` where they can be computed again.
    """
    recipe = getattr(inputs, _RECIPE, None)

    @tf.custom_gradient
    def convolution(x, w) -> Any:
        def differentiate(dy):
            return gradients(x if recipe is None else recipe.compute(dy), w, dy)

        return forward(x, w), differentiate

    return convolution(inputs, kernel)
