"""Muon for convolutional networks."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import keras
import tensorflow as tf

# Coefficients of the quintic iteration and its number of steps, from the author's code.
_QUINTIC = (3.4445, -4.7750, 2.0315)
_ITERATIONS = 5


@keras.saving.register_keras_serializable(package="lightnets")
class Muon(keras.optimizers.Optimizer):
    """Momentum, orthogonalized matrix by matrix; AdamW for all other variables.

    `keras.optimizers.Muon` leaves all but kernels of rank 2 to AdamW (Keras 3.15, shown by
    `tests/test_optimizers.py`), so in a convolutional network it is AdamW. Here a convolution
    `(height, width, inputs / groups, outputs)` is, per group, a matrix
    `(height * width * inputs / groups, outputs / groups)`.

    Updates of matrices are scaled by `0.2 * sqrt(larger side)`, so that they are as large as
    AdamW's and one rate and one decay serve both (Liu et al., 2025,
    https://arxiv.org/abs/2502.16982). The method: Jordan et al., 2024,
    https://kellerjordan.github.io/posts/muon/.

    Args:
        learning_rate: A number or a schedule.
        matrices: Variable path -> groups, for the variables to update as matrices.
        momentum: Share of the old direction of a matrix kept at each step.
        nesterov: Whether to look one step ahead, for matrices.
        beta_1: AdamW's decay of the mean gradient.
        beta_2: AdamW's decay of the mean squared gradient.
        epsilon: Added to the root of AdamW's mean squared gradient.
        **kwargs: Of `keras.optimizers.Optimizer`, such as `weight_decay` (decoupled).
    """

    def __init__(
        self,
        learning_rate: Any,
        matrices: Mapping[str, int],
        momentum: float = 0.95,
        nesterov: bool = True,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate, **kwargs)
        self.matrices = dict(matrices)
        self.momentum = momentum
        self.nesterov = nesterov
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = epsilon

    def build(self, variables: Iterable[keras.Variable]) -> None:
        if self.built:
            return
        variables = list(variables)
        super().build(variables)
        self._groups = [self.matrices.get(v.path, 0) for v in variables]  # 0: AdamW
        self._momentums = self.add_optimizer_variables(variables, "momentum")
        others = [v for v in variables if v.path not in self.matrices]
        velocities = iter(self.add_optimizer_variables(others, "velocity"))
        self._velocities = [None if groups else next(velocities) for groups in self._groups]

    def update_step(self, gradient: tf.Tensor, variable: Any, learning_rate: Any) -> None:
        index = self._get_variable_index(variable)
        gradient = tf.cast(gradient, variable.dtype)
        rate = tf.cast(learning_rate, variable.dtype)
        if self._groups[index]:
            step = self._matrix_step(gradient, self._momentums[index], self._groups[index])
        else:
            step = self._adam_step(gradient, self._momentums[index], self._velocities[index])
        self.assign_sub(variable, rate * step)

    def _matrix_step(self, gradient: tf.Tensor, slot: Any, groups: int) -> tf.Tensor:
        momentum = self.momentum * tf.convert_to_tensor(slot) + gradient
        self.assign(slot, momentum)
        direction = gradient + self.momentum * momentum if self.nesterov else momentum
        *rows, outputs = slot.shape
        # The outputs of a group lie side by side: (rows, groups * outputs of one) -> groups first.
        matrix = tf.reshape(direction, (-1, groups, outputs // groups))
        matrix = orthogonalize(tf.transpose(matrix, (1, 0, 2)))
        scale = 0.2 * max(math.prod(rows), outputs // groups) ** 0.5
        return scale * tf.reshape(tf.transpose(matrix, (1, 0, 2)), gradient.shape)

    def _adam_step(self, gradient: tf.Tensor, mean_slot: Any, square_slot: Any) -> tf.Tensor:
        mean = tf.convert_to_tensor(mean_slot)
        square = tf.convert_to_tensor(square_slot)
        mean = self.beta_1 * mean + (1.0 - self.beta_1) * gradient
        square = self.beta_2 * square + (1.0 - self.beta_2) * tf.square(gradient)
        self.assign(mean_slot, mean)
        self.assign(square_slot, square)
        # The means start at zero; dividing by these removes the bias.
        count = tf.cast(self.iterations + 1, gradient.dtype)
        mean /= 1.0 - self.beta_1**count
        square /= 1.0 - self.beta_2**count
        return mean / (tf.sqrt(square) + self.epsilon)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "matrices": dict(self.matrices),
            "momentum": self.momentum,
            "nesterov": self.nesterov,
            "beta_1": self.beta_1,
            "beta_2": self.beta_2,
            "epsilon": self.epsilon,
        }


def orthogonalize(matrices: tf.Tensor) -> tf.Tensor:
    """Returns matrices `(..., m, n)` with their singular values moved close to 1.

    Newton-Schulz iteration: of `U S V^T` about `U V^T` is left, with singular values of 0.7 to
    1.2, which is as good for the purpose and needs only products.
    """
    a, b, c = _QUINTIC
    rows, columns = matrices.shape.with_rank_at_least(2)[-2:]
    tall = rows > columns
    x = tf.linalg.matrix_transpose(matrices) if tall else matrices
    # The Frobenius norm bounds the spectral norm, which the iteration wants at most 1.
    x /= tf.norm(x, axis=(-2, -1), keepdims=True) + 1e-7
    for _ in range(_ITERATIONS):
        gram = tf.matmul(x, x, transpose_b=True)
        x = a * x + tf.matmul(b * gram + c * tf.matmul(gram, gram), x)
    return tf.linalg.matrix_transpose(x) if tall else x
