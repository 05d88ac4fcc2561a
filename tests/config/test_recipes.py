import dataclasses
import re

import pytest

import keras_lightnets
from lightnets.cli import main
from lightnets.config import keys as configs
from lightnets.config.recipes import RECIPES
from lightnets.config.validate import validate
from lightnets.optimization import optimizers
from lightnets.optimization.schedules import Schedule
from tests.checkout import ROOT


def resolve(name):
    return configs.from_dict(RECIPES[name].config, where=name)


@pytest.mark.parametrize("name", RECIPES)
def test_is_a_valid_configuration_of_a_registered_network(name):
    config = resolve(name)
    validate(config)
    assert config.model.name in keras_lightnets.list_models()
    assert RECIPES[name].source
    # YAML, as in a run's directory, gives the same configuration back.
    assert configs.from_dict(configs.to_dict(config), where=name) == config


@pytest.mark.parametrize("name", RECIPES)
def test_builds_its_network_and_optimizer(name):
    config = resolve(name)
    model = config.model
    options = {} if model.alpha is None else {"alpha": model.alpha}
    if model.dropout_rate is not None:
        options["dropout_rate"] = model.dropout_rate
    net = keras_lightnets.create_model(
        model.name,
        input_shape=(model.image_size, model.image_size, 3),
        classes=2,
        small_input=model.small_input,
        bn_momentum=model.bn_momentum,
        **options,
        **model.args,
    )
    steps_per_epoch = 1000
    optimizer = optimizers.build(config, steps_per_epoch, net)
    assert optimizer.built
    train = config.train
    schedule = Schedule(config.optimizer, steps_per_epoch, train.epochs, train.batch_size)
    rates = [float(schedule(step)) for step in (0, steps_per_epoch * train.epochs - 1)]
    assert max(rates) < 1.001 * schedule.peak
    assert 0 < rates[1] < 0.05 * schedule.peak  # it has decayed by the end


def rows(*path):
    """Returns the cells of the rows of a table whose first cell is a recipe."""
    text = ROOT.joinpath(*path).read_text()
    lines = re.findall(r"^\| (`[\w-]+` \|.*) \|$", text, flags=re.MULTILINE)
    return {cells[0].strip("`"): cells[1:] for cells in (re.split(r"\s*\|\s*", x) for x in lines)}


def test_the_log_gives_command_hardware_and_result_or_says_not_run():
    log = rows("training", "README.md")
    assert sorted(log) == sorted(RECIPES)
    for name, (command, hardware, result) in log.items():
        assert command.startswith(f"`lightnets train --recipe {name}"), name
        assert result == "not run" or (hardware and "%" in result), name
        assert (result == "not run") == (not RECIPES[name].result), name


def test_the_list_says_which_recipes_were_never_run(capsys):
    assert main(["list", "--recipes"]) == 0
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert lines[-1] == ["shufflenet_v2-torchvision", "ImageNet", "600", "1024", "not run"]
    assert {line[0]: line[-1] != "not run" for line in lines} == {
        name: bool(recipe.result) for name, recipe in RECIPES.items()
    }


def test_the_table_has_every_recipe_with_its_length_and_batch():
    table = rows("docs", "recipes.md")
    found = {name: table.get(name, [""] * 4) for name in RECIPES}
    for name, (_, method, epochs, batch) in found.items():
        config = resolve(name)
        assert (int(epochs), int(batch)) == (config.train.epochs, config.train.batch_size), name
        first = re.match(r"(\w+) ([\d.]+)", method)
        assert first[1].lower() == config.optimizer.name, name
        assert float(first[2]) == config.optimizer.learning_rate, name
        assert ("EMA" in method) == bool(config.train.ema), name


def test_a_recipe_cannot_be_changed_by_accident():
    with pytest.raises(dataclasses.FrozenInstanceError):
        RECIPES["digits"].note = "x"
