"""`lightnets embed` and `lightnets search`: features as a file, and the pictures most alike."""

import keras
import numpy as np
import pytest

from lightnets.cli import main
from lightnets.evaluation import feature_file
from tests.colour_run import LABELS, make_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("colour"))


@pytest.mark.parametrize("suffix", ["npz", pytest.param("parquet", marks=pytest.mark.nightly)])
def test_each_picture_is_found_by_itself_with_name_and_label(run, tmp_path, capsys, suffix):
    # Mutation: the least similar come first.
    pictures, out = run.parent / "pictures", tmp_path / f"features.{suffix}"
    assert main(["embed", str(pictures), str(run), "--out", str(out)]) == 0
    found = feature_file.read(out)
    assert found.features.shape == (30, 3)
    assert sorted(set(found.labels)) == sorted(LABELS)
    for name, label in zip(found.names, found.labels, strict=True):
        assert f"/{label}/" in name
    capsys.readouterr()
    image = pictures / "val" / "red" / "2.jpg"
    assert main(["search", str(out), str(image), str(tmp_path / "no.jpg"), "--top-k", "3"]) == 1
    shown, err = capsys.readouterr()
    rows = [line.split("\t") for line in shown.splitlines()]
    assert [row[1] for row in rows] == ["1", "2", "3"]
    assert rows[0][2].endswith("val/red/2.jpg")
    assert rows[0][4] == "1.0000"
    assert {row[3] for row in rows} == {"red"}
    assert "no.jpg: there is no such file" in err
    assert main(["embed", str(pictures), str(run), "--out", str(out), "--split", "val"]) == 0
    assert len(feature_file.read(out).names) == 12


def test_what_is_wrong_is_said_in_one_line(run, tmp_path, capsys):
    def refused(*words):
        capsys.readouterr()
        assert main(list(map(str, words))) != 0
        (line,) = capsys.readouterr().err.splitlines()
        return line

    pictures, out = run.parent / "pictures", tmp_path / "features.npz"
    assert ".npz or .parquet" in refused("embed", pictures, run, "--out", "features.csv")
    assert "Did you mean 'squeezenet'?" in refused("embed", pictures, "squeezenett", "--out", out)
    assert "There is no file" in refused("search", out, "a.jpg")
    out.write_bytes(b"PK\x03\x04")
    assert "is damaged" in refused("search", out, "a.jpg")
    other = make_run(tmp_path / "other")
    model = keras.models.load_model(other / "weights" / "best.keras")
    model.get_layer("conv").set_weights([np.zeros((3, 3, 3, 3))])
    model.save(other / "weights" / "best.keras")
    assert main(["embed", str(pictures), str(run), "--out", str(out)]) == 0
    line = refused("search", out, "a.jpg", "--model", other)
    assert f"{out} has the features of another network than {other}" in line
