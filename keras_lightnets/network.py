"""What the five builders have in common around their own layers: input, taps, classifier."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from keras_lightnets import weights as weights_lib
from keras_lightnets.blocks import Norm, Strides
from keras_lightnets.classifier import classify
from keras_lightnets.options import PADDINGS, Options, check_choice, check_input_shape
from keras_lightnets.preprocessing import IMAGENET_MEAN, IMAGENET_STD


class Network:
    """A network under construction.

    Attributes:
        x: The (normalized) image, `(batch, height, width, channels)`.
        norm: Constants of batch normalization.
        strides: Plans strides and dilations.
        padding: `"symmetric"` or `"same"`, of windows that stride.
    """

    def __init__(
        self,
        family: str,
        variant: dict[str, Any],
        input_shape: Sequence[int | None],
        options: Options,
        padding: str | None = None,
    ) -> None:
        """Checks the input and the weights, then makes the input.

        Args:
            family: Registry name of the network, the default name of the model.
            variant: The builder's own arguments; decides which published weights fit.
            input_shape: `(height, width, channels)`.
            options: The shared arguments.
            padding: Of windows that stride; None: that of the weights.
        """
        if padding is not None:
            check_choice("padding", padding, PADDINGS)
        shape = check_input_shape(input_shape)
        self.family = family
        self.options = options
        self.norm = Norm(options.bn_momentum, options.bn_epsilon)
        self.strides = Strides(options.output_stride)
        self.padding = padding or "symmetric"
        self._features: dict[str, keras.KerasTensor] = {}
        self._source = weights_lib.resolve(options.weights, family, variant)
        self._inputs = self.x = _image(shape, options.input_tensor)
        if options.include_preprocessing:
            self.x = self._normalize(self.x)

    def tap(self, x: keras.KerasTensor) -> None:
        """Makes `x`, the last map of its stride, available to `features_only`."""
        self._features[f"stride_{self.strides.total}"] = x

    def finish(self, x: keras.KerasTensor, head: Any = classify) -> keras.Model:
        """Adds what `options` ask for behind the last feature map and loads the weights.

        Args:
            x: Last feature map.
            head: Function `(x, options) -> logits`.
        """
        options = self.options
        if options.features_only:
            output = self._features
        elif options.include_top:
            output = head(x, options)
            if options.classifier_activation is not None:
                output = keras.layers.Activation(
                    options.classifier_activation, dtype="float32", name="predictions"
                )(output)
        elif options.pooling == "avg":
            output = keras.layers.GlobalAveragePooling2D(name="global_pool")(x)
        elif options.pooling == "max":
            output = keras.layers.GlobalMaxPooling2D(name="global_pool")(x)
        else:
            output = x
        inputs = self._inputs
        if options.input_tensor is not None:
            sources = keras.utils.get_source_inputs(options.input_tensor)
            inputs = sources[0] if len(sources) == 1 else sources
        model = keras.Model(inputs, output, name=options.name or self.family)
        if self._source is not None:
            weights_lib.load(model, self._source)
        return model

    def _normalize(self, x: keras.KerasTensor) -> keras.KerasTensor:
        source = self._source
        mean = self.options.mean or (source and source.mean) or IMAGENET_MEAN
        std = self.options.std or (source and source.std) or IMAGENET_STD
        if x.shape[-1] != 3:
            raise ValueError(
                "`include_preprocessing` needs three channels (RGB). "
                f"Received: `input_shape` with {x.shape[-1]}"
            )
        return keras.layers.Rescaling(
            scale=[1 / s for s in std],
            offset=[-m / s for m, s in zip(mean, std, strict=True)],
            dtype="float32",
            name="normalization",
        )(x)


def _image(
    shape: tuple[int | None, int | None, int], input_tensor: keras.KerasTensor | None
) -> keras.KerasTensor:
    if input_tensor is None:
        return keras.Input(shape, name="image")
    if not keras.utils.is_keras_tensor(input_tensor):
        raise ValueError(
            "`input_tensor` must be a Keras tensor (the output of `keras.Input` or of a layer). "
            f"Received: {type(input_tensor).__name__}"
        )
    check_input_shape(tuple(input_tensor.shape[1:]))
    return input_tensor
