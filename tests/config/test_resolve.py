import argparse

import pytest

from lightnets.config import keys as configs
from lightnets.config import resolve
from lightnets.config.recipes import RECIPES
from lightnets.support.errors import UsageError


def resolved(*flags):
    parser = argparse.ArgumentParser()
    resolve.add_arguments(parser)
    return resolve.resolve(parser.parse_args(["--dataset", "pictures", *flags]))


def test_a_short_run_warms_up_for_at_most_a_fifth_of_it():
    recipe = RECIPES["scratch-small"].config
    assert resolved().optimizer.warmup_epochs == recipe["optimizer"]["warmup_epochs"] == 5
    assert resolved("--epochs", "8").optimizer.warmup_epochs == 8 / 5


def test_a_warm_up_that_was_asked_for_stays():
    chosen = ("--epochs", "8", "--set", "optimizer.warmup_epochs=4")
    assert resolved(*chosen).optimizer.warmup_epochs == 4
    with pytest.raises(UsageError, match=r"must be less than train\.epochs"):
        resolved("--epochs", "4", "--set", "optimizer.warmup_epochs=4")


@pytest.mark.parametrize("recipe", ["digits", "scratch-small", "finetune"])
def test_recipes_know_the_rate_of_networks_without_batch_norm(recipe):
    def rate(*flags):
        return resolved("--recipe", recipe, *flags).optimizer.learning_rate

    theirs = RECIPES[recipe].config["optimizer"]["learning_rate"]
    for name in ("shufflenet_v1", "mobilenet_v2", "squeezenet_v1_1_bn"):
        assert rate("--model", name) == theirs
    for name in ("squeezenet", "squeezenet_v1_0", "squeezenet_v1_1_simple_bypass"):
        assert rate("--model", name) == 0.0005
        assert rate("--model", name, "--learning-rate", "0.002") == 0.002
        assert rate("--model", name, "--set", "model.args={batch_norm: true}") == theirs
        assert rate("--model", name, "--optimizer", "sgd") == theirs


def test_a_frozen_backbone_needs_no_other_flag():
    config = resolved("--weights", "imagenet", "--freeze", "backbone")
    assert RECIPES["finetune"].config["model"]["head_warmup_epochs"] == 1
    assert config.model.head_warmup_epochs == 0
    with pytest.raises(UsageError, match="head_warmup_epochs"):
        resolved("--freeze", "backbone", "--set", "model.head_warmup_epochs=2")


def test_no_data_set_is_chosen_for_the_user():
    parser = argparse.ArgumentParser()
    resolve.add_arguments(parser)
    assert resolve.resolve(parser.parse_args([])).data.dataset == ""
    assert resolve.resolve(parser.parse_args(["--recipe", "digits"])).data.dataset == "digits"


def test_a_data_sets_name_stays_text():
    for name in ("2024", "null", "a: b", "[x]"):
        parser = argparse.ArgumentParser()
        resolve.add_arguments(parser)
        assert resolve.resolve(parser.parse_args(["--dataset", name])).data.dataset == name


def test_nonsense_is_named_by_its_own_key():
    with pytest.raises(UsageError, match=r"train\.epochs must be"):
        resolved("--epochs", "-1")


def test_a_run_finds_its_data_from_any_working_directory(tmp_path, monkeypatch):
    (tmp_path / "pictures").mkdir()
    monkeypatch.chdir(tmp_path)
    assert resolved().data.dataset == str(tmp_path / "pictures")
    assert resolved("--dataset", "cifar10").data.dataset == "cifar10"


def resumed(tmp_path, *flags, **train):
    configs.save(configs.from_dict({"train": train}), tmp_path / "config.yaml")
    parser = argparse.ArgumentParser()
    resolve.add_arguments(parser)
    return resolve.resolve_resumed(parser.parse_args(flags), tmp_path)


def test_a_run_of_several_workers_goes_on_where_it_is_resumed(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    started = {"workers": "a:1,b:2", "worker_index": 1}
    config = resumed(tmp_path, **started)
    assert (config.train.workers, config.train.worker_index) == (None, 0)
    told = capsys.readouterr().out
    assert "on this machine alone" in told
    assert "--workers a:1,b:2 --worker-index I" in told
    config = resumed(tmp_path, "--workers", "c:1,d:2,e:3", "--worker-index", "2", **started)
    assert (config.train.workers, config.train.worker_index) == ("c:1,d:2,e:3", 2)
    assert not capsys.readouterr().out
    with pytest.raises(UsageError, match=r"worker_index \(=1\) needs train.workers"):
        resumed(tmp_path, "--worker-index", "1", **started)


KEYS = [
    f"{section}.{key}"
    for section, keys in configs.to_dict(configs.Config()).items()
    if isinstance(keys, dict)
    for key in keys
]
NONSENSE = ["", "-1", "0", "nan", "abc", "{a: 1}", "~", "true", "9" * 30, "[", "'"]
SLOW = [pytest.param(value, marks=pytest.mark.slow) for value in NONSENSE]


@pytest.mark.parametrize("value", ["[1, 2]", "1e400", *SLOW])
def test_no_value_of_any_key_is_a_traceback(value):
    for key in KEYS:
        try:
            config = resolved("--set", f"{key}={value}")
        except UsageError as error:
            assert "\n" not in str(error)  # noqa: PT017
        else:
            assert isinstance(config, configs.Config)
