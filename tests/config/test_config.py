import pytest

from lightnets import cli
from lightnets.config import keys as configs
from lightnets.config.keys import Config
from lightnets.config.validate import validate
from lightnets.support.errors import UsageError


def test_a_saved_configuration_reads_back_equal(tmp_path):
    config = configs.from_dict(
        {"model": {"args": {"groups": 2}, "alpha": 0.5}, "data": {"crop_area": [0.1, 0.9]}}
    )
    configs.save(config, tmp_path / "config.yaml")
    assert configs.from_dict(configs.load(tmp_path / "config.yaml")) == config


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"trian": {}}, r"Unknown key 'trian'.*Did you mean 'train'"),
        ({"train": {"epoch": 3}}, r"Unknown key 'train.epoch'.*Did you mean 'epochs'"),
        ({"train": {"epochs": "many"}}, r"train.epochs .* must be a whole number.*'many'"),
        ({"train": {"epochs": True}}, r"train.epochs .* must be a whole number.*True"),
        ({"train": {"epochs": 1.5}}, r"train.epochs .* must be a whole number.*1.5"),
        ({"train": 3}, r"train in configuration is a section"),
        ({"optimizer": {"name": "sdg"}}, r"one of sgd, rmsprop.*'sdg'.*Did you mean 'sgd'"),
        ({"data": {"crop_area": [1]}}, r"data.crop_area .* takes 2 values"),
        ({"data": {"flip": 1}}, r"data.flip .* must be true or false"),
        ({"data": {"crop": [1]}}, r"data.crop .* must be one of random_resized"),
        ({"train": {"jit": 0}}, r"train.jit .* must be one of off, on, auto"),
        ({"optimizer": {"learning_rate": "inf"}}, r"learning_rate .* must be a finite number"),
        ({"train": {"epochs": 10**12}}, r"train.epochs .* must be at most 2147483647"),
        ({"model": {"image_size": "160x"}}, r"height x width such as 160x640.*'160x'"),
        ({"model": {"image_size": [1, 2, 3]}}, r"height x width such as 160x640.*\[1, 2, 3\]"),
        ({"model": {"image_size": True}}, r"height x width such as 160x640.*True"),
        ({"model": {"image_size": None}}, r"height x width such as 160x640.*None"),
        ({"data": {"resize": "pda"}}, r"one of crop, stretch, pad.*'pda'. Did you mean 'pad'"),
    ],
)
def test_a_wrong_key_or_value_is_named_with_the_nearest_choice(values, message):
    with pytest.raises(UsageError, match=message):
        configs.from_dict(values)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("train.epochs=3", {"train": {"epochs": 3}}),
        ("model.args.groups=8", {"model": {"args": {"groups": 8}}}),
        ("train.jit=off", {"train": {"jit": False}}),
        ("data.crop_area=[0.2, 1]", {"data": {"crop_area": [0.2, 1]}}),
        ("model.image_size=0x32", {"model": {"image_size": "0x32"}}),
    ],
)
def test_an_assignment_becomes_nested_keys(text, expected):
    assert configs.parse_assignment(text) == expected


def test_yaml_spellings_of_words_and_rates_are_understood():
    config = configs.from_dict(
        {
            "train": {"jit": False},
            "data": {"auto_augment": None},
            "optimizer": {"weight_decay": "4e-5"},
        }
    )
    assert config.train.jit == "off"
    assert config.data.auto_augment == "none"
    assert config.optimizer.weight_decay == 4e-5


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model": {"image_size": 16}}, r"model.image_size must be between 32 and 4096.*16"),
        ({"model": {"image_size": "0x32"}}, r"image_size must be between 32 and 4096.*: 0x32"),
        ({"model": {"image_size": "64x5000"}}, r"image_size must be between 32 and 4096.*5000"),
        ({"train": {"epochs": 0}}, r"train.epochs must be at least 1.*0"),
        ({"data": {"crop_area": [0.9, 0.1]}}, r"data.crop_area must be two shares"),
        ({"data": {"resize_shorter": 64}}, r"data.resize_shorter \(=64 pixels\) must be at least"),
        (
            {"data": {"resize": "pad"}},
            r"data.crop \(=random_resized\) cuts .* \(=pad\) keeps whole",
        ),
        ({"data": {"resize": "stretch", "resize_shorter": 300}}, r"resize_shorter \(=300\) cuts"),
        ({"data": {"crop_aspect": [0, 1]}}, r"data.crop_aspect must be two ratios"),
        ({"optimizer": {"clipnorm": -1}}, r"optimizer.clipnorm must be at least"),
        ({"train": {"monitor": "val_acc"}}, r"train.monitor must be val_accuracy.*'val_acc'"),
        ({"train": {"batch_size": 30, "accumulate": 4}}, r"batch_size \(=30\) must be divisible"),
    ],
)
def test_values_out_of_range_are_refused(values, message):
    with pytest.raises(UsageError, match=message):
        validate(configs.from_dict(values))


@pytest.mark.parametrize(
    ("given", "kept", "sides"),
    [
        (64, 64, (64, 64)),
        ("064x64", 64, (64, 64)),
        ("64x96", "64x96", (64, 96)),
        ([64, 96], "64x96", (64, 96)),
    ],
)
def test_a_size_is_one_number_or_height_and_width(given, kept, sides, tmp_path):
    config = configs.from_dict({"model": {"image_size": given}})
    configs.save(config, tmp_path / "config.yaml")
    again = configs.from_dict(configs.load(tmp_path / "config.yaml"))
    assert (again.model.image_size, again.model.sides) == (kept, sides)
    assert config == again


def test_a_file_of_an_earlier_run_can_be_read(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("data: {cache: auto, flip: false}\ntrain: {reestimate_bn_batches: 0}\n")
    assert configs.from_dict(configs.load(path)).data.flip is False


def test_the_defaults_are_valid():
    validate(Config())


def test_all_that_is_known_of_a_key_stands_where_it_is_declared():
    known = {one.name: one for one in configs.declared()}
    assert configs.value_of(Config(), "train.epochs") == known["train.epochs"].default == 90
    assert all(one.help for one in known.values())
    flags = [one.flag for one in known.values() if one.flag]
    assert len(flags) == len(set(flags)) > 20
    # Where a run goes on may differ, what it computes may not.
    assert known["train.devices"].resumable
    assert not known["train.batch_size"].resumable
    # `--devices 0,1` and `--jit off` are text, whatever YAML makes of them.
    text = {name for name, one in known.items() if one.is_text}
    assert {"train.devices", "train.jit", "model.weights"} <= text
    assert not {"model.args", "train.seed", "data.crop_area", "data.flip"} & text


def test_help_shows_groups_choices_and_defaults(capsys):
    with pytest.raises(SystemExit):
        cli.main(["train", "--help"])
    text = capsys.readouterr().out
    headings = [text.index(f"\n{name}:\n") for name in ["data", "network", "training", "machine"]]
    assert headings == sorted(headings)
    words = " ".join(text.split())
    assert "--epochs N passes over the training images (train.epochs, default: 90)" in words
    assert "--jit off|on|auto" in words
