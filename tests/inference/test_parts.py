"""Batches in parts: the same answers, whatever the batch size."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_lightnets
from keras_lightnets.inference import parts
from keras_lightnets.inference.function import frozen_function, inference_model
from tests.exports import SIZE, small_net

SPEC = tf.TensorSpec((None, *SIZE, 3), tf.uint8, name="images")


@pytest.fixture(scope="module")
def network():
    return frozen_function(inference_model(small_net()), SPEC)


# One part, parts of four, parts of three, and no part at all.
@pytest.mark.parametrize("batch", [1, 4, 8, 9, 7])
def test_the_parts_give_what_the_batch_gives(network, monkeypatch, batch):
    monkeypatch.setattr(parts, "_LARGEST_PART", 10**9)
    monkeypatch.setattr(parts, "images_per_part", lambda graph: 4)
    run = parts.in_parts(network, SPEC)
    images = np.random.default_rng(0).integers(0, 256, (batch, *SIZE, 3), "uint8")
    answer = run(images)
    assert answer.shape == (batch, 6)
    np.testing.assert_allclose(answer, network(images), atol=1e-6)


def test_parts_run_as_a_loop_of_two_chains(network, monkeypatch):
    monkeypatch.setattr(parts, "_LARGEST_PART", 10**9)
    graph = parts.in_parts(network, SPEC).get_concrete_function().graph
    (loop,) = (op for op in graph.get_operations() if op.type in ("While", "StatelessWhile"))
    assert loop.get_attr("parallel_iterations") == 2
    # Which LiteRT's converter does not take; a slow test has it and others read an export.
    functions = [graph.as_graph_def(), *graph.as_graph_def().library.function]
    assert "TensorList" not in str(functions)


@pytest.mark.parametrize(
    ("batch", "part", "size"),
    [(16, 2, 2), (3, 2, 1), (1, 2, 1), (16, 8, 8), (12, 8, 6), (11, 8, 11), (9, 8, 9), (3, 8, 3)],
)
def test_parts_of_a_batch_are_equal(batch, part, size):
    # OpenVINO aborts the process on parts of different sizes.
    assert parts.part_size(tf.constant(batch), part) == size


def test_size_of_a_part():
    def images(size, dtype="float32", channels=3):
        image = keras.Input((size, size, channels), dtype=dtype)
        model = keras.Model(image, keras.layers.Conv2D(64, 1, strides=2, dtype=dtype)(image))
        spec = tf.TensorSpec((None, size, size, channels), dtype)
        function = tf.function(lambda x: model(x), input_signature=[spec])
        return parts.images_per_part(function.get_concrete_function().graph)

    # The output has size**2 / 4 * 64 numbers; 10 MB hold so many, rounded down:
    assert images(224) == 2  # 3.1
    assert images(224, "bfloat16") == 4  # 6.2
    assert images(64) == 32  # 38
    assert images(1024) == 2  # none, but two chains want at least two
    assert images(224, channels=128) == 2  # the input counts too: 0.39


def test_small_networks_run_whole(network):
    # 40x48 pixels: a part would have hundreds of images.
    assert parts.in_parts(network, SPEC) is network


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_inference_function_answers_like_the_model(monkeypatch, precision):
    # Logits become probabilities; batches in parts.
    monkeypatch.setattr(parts, "images_per_part", lambda graph: 4)
    model = small_net(activation=None)
    classify = keras_lightnets.inference_function(model, precision)
    images = np.random.default_rng(0).uniform(0, 255, (8, *SIZE, 3)).astype("float32")
    expected = tf.nn.softmax(model(images))
    tolerance = 1e-5 if precision == "float32" else 0.1
    np.testing.assert_allclose(classify(images), expected, atol=tolerance)
    operations = classify.get_concrete_function().graph.get_operations()
    loops = [op for op in operations if "While" in op.type]
    assert len(loops) == 1
