"""A folder's name is no pattern, whatever is in it."""

import pytest
import tensorflow as tf

from keras_lightnets.paths import literal_path

NAMES = ["exp[1]", "back\\slash", "a*?b\n "]


class Twice(tf.Module):
    def __init__(self):
        self.factor = tf.Variable(2.0)

    @tf.function(input_signature=[tf.TensorSpec((), tf.float32)])
    def __call__(self, number):
        return self.factor * number


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("temporary", ["usual", "tmp[dir]"])
def test_a_saved_model_is_loaded_and_no_link_stays(tmp_path, monkeypatch, name, temporary):
    (tmp_path / temporary).mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / temporary))
    model = tmp_path / name / "model"
    tf.saved_model.save(Twice(), str(model))
    with literal_path(model) as folder:
        loaded = tf.saved_model.load(str(folder))
    assert loaded(tf.constant(3.0)).numpy() == 6.0
    assert folder != model
    assert not folder.exists()
    assert list((tmp_path / temporary).glob("lightnets-*")) == []


def test_other_names_are_used_as_they_are(tmp_path):
    with literal_path(tmp_path / "a {b} 猫#%") as folder:
        assert folder == tmp_path / "a {b} 猫#%"
