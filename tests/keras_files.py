"""Networks of `keras.applications`, and their weights as Keras 2 published them."""

import h5py
import keras
import numpy as np
from keras.src.legacy.saving import legacy_h5_format

# Builder, ours, alpha, and what its files are called.
NETWORKS = {
    "MobileNetV1": (keras.applications.MobileNet, 0.25, "mobilenet_2_5_{}_tf{}.h5"),
    "MobileNetV2": (
        keras.applications.MobileNetV2,
        0.35,
        "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_0.35_{}{}.h5",
    ),
}


def application(builder, size, **arguments):
    """A network of Keras with random weights, moving statistics included."""
    build, alpha, _ = NETWORKS[builder]
    model = build((size, size, 3), alpha=alpha, weights=None, **arguments)
    rng = np.random.default_rng(size)
    for variable in model.weights:
        if len(variable.shape) == 1:
            variable.assign(rng.uniform(0.3, 1.0, variable.shape))
    return model


def publish(model, builder, size, folder, top=""):
    """Saves it as Keras 2 did, which is how the published files were made."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / NETWORKS[builder][2].format(size, top)
    with h5py.File(path, "w") as file:
        legacy_h5_format.save_weights_to_hdf5_group(file, model)
    return path
