"""The same weights give the same logits as in other implementations.

Parameter counts and shapes do not see a swapped concatenation, an inverse shuffle, another
epsilon or another padding; these tests do.
"""

import numpy as np
import pytest

import keras_lightnets
from tests import golden_weights


@pytest.mark.parametrize("file", golden_weights.NETWORKS)
def test_logits_are_those_of_the_other_implementation(file):
    name, source = golden_weights.NETWORKS[file]
    weights, pairs = golden_weights.read(file)
    model = keras_lightnets.create_model(
        name, input_shape=(None, None, 3), classifier_activation=None
    )
    keras_lightnets.load_state_dict(model, weights, source)
    for images, expected in pairs:
        logits = np.asarray(model(images))
        assert np.abs(logits - expected).max() < 1e-5 * np.abs(expected).max()


def test_every_golden_file_is_compared():
    files = {path.stem for path in golden_weights.GOLDENS.glob("*.npz")}
    assert files == set(golden_weights.NETWORKS)
