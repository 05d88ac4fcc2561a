import numpy as np
import pytest
import tensorflow as tf

import keras_lightnets
from lightnets.config.keys import Config, ModelConfig
from lightnets.data.splits import balanced
from lightnets.optimization import finetune, optimizers
from lightnets.support.errors import UserError


@pytest.fixture(scope="module")
def net():
    return keras_lightnets.create_model(
        "shufflenet_v2_x0_5",
        input_shape=(32, 32, 3),
        classes=3,
        small_input=True,
        classifier_activation=None,
    )


ALL = ["stem", "stage2", "stage3", "stage4", "head", "logits"]


def learning(net, epoch, **options):
    """Stages of which all layers learn in `epoch`."""
    finetune.set_trainable(net, ModelConfig(**options), epoch)
    return [
        stage
        for stage, layers in finetune.stages(net).items()
        if all(layer.trainable for layer in layers)
    ]


def test_everything_learns_by_default(net):
    assert learning(net, 0) == ALL
    assert not finetune.set_trainable(net, ModelConfig(), 1)


def test_head_first_then_stages_from_the_last_one(net):
    options = {"head_warmup_epochs": 2, "unfreeze_epochs": 4}
    expected = [["logits"], ["logits"], *(ALL[start:] for start in (4, 3, 2, 1, 0, 0))]
    assert [learning(net, epoch, **options) for epoch in range(8)] == expected
    # A pure function of the epoch: any order of calls gives the same (resume starts anywhere).
    for epoch in (5, 0, 3):
        assert learning(net, epoch, **options) == expected[epoch]


def test_head_warm_up_alone_releases_all_at_once(net):
    options = ModelConfig(head_warmup_epochs=1)
    assert learning(net, 0, head_warmup_epochs=1) == ["logits"]
    assert not finetune.set_trainable(net, options, 0)
    assert finetune.set_trainable(net, options, 1)  # the signal to trace again
    assert learning(net, 1, head_warmup_epochs=1) == ALL


def test_frozen_backbone_stays_frozen(net):
    assert learning(net, 1000, freeze="backbone") == ["logits"]


def test_pattern_freezes_for_good_while_the_rest_is_released(net):
    options = {"freeze": "^(stem|stage2)_", "head_warmup_epochs": 1}
    assert learning(net, 0, **options) == ["logits"]
    assert learning(net, 5, **options) == ["stage3", "stage4", "head", "logits"]


@pytest.mark.parametrize(
    ("pattern", "message"),
    [("stage9", "'stage9' fits no layer.* stem, stage2,"), (".", "nothing is left to learn")],
)
def test_refuses_a_pattern_without_effect_or_without_a_rest(net, pattern, message):
    with pytest.raises(UserError, match=message):
        finetune.set_trainable(net, ModelConfig(freeze=pattern), 0)


@pytest.mark.parametrize(
    ("name", "stages"),
    [
        ("squeezenet", ["conv1", *(f"fire{n}" for n in range(2, 10)), "logits"]),
        ("mobilenet_v1", ["stem", *(f"block{n}" for n in range(1, 14)), "logits"]),
        ("mobilenet_v2", ["stem", *(f"stage{n}" for n in range(1, 8)), "head", "logits"]),
        ("shufflenet_v1", ["stem", "stage2", "stage3", "stage4", "logits"]),
    ],
)
def test_stages_of_the_networks(name, stages):
    model = keras_lightnets.create_model(name, input_shape=(32, 32, 3), classes=2)
    assert list(finetune.stages(model)) == stages


def test_frozen_layers_do_not_change_and_their_batch_norm_is_in_inference_mode(net):
    """Fails when batch norm of frozen layers updates, or when decay reaches frozen weights."""
    finetune.set_trainable(net, ModelConfig(), 0)
    optimizer = optimizers.build(Config(), 10, net)
    finetune.set_trainable(net, ModelConfig(freeze="^(stem|stage2)_"), 0)
    before = {v.path: v.numpy() for v in net.variables}
    images = tf.constant(np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3)), tf.float32)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(net(images, training=True) ** 2)
    variables = net.trainable_variables
    optimizer.apply(tape.gradient(loss, [v.value for v in variables]), variables)
    for layer in net.layers:
        if layer.weights:
            moved = any(not np.array_equal(v.numpy(), before[v.path]) for v in layer.weights)
            assert moved != layer.name.startswith(("stem", "stage2")), layer.name


def test_weights_of_a_run_are_its_best(tmp_path):
    with pytest.raises(UserError, match=r"without weights/best\.keras"):
        finetune.weights_file(str(tmp_path))
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "best.keras").touch()
    assert finetune.weights_file(str(tmp_path)) == str(tmp_path / "weights" / "best.keras")
    assert finetune.weights_file("imagenet") == "imagenet"
    assert finetune.weights_file(None) is None


def test_balanced_weights_give_classes_the_same_sum_and_samples_a_mean_of_one():
    counts = np.array([10, 0, 30, 60])
    weights = balanced(counts)
    np.testing.assert_allclose(weights * counts, [100 / 3, 0, 100 / 3, 100 / 3], rtol=1e-6)
    assert (weights * counts).sum() == pytest.approx(counts.sum())
