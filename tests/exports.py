"""A small network with all that an export treats in its own way, and what reads the export."""

import io

import keras
import numpy as np
import tensorflow as tf
from PIL import Image
from tensorflow.core.protobuf import config_pb2

import keras_lightnets
from keras_lightnets.preprocessing import EvalTransform

LABELS = ["zero", "one", "two", "drei", "vier", "fünf"]

SIZE = (40, 48)


def small_net(name="small", activation="softmax", classes=6):
    """Every kind of layer that an export treats in its own way, at a few thousand weights."""
    rng = np.random.default_rng(3)
    x = image = keras.Input((*SIZE, 3), name="image")
    x = keras.layers.Rescaling(1 / 127.5, offset=-1)(x)
    x = keras.layers.ZeroPadding2D(1)(x)
    x = keras.layers.Conv2D(12, 3, strides=2, use_bias=False)(x)
    x = keras.layers.ReLU()(keras_lightnets.FusedBatchNormalization()(x))
    x = keras.layers.MaxPooling2D(2)(x)
    y = keras_lightnets.GroupedConv2D(12, 1, groups=3, use_bias=False)(x)
    y = keras.layers.ReLU()(keras.layers.BatchNormalization()(y))
    y = keras_lightnets.ChannelShuffle(3)(y)
    y = keras.layers.ZeroPadding2D(1)(y)
    y = keras.layers.DepthwiseConv2D(3, strides=2, use_bias=False)(y)
    y = keras.layers.BatchNormalization()(y)
    shortcut = keras.layers.AveragePooling2D(2)(x)
    x = keras.layers.ReLU()(keras.layers.Add()([shortcut, y]))
    x = keras.layers.Dropout(0.5)(keras.layers.GlobalAveragePooling2D(name="global_pool")(x))
    x = keras.layers.Dense(classes, name="logits", dtype="float32")(x)
    if activation:
        x = keras.layers.Activation(activation, name="predictions", dtype="float32")(x)
    model = keras.Model(image, x, name=name)
    for variable in model.variables:
        if variable.name == "moving_variance":
            variable.assign(rng.uniform(0.5, 1.5, variable.shape))
        elif "int" not in variable.dtype:
            variable.assign(rng.normal(0, 0.5, variable.shape))
    return model


def with_statistics(model, rng, spread):
    """Gives a fresh model biases and batch norms like those of a trained one, and returns it."""
    for variable in model.variables:
        if variable.name in ("beta", "bias", "moving_mean"):
            variable.assign(rng.normal(0, spread, variable.shape))
        elif variable.name in ("gamma", "moving_variance"):
            variable.assign(rng.uniform(0.5, 1.5, variable.shape))
    return model


class Served:
    """A SavedModel in a Session, as in TensorFlow Serving."""

    def __init__(self, path):
        self.graph = tf.Graph()
        with self.graph.as_default():
            self.session = tf.compat.v1.Session()
            load = tf.compat.v1.saved_model.loader.load
            self.meta_graph = load(self.session, ["serve"], str(path))
        self.signatures = self.meta_graph.signature_def

    def __call__(self, signature, values):
        definition = self.signatures[signature]
        (tensor,) = definition.inputs.values()
        fetches = {key: info.name for key, info in definition.outputs.items()}
        return self.session.run(fetches, {tensor.name: values})

    def unchecked(self, signature, values):
        """As from C++: `session.run` of Python compares shapes with the placeholder's before."""
        definition = self.signatures[signature]
        feed = [info.name for info in definition.inputs.values()]
        fetch = [info.name for info in definition.outputs.values()]
        options = config_pb2.CallableOptions(feed=feed, fetch=fetch)
        return self.session._make_callable_from_options(options)(values)


def photos():
    """Files of every format and of different sizes."""
    rng = np.random.default_rng(0)

    def photo(height, width):
        coarse = tf.image.resize(rng.integers(0, 256, (5, 5, 3)), (height, width))
        return tf.saturate_cast(coarse, tf.uint8)

    files = [
        tf.io.encode_jpeg(photo(60, 80)).numpy(),
        tf.io.encode_png(photo(33, 200)).numpy(),
        tf.io.encode_jpeg(tf.image.rgb_to_grayscale(photo(120, 50)), format="grayscale").numpy(),
    ]

    for kind in ("BMP", "GIF"):
        buffer = io.BytesIO()
        Image.fromarray(photo(64, 70).numpy()).save(buffer, kind)
        files.append(buffer.getvalue())
    return files


TRANSFORM = EvalTransform(SIZE, resize_shorter=56)
