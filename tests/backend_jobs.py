"""What test_other_backends.py does on each backend; as a module, on the other one."""

import pathlib
import sys

import keras
import numpy as np

import keras_lightnets
from keras_lightnets import layers

GOLDENS = ("pytorchcv__mobilenet_wd4", "torchvision__shufflenet_v2_x0_5")
SIDE, CLASSES = 8, 4


def examples():
    images = np.random.default_rng(5).normal(size=(8, SIDE, SIDE, 3)).astype("float32")
    return images, np.arange(8) % CLASSES


def network() -> keras.Model:
    """Every layer of the package that trains, small."""
    keras.utils.set_random_seed(3)
    image = x = keras.Input((SIDE, SIDE, 3))
    x = layers.Notes({"made": "here"})(x)
    x = layers.GroupedConv2D(8, 1, use_bias=False, pad_filters=True)(x)
    x = layers.Activation("relu6")(layers.FusedBatchNormalization(momentum=0.5)(x))
    x = layers.DepthwiseConv2D(3, 2, padding=1, use_bias=False)(x)
    x = layers.ConcatShuffleSplit()(layers.ChannelSplit()(x))
    x = layers.GroupedConv2D(16, 3, padding="same", groups=4)(keras.layers.Concatenate()(x))
    x = layers.Activation("relu")(layers.FusedBatchNormalization(momentum=0.5)(x))
    x = keras.layers.GlobalAveragePooling2D()(layers.ChannelShuffle(4)(x))
    return keras.Model(image, keras.layers.Dense(CLASSES, activation="softmax")(x))


def numbers(model: keras.Model) -> dict[str, np.ndarray]:
    """Probabilities, and what one step of plain gradient descent in `fit` makes of the weights."""
    images, labels = examples()
    before = model.predict(images, verbose=0)
    # At this rate the step is the gradient, and the momentum of the batch norms.
    model.compile(keras.optimizers.SGD(1.0), "sparse_categorical_crossentropy")
    loss = model.fit(images, labels, batch_size=8, epochs=1, verbose=0).history["loss"]
    steps = {variable.path: np.asarray(variable) for variable in model.variables}
    return {"probabilities": before, "loss": np.asarray(loss), **steps}


def compare_goldens() -> None:
    """The networks' logits on this backend are those of other implementations."""
    from tests import golden_weights

    for file in GOLDENS:
        name, source = golden_weights.NETWORKS[file]
        weights, ((images, expected), *_) = golden_weights.read(file)
        model = keras_lightnets.create_model(
            name, input_shape=images.shape[1:], classifier_activation=None
        )
        keras_lightnets.load_state_dict(model, weights, source)
        logits = model.predict(images, verbose=0)
        assert np.abs(logits - expected).max() < 1e-4 * np.abs(expected).max(), file


def refused() -> list[str]:
    """What is said of everything that needs TensorFlow."""
    from lightnets.fit import FitModel

    model, images = network(), examples()[0]
    calls = (
        lambda: layers.recompute_activations().__enter__(),
        lambda: keras_lightnets.inference_function(model),
        lambda: keras_lightnets.quantize_aware(model, images),
        lambda: keras_lightnets.export_saved_model(model, "served", list("abcd")),
        lambda: FitModel(model),
        lambda: layers.FakeQuantize(),
    )
    said = []
    for call in calls:
        try:
            call()
        except ValueError as error:
            said.append(str(error))
    return said


def main(folder: pathlib.Path) -> None:
    compare_goldens()
    assert (
        "tensorflow" not in sys.modules
    )  # which Keras itself imports to load or save `.keras` files
    model = keras.models.load_model(folder / "tensorflow.keras")
    model.load_weights(folder / "tensorflow.weights.h5")
    np.savez(folder / "other.npz", allow_pickle=False, **numbers(model))
    model.save_weights(folder / "other.weights.h5")
    assert keras_lightnets.plain_keras(keras_lightnets.fold_batch_norm(model)).count_params()
    print(*refused(), sep="\n")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
