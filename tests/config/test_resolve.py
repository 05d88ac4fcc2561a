import argparse
import pathlib

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


@pytest.mark.parametrize("mode", ["pad", "stretch"])
def test_of_whole_pictures_no_recipe_cuts_anything_off(mode):
    assert "resize_shorter" in RECIPES["digits"].config["data"]
    data = resolved("--recipe", "digits", "--resize", mode).data
    assert (data.resize, data.crop, data.resize_shorter) == (mode, "shift", None)
    assert resolved("--resize", mode).data.crop == "center"
    with pytest.raises(UsageError, match=r"data.crop \(=random_resized\) cuts"):
        resolved("--resize", mode, "--set", "data.crop=random_resized")
    with pytest.raises(UsageError, match=r"data.resize_shorter \(=300\) cuts"):
        resolved("--resize", mode, "--set", "data.resize_shorter=300")


def test_height_and_width_are_read_as_such():
    """Caught: YAML takes 0x64 for 100."""
    assert resolved("--image-size", "160x640").model.sides == (160, 640)
    for wrong in ("0x64", "160x", "16x64", "160x640x3"):
        with pytest.raises(UsageError, match=rf"image_size.*{wrong}"):
            resolved("--image-size", wrong)


def test_a_frozen_backbone_needs_no_other_flag():
    config = resolved("--weights", "imagenet", "--freeze", "backbone")
    assert RECIPES["finetune"].config["model"]["head_warmup_epochs"] == 1
    assert config.model.head_warmup_epochs == 0
    with pytest.raises(UsageError, match="head_warmup_epochs"):
        resolved("--freeze", "backbone", "--set", "model.head_warmup_epochs=2")


def finished(folder, **model):
    """A run of 40 epochs, as far as its configuration."""
    folder.mkdir()
    values = {"name": "mobilenet_v2", "alpha": 0.35, "image_size": 64, "freeze": "^stem", **model}
    train = {"epochs": 40, "precision": "mixed_bfloat16", "label_smoothing": 0.1}
    optimizer = {"learning_rate": 0.02, "warmup_epochs": 5.0}
    values = {"recipe": "digits", "model": values, "train": train, "optimizer": optimizer}
    configs.save(configs.from_dict(values), folder / "config.yaml")
    return str(folder)


def test_training_for_int8_goes_on_from_a_run(tmp_path):
    # Mutation: `values` of the run not merged.
    run = finished(tmp_path / "run")
    config = resolved("--quantize", "int8", "--weights", run)
    model = config.model
    assert (model.name, model.alpha, model.image_size) == ("mobilenet_v2", 0.35, 64)
    assert (model.weights, model.quantize, model.freeze) == (run, "int8", None)
    assert (config.recipe, config.train.label_smoothing) == ("digits", 0.1)
    assert (config.train.epochs, config.train.precision) == (4, "auto")
    assert config.optimizer.learning_rate == pytest.approx(0.0002)
    assert config.optimizer.warmup_epochs == 0
    chosen = resolved("--quantize", "int8", "--weights", run, "--epochs", "7")
    assert chosen.train.epochs == 7


def test_training_for_int8_needs_a_run_in_float(tmp_path):
    run = finished(tmp_path / "run")
    done = finished(tmp_path / "done", quantize="int8", weights=run)
    quantize = ("--quantize", "int8", "--weights")
    with pytest.raises(UsageError, match=r"--weights RUN\. Received: None"):
        resolved(*quantize[:2])
    with pytest.raises(UsageError, match="Received: imagenet"):
        resolved(*quantize, "imagenet")
    with pytest.raises(UsageError, match="is quantized already"):
        resolved(*quantize, done)
    with pytest.raises(UsageError, match="--quantize computes in float32"):
        resolved(*quantize, run, "--precision", "mixed_float16")


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


def test_a_teacher_may_move_but_not_come_or_go(tmp_path):
    def started(teacher):
        more = teacher and "/more"
        values = {"distillation": {"teacher": teacher}, "data": {"unlabelled": more}}
        configs.save(configs.from_dict(values), tmp_path / "config.yaml")
        parser = argparse.ArgumentParser()
        resolve.add_arguments(parser)
        return lambda *flags: resolve.resolve_resumed(parser.parse_args(flags), tmp_path)

    assert started("/old")("--teacher", "/new").distillation.teacher == "/new"
    assert started("/old")("--unlabelled", "/new").data.unlabelled == "/new"
    with pytest.raises(UsageError, match=r"unlabelled \(=None\) differs from the run"):
        started("/old")("--unlabelled", "none")
    with pytest.raises(UsageError, match=r"teacher \(=None\) differs from the run"):
        started("/old")("--teacher", "none")
    with pytest.raises(UsageError, match=r"teacher \(=/new\) differs from the run"):
        started(None)("--teacher", "/new")
    with pytest.raises(UsageError, match=r"distillation\.temperature and .* need a teacher"):
        resolved("--set", "distillation.temperature=2")


def test_an_extended_run_keeps_what_each_part_began_with(tmp_path):
    # Mutation: the rate of the new schedule taken for that of the whole run.
    run = pathlib.Path(finished(tmp_path / "run"))
    parser = argparse.ArgumentParser()
    resolve.add_arguments(parser)
    flags = parser.parse_args(["--learning-rate", "0.005"])
    once = resolve.resolve_resumed(flags, run, done=40, extend=10)
    assert (once.train.epochs, once.optimizer.extensions) == (50, {"40": 0.005})
    assert (once.optimizer.learning_rate, once.optimizer.begun) == (0.02, 40)
    configs.save(once, run / "config.yaml")
    twice = resolve.resolve_resumed(parser.parse_args([]), run, done=50, extend=5)
    assert (twice.train.epochs, twice.optimizer.extensions) == (55, {"40": 0.005, "50": 0.02})
    with pytest.raises(UsageError, match=r"learning_rate \(=0\.005\) differs from the run"):
        resolve.resolve_resumed(flags, run)
    with pytest.raises(UsageError, match=r"has 50\. Of a finished run --extend N asks for N more"):
        resolve.resolve_resumed(parser.parse_args(["--epochs", "60"]), run)
    for wrong in ("{50: 0.1}", "{0: 0.1}", "{x: 0.1}", "{40: fast}", "{40: -1}"):
        with pytest.raises(UsageError, match=r"extensions must be epochs, below train\.epochs"):
            resolved("--epochs", "50", "--set", f"optimizer.extensions={wrong}")
    # What is trained on for int8 has one schedule of its own.
    assert not resolved("--quantize", "int8", "--weights", str(run)).optimizer.extensions
