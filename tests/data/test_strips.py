"""Long pictures whose class stands at one end: a crop does not see it, with margins it is seen."""

import keras
import numpy as np
import pytest

import lightnets.data
from lightnets.config import keys as configs

HEIGHT, WIDTH, BATCH = 24, 128, 16
COLOURS = np.array([(200, 40, 40), (40, 200, 40), (40, 40, 200)])


def strips(count, seed):
    """Noise, with a square of the class's colour at the left end."""
    random = np.random.default_rng(seed)
    labels = np.arange(count) % len(COLOURS)
    images = random.integers(0, 256, (count, HEIGHT, WIDTH, 3))
    ends = images[:, :, :HEIGHT]
    images[:, :, :HEIGHT] = (ends + 2 * COLOURS[labels, None, None]) // 3
    return images.astype(np.uint8), labels


def accuracy(size, resize):
    """What a small network that keeps where something is learns of 96 strips."""
    keras.utils.set_random_seed(0)
    data = {"resize": resize, "flip": False}
    config = configs.from_dict({"model": {"image_size": size}, "data": data})
    splits = lightnets.data.from_arrays(config, strips(96, 1), strips(60, 2))
    x = image = keras.Input((*config.model.sides, 3))
    x = keras.layers.Rescaling(1 / 127.5, -1)(x)
    x = keras.layers.Conv2D(6, 4, strides=4, activation="relu")(x)
    x = keras.layers.Dense(len(COLOURS), activation="softmax")(keras.layers.Flatten()(x))
    model = keras.Model(image, x)
    model.compile(keras.optimizers.Adam(0.003), "categorical_crossentropy")
    steps = 48
    model.fit(splits.train(0, global_batch=BATCH).take(steps), shuffle=False, verbose=0)
    right = 0.0
    for images, labels, weights in splits.evaluation(BATCH):
        same = np.argmax(model(images), -1) == np.argmax(labels, -1)
        right += float(np.sum(same * weights.numpy()))
    return right / splits.eval_examples


@pytest.mark.parametrize(
    ("size", "resize", "low", "high"),
    [("32", "crop", 0, 0.5), ("32", "pad", 0.95, 1), ("32x128", "stretch", 0.95, 1)],
)
def test_what_stands_at_an_end_is_learned_unless_it_is_cropped(size, resize, low, high):
    assert low <= accuracy(size, resize) <= high
