"""Words in messages."""

from training.words import count, nearest


def test_one_and_many():
    assert count(1, "epoch") == "1 epoch"
    assert count(0, "step") == "0 steps"
    assert count(2, "class", "classes") == "2 classes"


def test_only_a_close_name_is_proposed():
    assert nearest("mobilnet_v2", ["mobilenet_v2", "squeezenet"]) == " Did you mean 'mobilenet_v2'?"
    assert nearest("resnet", ["mobilenet_v2", "squeezenet"]) == ""
