import json
import types

import pytest

from keras_lightnets.layers import placement
from lightnets.config.keys import TrainConfig
from lightnets.distribution import strategy, workers
from lightnets.support.errors import UsageError, UserError
from tests import gpus, processes


@pytest.mark.parametrize("devices", ["gpu", "0,", "cpu:0", "cpu:x", "1;2", ""])
def test_a_malformed_list_of_devices_is_refused(devices):
    with pytest.raises(UsageError, match=r"train\.devices"):
        strategy.create(devices)


def test_a_gpu_that_is_not_there_is_named():
    with pytest.raises(UserError, match="asks for GPU 99"):
        strategy.create("99")


def test_on_a_machine_with_gpus_cpus_train_as_without():
    assert processes.call(gpus.of_three, "cpu:1") == {
        "replicas": ["CPU:0"],
        "on_gpu": [False, False],
        "precision": "float32",
        "jit": False,
        "gpus": 0,  # that TensorFlow starts, with their memory
        "numbers": "",
        "grows": False,
    }


def test_where_tensorflow_has_started_with_the_gpus_cpus_train_as_without():
    chosen = processes.call(gpus.of_three, "cpu:1", started=True)
    assert chosen["gpus"] == 3  # too late to hide them
    assert (chosen["on_gpu"], chosen["precision"], chosen["jit"]) == ([False] * 2, "float32", False)


def test_a_gpu_that_tensorflow_was_started_without_is_named():
    with pytest.raises(UserError, match="GPU:2 was hidden"):
        processes.call(gpus.of_three, "2", started=True, hidden=True)


@pytest.mark.parametrize("memory", ["all", "grow"])
def test_tensorflow_takes_the_chosen_gpus_only(memory):
    assert processes.call(gpus.of_three, "2", memory) == {
        "replicas": ["GPU:0"],  # the only one it sees
        "on_gpu": [True, True],
        "precision": "mixed_bfloat16",
        "jit": True,
        "gpus": 1,
        "numbers": "2",
        "grows": memory == "grow",
    }


@pytest.mark.parametrize(
    ("devices", "options", "compiled"),
    [
        ("0,1", {}, True),
        ("0,1", {"sync_bn": True}, False),
        ("0", {"sync_bn": True}, True),
        ("0", {"deterministic": True}, False),
    ],
)
def test_xla_compiles_on_gpus_where_it_can(devices, options, compiled):
    assert processes.call(gpus.of_three, devices, **options)["jit"] == compiled


@pytest.mark.parametrize(
    ("deterministic", "sync_bn", "message"),
    [(True, False, "deterministic=true: .* max pooling"), (False, True, "sync_bn=true on several")],
)
def test_xla_is_refused_where_it_cannot(monkeypatch, deterministic, sync_bn, message):
    monkeypatch.setattr(placement, "deterministic", lambda: deterministic)
    several = types.SimpleNamespace(num_replicas_in_sync=2)
    with pytest.raises(UsageError, match=message + ".*Use train.jit=off"):
        strategy.jit("on", several, sync_bn)


def test_a_batch_that_cannot_be_shared_out_is_refused_with_the_nearest():
    strategy.check_batch(TrainConfig(batch_size=24, accumulate=3), 4)
    with pytest.raises(UsageError, match="try 24 or 36"):
        strategy.check_batch(TrainConfig(batch_size=27, accumulate=3), 4)
    with pytest.raises(UsageError, match=r"try 12\."):
        strategy.check_batch(TrainConfig(batch_size=3, accumulate=3), 4)


def test_the_evaluation_batch_is_a_multiple_of_the_replicas():
    assert strategy.eval_batch(TrainConfig(batch_size=10), 4) == 12
    assert strategy.eval_batch(TrainConfig(batch_size=10, eval_batch_size=8), 4) == 8


def test_workers_are_read_from_the_flags_or_from_tf_config(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    assert workers.cluster(TrainConfig()) is None
    members = workers.cluster(TrainConfig(workers="a:1,b:2", worker_index=1))
    assert members == workers.Cluster(("a:1", "b:2"), 1)
    assert not members.is_chief
    hosts = {"chief": ["a:1"], "worker": ["b:2", "c:3"]}
    task = {"cluster": hosts, "task": {"type": "worker", "index": 1}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(task))
    assert workers.cluster(TrainConfig()) == workers.Cluster(("a:1", "b:2", "c:3"), 2)


@pytest.mark.parametrize(
    ("listed", "index", "message"),
    [
        ("a:1,b", 0, "host:port.*'b'"),
        ("a:1,a:1", 0, "twice"),
        ("a:1,b:2", 2, "below the 2 workers"),
    ],
)
def test_malformed_workers_are_refused(listed, index, message):
    with pytest.raises(UsageError, match=message):
        workers.cluster(TrainConfig(workers=listed, worker_index=index))


@pytest.mark.parametrize("text", ["{", "[]", '{"task": {"type": "ps"}}'])
def test_a_malformed_tf_config_is_refused(monkeypatch, text):
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(UsageError, match="TF_CONFIG"):
        workers.cluster(TrainConfig())
