"""`lightnets rank`: networks by what they see in pictures, without training."""

import keras
import numpy as np
import pytest

from lightnets.cli import main
from tests.colour_run import make_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("colour"))


def test_the_network_that_sees_the_difference_comes_first(run, tmp_path, capsys):
    blind = make_run(tmp_path / "blind")
    model = keras.models.load_model(blind / "weights" / "best.keras")
    model.get_layer("conv").set_weights([np.zeros((3, 3, 3, 3))])
    model.save(blind / "weights" / "best.keras")
    capsys.readouterr()
    pictures = run.parent / "pictures"
    assert main(["rank", str(pictures), str(blind), str(run)]) == 0
    out, err = capsys.readouterr()
    rows = [line.split("\t") for line in out.splitlines()]
    assert [row[0] for row in rows] == [str(run), str(blind)]
    assert float(rows[0][1]) == 1.0
    assert float(rows[1][1]) < 0.5
    assert all(float(row[3]) > 0 for row in rows)
    assert f"Next: lightnets train {pictures} --weights {run}" in err


def test_what_cannot_be_opened_is_named_and_the_others_go_on(run, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("KERAS_LIGHTNETS_MIRROR", (tmp_path / "mirror").as_uri())
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    pictures = str(run.parent / "pictures")
    assert main(["rank", pictures, "squeezenet", str(run), "--images", "15"]) == 1
    out, err = capsys.readouterr()
    assert out.splitlines()[-1].startswith(f"{run}\t1.0000\t")
    assert "lightnets: squeezenet: " in err
    assert "On 15 images." in err
    assert main(["rank", pictures, "squeezenett"]) == 2
    assert "Did you mean 'squeezenet'?" in capsys.readouterr().err
