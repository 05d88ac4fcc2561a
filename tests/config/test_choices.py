import argparse
import json

import numpy as np
import pytest
from PIL import Image

from lightnets import cli
from lightnets.commands import train
from lightnets.config import resolve
from lightnets.config.choices import choose, nested
from lightnets.config.keys import from_dict
from lightnets.data import facts
from lightnets.data.facts import Facts
from lightnets.data.load import load
from lightnets.run import directory

PHOTOGRAPHS = Facts(images=3000, classes=3, side=480)


def resolved(found=PHOTOGRAPHS, *flags):
    parser = argparse.ArgumentParser()
    resolve.add_arguments(parser)
    args = parser.parse_args(["--dataset", "pictures", *flags])
    choices = choose(resolve.resolve(args), resolve.named(args), found)
    return resolve.resolve(args, nested(choices)), [one.flag for one in choices]


def test_photographs_start_from_published_weights_at_their_size():
    config, flags = resolved()
    assert (config.recipe, config.model.name, config.model.weights) == (
        *("finetune", "mobilenet_v2", "imagenet"),
    )
    assert (config.model.image_size, config.model.freeze, config.train.batch_size) == (
        224,
        None,
        64,
    )
    assert flags[:2] == ["--model mobilenet_v2", "--weights imagenet"]
    assert resolved(PHOTOGRAPHS._replace(side=150))[0].model.image_size == 128
    assert resolved(PHOTOGRAPHS._replace(side=None))[0].model.image_size == 224


def test_small_pictures_start_from_random_weights_and_a_stem_for_them():
    config, flags = resolved(PHOTOGRAPHS._replace(side=28))
    assert (config.recipe, config.model.weights) == ("scratch-small", None)
    assert (config.model.image_size, config.model.small_input) == (32, True)
    assert "--weights none" in flags
    assert resolved(PHOTOGRAPHS._replace(side=95))[0].model.image_size == 64
    assert resolved(PHOTOGRAPHS._replace(side=96))[0].model.weights == "imagenet"


def test_a_network_of_somebody_else_is_as_it_is():
    config, flags = resolved(PHOTOGRAPHS._replace(side=28), "--model", "my_nets:build")
    assert (config.recipe, config.model.weights) == ("scratch-small", None)
    assert (config.model.image_size, config.model.small_input) == (32, False)
    assert not any(flag.startswith(("--weights", "--small-input", "--model")) for flag in flags)
    config, _ = resolved(Facts(images=30, classes=3, side=480), "--model", "trained.keras")
    assert (config.recipe, config.model.freeze) == ("finetune", "backbone")
    assert (config.model.name, config.model.weights) == ("trained.keras", None)


def test_of_long_pictures_it_is_said_what_a_crop_leaves():
    strips = Facts(images=3000, classes=3, side=120, longer=640, cut_off=0.86)
    config, flags = resolved(strips)
    assert (config.model.image_size, "--resize crop" in flags) == (96, True)
    assert "--resize crop" not in resolved(strips._replace(cut_off=0.5))[1]
    assert "--resize crop" not in resolved(strips, "--image-size", "96x512")[1]
    whole, flags = resolved(strips, "--resize", "pad")
    assert (whole.model.image_size, whole.data.crop, flags[2]) == (
        *(224, "center"),
        "--image-size 224",
    )


def test_few_pictures_get_small_batches_and_teach_the_classifier_only():
    config, flags = resolved(Facts(images=153, classes=9, side=480))
    assert (config.train.batch_size, config.model.freeze) == (16, "backbone")
    assert "--batch-size 16" in flags
    assert resolved(Facts(30, 3, 480))[0].train.batch_size == 8
    assert resolved(Facts(30, 3, 480), "--freeze", "none")[0].model.freeze is None


@pytest.mark.parametrize(
    ("flags", "key", "value"),
    [
        (["--weights", "none"], "weights", None),
        (["--weights", "none"], "image_size", 96),
        (["--image-size", "64"], "image_size", 64),
        (["--image-size", "64"], "weights", None),
        (["--image-size", "64"], "small_input", False),
        (["--model", "shufflenet_v2"], "name", "shufflenet_v2"),
        (["--model", "shufflenet_v2"], "weights", "imagenet"),
        (["--model", "mobilenet_v2_x1_3", "--alpha", "1.1"], "weights", None),
        (["--model", "squeezenet_v1_1_bn"], "weights", None),
    ],
)
def test_what_is_named_stays_and_the_rest_follows_it(flags, key, value):
    config, chosen = resolved(PHOTOGRAPHS, *flags)
    assert getattr(config.model, key) == value
    assert not set(flags[::2]) & {flag.split()[0] for flag in chosen}


def write(root, sizes):
    random = np.random.default_rng(0)
    for number, (width, height) in enumerate(sizes):
        folder = root / "ab"[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        pixels = random.integers(0, 256, (height, width, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return root


def test_facts_are_those_of_the_training_images(tmp_path):
    root = write(tmp_path / "pictures", [(40, 90), (50, 30), (70, 60)] * 10)
    (root / "a" / "broken.png").write_bytes(b"no picture")
    config = from_dict({"data": {"dataset": str(root)}})
    found = facts.look(config)
    assert found._replace(cut_off=0) == Facts(images=25, classes=2, side=40, longer=70)
    assert found.cut_off == pytest.approx(1 - 0.875**2 * 30 / 50, abs=0.01)
    assert facts.look(from_dict({"data": {"dataset": "digits"}})).side == 8
    (root / "list.csv").write_text("path,label\na/0.png,a\na/gone.png,a\nb/1.png,b\n")
    listed = facts.look(from_dict({"data": {"dataset": str(root / "list.csv")}}))
    assert (listed.side, listed.longer) == (35, 70)


def test_what_starts_from_a_run_has_its_network(tmp_path, monkeypatch):
    """Caught: the network that suits the pictures best, which the weights do not fit."""
    write(tmp_path / "pictures", [(100, 100)] * 20)
    monkeypatch.chdir(tmp_path)
    flags = ["--weights", "none", "--alpha", "0.25", "--image-size", "32x64", "--epochs", "1"]
    flags += ["--set", "model.args.padding=same"]
    network = "mobilenet_v1"

    def complete(*flags):
        parser = argparse.ArgumentParser()
        train.add_arguments(parser)
        args = parser.parse_args(["--dataset", "pictures", *flags])
        return train._complete(args, resolve.resolve(args))

    run = tmp_path / "run"
    first, _ = complete("--model", network, *flags)
    directory.Run.create(run, first, load(first))
    config, choices = complete("--weights", str(run))
    shape = config.model.name, config.model.alpha, config.model.image_size
    assert shape == (network, 0.25, "32x64")
    told = [one.flag for one in choices]
    assert {"--alpha 0.25", '--set \'model.args={"padding": "same"}\''} <= {*told}
    other, _ = complete("--weights", str(run), "--model", "squeezenet")
    assert (other.model.name, other.model.image_size) == ("squeezenet", 96)
    larger, _ = complete("--weights", str(run), "--image-size", "64")
    assert (larger.model.name, larger.model.image_size) == (network, 64)


@pytest.mark.slow
def test_the_command_needs_nothing_but_the_data(tmp_path, monkeypatch, capsys):
    """Small pictures, so that no weights are fetched; a small network, so that it takes seconds."""
    write(tmp_path / "my pictures", [(32, 32)] * 20)
    (tmp_path / "runs" / "my pictures-1").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    arguments = ["my pictures", "--epochs", "1", "--model", "mobilenet_v2_trunc_x0_25"]
    assert cli.main(["train", *arguments]) == 0
    out = capsys.readouterr().out
    assert "--image-size 32" in out
    assert "--batch-size 8" in out
    results = json.loads((tmp_path / "runs" / "my pictures-2" / "results.json").read_text())
    (few,) = (line for line in results["advice"] if "training images a class are few" in line)
    assert few in out
    # What names the run or its data stands there so that it can be pasted.
    assert "RUN" not in out
    assert "data show DATA" not in out


def test_a_run_whose_weights_cannot_be_had_is_not_begun(tmp_path, monkeypatch, capsys):
    write(tmp_path / "pictures", [(120, 120)] * 8)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    monkeypatch.setenv("KERAS_LIGHTNETS_MIRROR", (tmp_path / "mirror").as_uri())
    assert cli.main(["train", "pictures"]) == 1
    error = capsys.readouterr().err
    for way in ("--weights FILE", "KERAS_LIGHTNETS_MIRROR", "--weights none"):
        assert way in error
    assert not (tmp_path / "runs").exists()


def test_two_data_sets_are_one_too_many(capsys):
    assert cli.main(["train", "here", "--dataset", "there"]) == 2
    assert "DATA is here, --dataset another one" in capsys.readouterr().err
