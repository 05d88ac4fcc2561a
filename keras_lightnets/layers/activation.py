"""Activation that knows how the layers of this package train."""

from __future__ import annotations

from typing import Any

import keras

from keras_lightnets.layers import placement, recomputation, wide_channels


@keras.saving.register_keras_serializable(package="keras_lightnets")
class Activation(keras.layers.Activation):
    """`keras.layers.Activation`, a drop-in replacement with the same arguments and numbers.

    Between `FusedBatchNormalization` and a convolution of this package, `"relu"` and `"relu6"` take
    part in `recompute_activations` and hand on the channels that `GroupedConv2D(pad_filters=True)`
    has added. Other activations are computed as in Keras.
    """

    def call(self, inputs: Any) -> Any:
        if not placement.TENSORFLOW or self.activation not in recomputation.GRADIENTS:
            return super().call(inputs)
        outputs = recomputation.activate(wide_channels.widen(inputs), self.activation)
        return wide_channels.narrow(outputs, inputs.shape.with_rank_at_least(1)[-1])
