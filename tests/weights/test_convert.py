"""`load_state_dict` is strict: every tensor once, every variable, equal shapes, all by name."""

import keras
import numpy as np
import pytest

import keras_lightnets
from keras_lightnets.weights import convert


@pytest.fixture(scope="module")
def model():
    return keras_lightnets.ShuffleNetV2((32, 32, 3), alpha=0.5, classes=5)


@pytest.fixture
def state(model):
    """Other weights for `model`, in torchvision's names and layouts."""
    rng = np.random.default_rng(0)
    slots, _ = convert.tensor_slots(model, "torchvision")
    state = {}
    for slot in slots:
        shape = tuple(slot.variable.shape)
        if slot.axes is not None:
            shape = tuple(shape[axis] for axis in np.argsort(slot.axes))
        state[slot.tensor] = rng.uniform(0.5, 1.0, shape).astype("float32")
    return state


def _snapshot(model):
    return [np.array(weight) for weight in model.weights]


def test_every_variable_is_set_and_read_back(model, state):
    assert convert.load_state_dict(model, state, "torchvision") is True
    slots, _ = convert.tensor_slots(model, "torchvision")
    assert {slot.variable.path for slot in slots} == {w.path for w in model.weights}
    for slot in slots:
        axes = slot.axes
        array = np.asarray(slot.variable)
        back = array if axes is None else array.transpose(np.argsort(axes))
        np.testing.assert_array_equal(back, state[slot.tensor])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda state: state.pop("stage3.2.branch2.3.weight"),
            r"missing: stage3.2.branch2.3.weight \(for stage3_unit3_depthwise_conv/kernel\)",
        ),
        (lambda state: state.update({"aux.weight": np.zeros(3)}), r"left over: aux.weight"),
        (
            lambda state: state.update({"conv1.1.bias": np.zeros(7)}),
            r"conv1.1.bias: \(7,\), but stem_bn/beta has \(24,\)",
        ),
        (
            lambda state: state.update({"fc.weight": np.zeros((5, 99))}),
            r"fc.weight: \(99, 5\), but logits/kernel has \(1024, 5\)",
        ),
        (lambda state: state.clear(), r"282 mistakes\).*and 272 more"),
    ],
    ids=["missing", "left over", "shape", "head of another width", "empty"],
)
def test_mistakes_are_listed_and_nothing_is_changed(model, state, change, message):
    before = _snapshot(model)
    change(state)
    with pytest.raises(ValueError, match=message):
        keras_lightnets.load_state_dict(model, state, "torchvision")
    for old, new in zip(before, _snapshot(model), strict=True):
        np.testing.assert_array_equal(old, new)


def test_counters_of_batches_are_ignored(model, state):
    state["conv1.1.num_batches_tracked"] = np.array(17)
    keras_lightnets.load_state_dict(model, state, "torchvision")


def test_other_classes_load_all_but_the_head(model, state):
    state["fc.weight"] = np.ones((9, 1024), "float32")
    state["fc.bias"] = np.ones(9, "float32")
    head = np.array(model.get_layer("logits").kernel)
    with pytest.warns(UserWarning, match="everything but the classifier was loaded"):
        complete = convert.load_state_dict(model, state, "torchvision")
    assert complete is False
    np.testing.assert_array_equal(model.get_layer("logits").kernel, head)
    np.testing.assert_array_equal(model.get_layer("head_bn").gamma, state["conv5.1.weight"])


def test_pytorch_tensors_are_read(model, state):
    class Tensor:
        """What `torch.Tensor` offers for the way to NumPy."""

        def __init__(self, array):
            self.array = array

        def detach(self):
            return self

        cpu = float = detach

        def numpy(self):
            return self.array

    keras_lightnets.load_state_dict(
        model, {name: Tensor(array) for name, array in state.items()}, "torchvision"
    )
    np.testing.assert_array_equal(model.get_layer("stem_bn").beta, state["conv1.1.bias"])


@pytest.mark.parametrize("source", ["timm", "keras", None])
def test_unknown_source_is_refused_with_the_choices(model, source):
    with pytest.raises(ValueError, match="one of 'torchvision', 'pytorchcv' for shufflenet_v2"):
        keras_lightnets.load_state_dict(model, {}, source)


def test_layers_that_the_source_has_not_are_named():
    model = keras_lightnets.ShuffleNetV2((32, 32, 3), alpha=0.5, classes=5, se=True)
    with pytest.raises(ValueError, match=r"torchvision has no weights for .*unit1_se_reduce"):
        keras_lightnets.load_state_dict(model, {}, "torchvision")


def test_foreign_model_is_refused():
    inputs = keras.Input((4,))
    stranger = keras.Model(inputs, keras.layers.Dense(2)(inputs))
    with pytest.raises(ValueError, match="is none of squeezenet, mobilenet_v1"):
        keras_lightnets.load_state_dict(stranger, {}, "timm")
