"""What the five builders have in common around their own layers: input, taps, classifier."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import keras

from keras_lightnets.catalogue.family import Family
from keras_lightnets.layers.notes import Notes
from keras_lightnets.networks.blocks import Norm, Strides
from keras_lightnets.networks.classifier import classify
from keras_lightnets.networks.options import PADDINGS, Options, check_choice, check_input_shape
from keras_lightnets.preprocessing import IMAGENET_MEAN, IMAGENET_STD, EvalTransform
from keras_lightnets.weights import load as weights_lib


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
        family: Family,
        variant: dict[str, Any],
        input_shape: Sequence[int | None],
        options: Options,
        padding: str | None = None,
    ) -> None:
        """Checks the input and the weights, then makes the input.

        Args:
            family: Its catalogue.
            variant: The builder's own arguments; decides which published weights fit.
            input_shape: `(height, width, channels)`; not read if there is an `input_tensor`.
            options: The shared arguments.
            padding: Of windows that stride; None: that of the weights.
        """
        if padding is not None:
            check_choice("padding", padding, PADDINGS)
        self._inputs = _image(input_shape, options.input_tensor)
        shape = self._inputs.shape[1:]
        self.family = family
        self.options = options
        self.strides = Strides(options.output_stride)
        self._features: dict[str, keras.KerasTensor] = {}
        size = shape[0] if shape[0] == shape[1] else None
        self._source = weights_lib.resolve(options.weights, family, variant, size)
        notes = {**self._notes(shape), "family": family.name, "variant": variant}
        self.padding = notes["padding"] = padding or notes.get("padding") or "symmetric"
        notes["bn_epsilon"] = options.bn_epsilon or notes.get("bn_epsilon") or 1e-5
        self.norm = Norm(options.bn_momentum, notes["bn_epsilon"])
        self.x = Notes(notes, name="notes")(self._inputs)
        if options.include_preprocessing:
            self.x = self._normalize(self.x, notes["mean"], notes["std"])

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
        model = keras.Model(inputs, output, name=options.name or self.family.name)
        if self._source is not None:
            weights_lib.load(model, self._source)
        return model

    def _notes(self, shape: tuple[int | None, int | None, int]) -> dict[str, Any]:
        """What the model is to know about itself: what its weights say, and the arguments."""
        options, source = self.options, self._source
        notes = dict(source.notes) if source else {}
        notes.pop("task", None)  # the classifier is another one
        if options.class_names:
            notes["class_names"] = list(options.class_names)
        elif options.classes != len(notes.get("class_names") or ()):
            notes.pop("class_names", None)
        height, width, _ = shape
        if height is not None and width is not None and notes.get("transform"):
            transform = EvalTransform.from_dict(notes["transform"]).scaled((height, width))
            notes["transform"] = transform.to_dict()
        if options.include_preprocessing:
            if source and not notes.get("mean") and not (options.mean and options.std):
                warnings.warn(
                    f"{source.path} does not say how images were normalized for it: ImageNet's "
                    "mean and standard deviation are assumed. Pass `mean` and `std` if it was "
                    "trained with others.",
                    stacklevel=5,
                )
            notes["mean"] = list(options.mean or notes.get("mean") or IMAGENET_MEAN)
            notes["std"] = list(options.std or notes.get("std") or IMAGENET_STD)
        return notes

    def _normalize(
        self, x: keras.KerasTensor, mean: Sequence[float], std: Sequence[float]
    ) -> keras.KerasTensor:
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
    input_shape: Sequence[int | None], input_tensor: keras.KerasTensor | None
) -> keras.KerasTensor:
    if input_tensor is None:
        return keras.Input(check_input_shape(input_shape), name="image")
    if not keras.utils.is_keras_tensor(input_tensor):
        raise ValueError(
            "`input_tensor` must be a Keras tensor (the output of `keras.Input` or of a layer). "
            f"Received: {type(input_tensor).__name__}"
        )
    check_input_shape(input_tensor.shape[1:])
    return input_tensor
