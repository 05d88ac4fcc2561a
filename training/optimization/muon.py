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


class Muon(keras.optimizers.AdamW):
    """Momentum, orthogonalized matrix by matrix; AdamW for all other variables.

    `keras.optimizers.Muon` leaves all but kernels of rank 2 to AdamW (Keras 3.15, shown by
    `tests/optimization/test_optimizers.py`), so in a convolutional network it is AdamW. Here a
    convolution `(height, width, inputs / groups, outputs)` is, per group, a matrix
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
        **kwargs: Of `keras.optimizers.AdamW`; its `weight_decay` serves matrices, too.
    """

    def __init__(
        self,
        learning_rate: Any,
        matrices: Mapping[str, int],
        momentum: float = 0.95,
        nesterov: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate, **kwargs)
        self._matrices = dict(matrices)
        self._momentum = momentum
        self._nesterov = nesterov

    def build(self, variables: Iterable[keras.Variable]) -> None:
        if not self.built:
            variables = list(variables)
            super().build(variables)
            self._groups = [self._matrices.get(v.path, 0) for v in variables]  # 0: AdamW

    def update_step(self, gradient: tf.Tensor, variable: Any, learning_rate: Any) -> None:
        index = self._get_variable_index(variable)
        groups, slot = self._groups[index], self._momentums[index]
        if not groups:
            super().update_step(gradient, variable, learning_rate)
            return
        gradient = tf.cast(gradient, variable.dtype)
        momentum = self._momentum * tf.convert_to_tensor(slot) + gradient
        self.assign(slot, momentum)
        direction = gradient + self._momentum * momentum if self._nesterov else momentum
        *rows, outputs = slot.shape
        # The outputs of a group lie side by side: (rows, groups * outputs of one) -> groups first.
        matrix = tf.reshape(direction, (-1, groups, outputs // groups))
        matrix = orthogonalize(tf.transpose(matrix, (1, 0, 2)))
        scale = 0.2 * max(math.prod(rows), outputs // groups) ** 0.5
        step = scale * tf.reshape(tf.transpose(matrix, (1, 0, 2)), gradient.shape)
        self.assign_sub(variable, tf.cast(learning_rate, variable.dtype) * step)


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
