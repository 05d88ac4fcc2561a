import dataclasses
import pathlib
import re

import pytest

import keras_lightnets
from training import config as configs
from training import optimizers, schedules
from training.recipes import RECIPES
from training.validate import validate


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
    schedule = schedules.build(config.optimizer, steps_per_epoch, train.epochs, train.batch_size)
    rates = [float(schedule(step)) for step in (0, steps_per_epoch * train.epochs - 1)]
    assert max(rates) < 1.001 * schedule.peak
    assert 0 < rates[1] < 0.05 * schedule.peak  # it has decayed by the end


def test_the_log_has_a_row_for_each_recipe():
    log = (pathlib.Path(__file__).parents[1] / "training" / "README.md").read_text()
    rows = re.findall(r"^\| `([\w-]+)` \|", log, flags=re.MULTILINE)
    assert sorted(set(rows)) == sorted(RECIPES)


def test_a_recipe_cannot_be_changed_by_accident():
    with pytest.raises(dataclasses.FrozenInstanceError):
        RECIPES["digits"].note = "x"
