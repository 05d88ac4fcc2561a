"""Which way to compute ShuffleNet v1's grouped 1x1 convolutions trains fastest?

    python benchmarks/grouped_forms.py [--size 64 --batch 32]

All sides have fused batch norms; they differ only in the convolutions: the layer as it is (one
grouped convolution with gradients of matrix products), a split into matrix products, a split into
convolutions, and an einsum over groups. Keras' own grouped convolution, which XLA compiles, is
timed by `train_step.py`.
"""

from __future__ import annotations

import argparse
import pathlib

import common


def forms():
    """Name -> subclass of the layer."""
    import keras
    import tensorflow as tf

    from keras_lightnets.layers import GroupedConv2D

    class SplitProducts(GroupedConv2D):
        def call(self, inputs, training=None):
            return self._split(*self._tensors(inputs, self.kernel))

    class SplitConvolutions(GroupedConv2D):
        def call(self, inputs, training=None):
            kernels = tf.split(keras.ops.convert_to_tensor(self.kernel), self.groups, axis=-1)
            parts = tf.split(inputs, self.groups, axis=-1)
            outputs = [self._convolve(x, w) for x, w in zip(parts, kernels, strict=True)]
            return tf.concat(outputs, axis=-1)

    class Einsum(GroupedConv2D):
        def call(self, inputs, training=None):
            size, groups = inputs.shape[1:3], self.groups
            x = tf.reshape(inputs, (-1, *size, groups, inputs.shape[-1] // groups))
            kernel = keras.ops.convert_to_tensor(self.kernel)
            kernel = tf.reshape(kernel, (x.shape[-1], groups, self.filters // groups))
            return tf.reshape(tf.einsum("bhwgi,igo->bhwgo", x, kernel), (-1, *size, self.filters))

    return {
        "layer": GroupedConv2D,
        "split into matrix products": SplitProducts,
        "split into convolutions": SplitConvolutions,
        "einsum": Einsum,
    }


def measure(size: int, batch: int, seconds: float) -> list[common.Row]:
    """Times a training step of each form."""
    import keras
    import models

    import keras_lightnets
    from keras_lightnets.layers import GroupedConv2D

    original = keras_lightnets.create_model("shufflenet_v1", input_shape=(size, size, 3))
    sides = {}
    for name, form in forms().items():

        def clone(layer, form=form):
            grouped = isinstance(layer, GroupedConv2D) and layer.groups > 1
            return (form if grouped else type(layer)).from_config(layer.get_config())

        model = keras.models.clone_model(original, clone_function=clone)
        sides[name] = models.fit_steps(model, size=size, batch=batch)
    times = common.interleave(sides, seconds=seconds, warm_up=1)
    case = f"grouped 1x1 forms, train step shufflenet_v1_g3-{size}-b{batch}"
    return [
        common.compare(
            times,
            "layer",
            peer,
            case=case,
            target=2.0 if peer == "split into convolutions" else None,
        )
        for peer in list(sides)[1:]
    ]


def main(arguments: list[str] | None = None) -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=40.0)
    parser.add_argument("--out", type=pathlib.Path, default=common.RESULTS)
    args = parser.parse_args(arguments)
    common.save("grouped_forms", measure(args.size, args.batch, args.seconds), args.out)


if __name__ == "__main__":
    main()
