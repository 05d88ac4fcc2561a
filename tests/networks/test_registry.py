"""Names, sizes and papers of the registered networks."""

import inspect
import json
import subprocess
import sys

import pytest

import keras_lightnets
from keras_lightnets.catalogue import registry
from keras_lightnets.layers.notes import notes
from keras_lightnets.networks import create
from keras_lightnets.networks.options import argument_names
from lightnets.cli import main
from tests import golden_variants

# One per builder and per way in which a count can go wrong; the others run at night.
QUICK = {
    "paper/squeezenet_v1_0_complex_bypass",
    "seed/squeezenet_v1_1_fire_bn",
    "pytorchcv/mobilenetb_wd4",
    "timm/mobilenetv1_100h",
    "torchvision/mobilenet_v2_w1.4",
    "pytorchcv/mobilenetv2_wd4",
    "rounded/shufflenet_v1_g4_0.25x",
    "megvii/shufflenet_v1_g8_1.5x",
    "pytorchcv/shufflenet_g3_w1",
    "torchvision/shufflenet_v2_x1_0",
    "pytorchcv/shufflenetv2b_w3d2",
}
ROWS = [row.name for family in registry.FAMILIES.values() for row in family.rows]
COVERED = [key for key in golden_variants.COUNTS if key not in golden_variants.EXCLUDED]


def _check(key):
    builder, arguments, more = golden_variants.variant(key)
    expected = golden_variants.COUNTS[key]
    trainable, everything, macs = golden_variants.size(builder, arguments)
    assert trainable - more == expected["params_trainable"]
    assert everything - more == expected["params_total"]
    assert macs == expected["macs_224"]


@pytest.mark.parametrize("key", sorted(QUICK))
def test_counts_are_those_of_the_other_implementation(key):
    _check(key)


@pytest.mark.nightly
@pytest.mark.parametrize("key", [key for key in COVERED if key not in QUICK])
def test_all_counts_are_those_of_the_other_implementations(key):
    _check(key)


def test_every_entry_is_covered_or_excluded_for_a_reason():
    assert set(golden_variants.EXCLUDED) <= set(golden_variants.COUNTS)
    assert len(golden_variants.COUNTS) == 188
    assert len(COVERED) == 177
    for key in COVERED:
        builder, arguments, _ = golden_variants.variant(key)
        assert set(arguments) <= argument_names(getattr(keras_lightnets, builder)), key


def _check_row(name):
    family, row = registry.find(name)
    size = golden_variants.size(family.builder.partition(":")[2], row.arguments)
    assert size == (row.parameters, row.parameters_total, row.macs)


@pytest.mark.parametrize("name", ["squeezenet_v1_1", "mobilenet_v1_x0_25", "shufflenet_v2_x0_5"])
def test_registered_sizes_are_those_of_the_built_network(name):
    _check_row(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", ROWS)
def test_all_registered_sizes_are_those_of_the_built_networks(name):
    _check_row(name)


def test_names_are_unique_and_families_are_registered():
    assert len(ROWS) == len(set(ROWS))
    for name, family in registry.FAMILIES.items():
        assert registry.find(name) == registry.find(family.usual)
        assert set(family.weights) <= {row.name for row in family.rows}


def test_no_two_networks_are_the_same():
    # Else published weights of one would not be found for the other.
    for family in registry.FAMILIES.values():
        for row in family.rows:
            variant = {**family.defaults, **row.arguments}
            assert [o for o in family.rows if {**family.defaults, **o.arguments} == variant] == [
                row
            ]
            assert family.published(variant) == registry.model_info(row.name).weights


@pytest.mark.parametrize("family", registry.FAMILIES.values(), ids=lambda family: family.name)
def test_defaults_are_those_of_the_builder(family):
    # Else no variant would be found to have weights.
    parameters = inspect.signature(create.builder(family.name)).parameters
    assert {name: parameters[name].default for name in family.defaults} == family.defaults
    model = create.create_model(family.name, input_shape=(32, 32, 3))
    assert notes(model)["family"] == family.name
    assert notes(model)["variant"].keys() == family.defaults.keys()


def test_list_models_filters():
    assert keras_lightnets.list_models("shufflenet_v1_g8*") == [
        f"shufflenet_v1_g8_x{width}" for width in ("0_25", "0_5", "0_75", "1_0", "1_5", "2_0")
    ]
    assert keras_lightnets.list_models("shufflenet_v1_g8*", pretrained=True) == [
        "shufflenet_v1_g8_x1_0"
    ]
    assert keras_lightnets.list_models("nothing*") == []


def test_arguments_win_over_the_row():
    model = keras_lightnets.create_model(
        "shufflenet_v1_g3_x0_25", classes=10, input_shape=(32, 32, 3), name="mine"
    )
    assert model.name == "mine"
    assert model.output_shape == (None, 10)


def test_model_info_has_paper_and_weights():
    info = keras_lightnets.model_info("shufflenet_v1")
    assert (info.parameters, info.macs, info.paper_top1) == (1_865_728, 137_460_672, 67.4)
    assert info.paper.url == "https://arxiv.org/abs/1707.01083"
    assert [row.tag for row in info.weights] == ["osmr"]
    assert info.weights[0].url == (
        "https://github.com/osmr/imgclsmob/releases/download/v0.0.422/"
        "shufflenet_g3_w1-1326-daaec8b8.tf2.h5.zip"
    )


def test_unknown_name_is_refused_with_the_nearest():
    with pytest.raises(ValueError, match=r"Did you mean .*'shufflenet_v1'.*'shuflenet_v1'"):
        keras_lightnets.create_model("shuflenet_v1")


def test_published_digests_have_the_form_that_is_checked():
    for name in ROWS:
        rows = registry.model_info(name).weights
        tags = [row.tag for row in rows]
        assert len(tags) == len(set(tags))
        assert [row.top1 for row in rows] == sorted((row.top1 for row in rows), reverse=True)
        for row in rows:
            if row.digest is None:
                assert "huggingface.co/timm/" in row.url or "/keras-applications/" in row.url
                continue
            algorithm, _, digits = row.digest.partition(":")
            assert (algorithm, len(digits)) in (("sha1", 40), ("sha256", 8), ("sha256", 10))
            assert int(digits, 16) >= 0
            assert digits[:8] in row.file


def test_listing_does_not_import_tensorflow():
    code = (
        "import sys\n"
        "from lightnets.cli import main\n"
        "assert main(['list', '*v1*']) == 0\n"
        "assert main(['info', 'squeezenet', '--json']) == 0\n"
        "assert main(['list', 'nonsense']) == 2\n"
        "assert main(['info', 'shuflenet_v1']) == 2\n"
        "assert not {'tensorflow', 'keras'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "shufflenet_v1_g3_x1_0\t66.1\t7.6\t137\tosmr" in done.stdout.splitlines()
    assert '"parameters": 1235496' in done.stdout
    assert "Did you mean 'shufflenet_v1'?" in done.stderr


def test_the_first_table_is_short_and_the_rest_behind_a_flag(capsys, monkeypatch):
    def names(*flags):
        assert main(["list", *flags]) == 0
        return [line.split("\t")[0] for line in capsys.readouterr().out.splitlines()]

    first, everything = names(), names("--all")
    assert len(first) == 12
    assert {*first} < {*everything} == {*keras_lightnets.list_models()}
    assert names("--pretrained") == keras_lightnets.list_models(pretrained=True)
    assert [row["name"] for row in json.loads("\n".join(names("--json")))] == everything
    monkeypatch.setenv("TERM", "dumb")  # 80 columns
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert main(["list"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert len(shown) == len(first) + 2, "a header, a hint, and no row wraps"
    assert main(["list", "--all"]) == 0
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80


def test_networks_are_measured_when_asked(capsys):
    assert main(["list", "shufflenet_v1_g1_x0_25", "--measure"]) == 0
    assert float(capsys.readouterr().out.split("\t")[4]) > 0
