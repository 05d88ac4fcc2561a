"""`lightnets evaluate` of what others made: one line for each thing that is not as it needs it."""

import csv
import json
import pathlib
import re
import shutil

import keras
import pytest
import tensorflow as tf

from lightnets import data
from lightnets.cli import main
from lightnets.config import keys as configs
from lightnets.run.directory import Run
from tests import toy
from tests.colour_run import LABELS, SIDE, make_run, network, write_pictures


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("colour"))


def complaint(capfd, *arguments):
    """Runs the command, which must fail with one line, and returns that."""
    capfd.readouterr()
    code = main(["evaluate", *map(str, arguments)])
    out, err = capfd.readouterr()
    assert (code, out, err.count("\n")) == (1, "", 1), err
    return err


def classifier(side, classes):
    image = keras.Input((side, side, 3))
    x = keras.layers.GlobalAveragePooling2D()(image)
    return keras.Model(image, keras.layers.Dense(classes, activation="softmax")(x))


def test_a_model_of_other_images_or_classes(run, tmp_path, capfd):
    """Caught: a traceback, or numbers for a model that has other classes."""
    classifier(8, 3).save(tmp_path / "small.keras")
    classifier(16, 5).save(tmp_path / "five.keras")
    err = complaint(capfd, tmp_path / "small.keras", "--run", run)
    assert "small.keras does not take images of 16x16 pixels: " in err
    err = complaint(capfd, tmp_path / "five.keras", "--run", run)
    assert re.search(r"shape \(12, 5\), not by a probability for each of the 3 classes", err)


def test_a_saved_model_that_is_no_classifier(run, tmp_path, capfd):
    class Double(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec((None, None, None, 3), tf.float32, name="x")])
        def double(self, x):
            return {"y": 2 * x}

    module = Double()
    signatures = {"serving_default": module.double}
    tf.saved_model.save(module, str(tmp_path / "double"), signatures)
    err = complaint(capfd, tmp_path / "double", "--run", run)
    assert "answers 12 images by an array of shape (12, 16, 16, 3)" in err
    tf.saved_model.save(module, str(tmp_path / "other"), {"other": module.double})
    err = complaint(capfd, tmp_path / "other", "--run", run)
    assert "it has no signature serving_default" in err


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("x.keras", "it is no .keras file, or is cut off"),
        ("x.xml", "Cannot load"),
        ("x.onnx", "Cannot load"),
        ("x.tflite", "Cannot load"),
    ],
)
def test_a_damaged_file_says_nothing_of_anybodys_source_code(run, tmp_path, capfd, name, message):
    (tmp_path / name).write_text("no model")
    err = complaint(capfd, tmp_path / name, "--run", run)
    assert message in err
    assert ".cpp" not in err


def test_other_images_are_prepared_as_the_model_wants_them(run, tmp_path, capfd):
    """Caught: the transform of a default configuration, which cuts another part out."""
    transform = json.loads((run / "transform.json").read_text())
    shutil.copy(run / "weights" / "best.keras", tmp_path / "net.keras")

    def loss(*arguments):
        assert main(["evaluate", *map(str, arguments), "--json"]) == 0
        return json.loads(capfd.readouterr().out)["loss"]

    losses = []
    for shorter in (18, 30):
        text = json.dumps(transform | {"resize_shorter": shorter})
        (tmp_path / "transform.json").write_text(text)
        losses.append(loss(tmp_path / "net.keras", "--dataset", run.parent / "pictures"))
    assert losses[0] == loss(run)
    assert losses[1] != losses[0]


def measure(capfd, *arguments):
    """Runs the command, which must succeed, and returns its answer."""
    capfd.readouterr()
    assert main(["evaluate", *map(str, arguments), "--json"]) == 0
    return json.loads(capfd.readouterr().out)


def sizes(results):
    return {name: own["images"] for name, own in results["splits"].items()}


@pytest.fixture
def own_run(tmp_path):
    """A run whose data has train, val and test."""
    path = make_run(tmp_path)
    write_pictures(tmp_path / "pictures", "test", 2, 1.0)
    return path


def test_a_whole_new_test_set_is_measured_whole(run, tmp_path, capfd):
    """Caught: a fifth of it, held out as if one were to train on the rest."""
    write_pictures(tmp_path, "test42", 14, 1.0)
    results = measure(capfd, run, "--dataset", tmp_path / "test42")
    assert (results["images"], results["accuracy"]) == (42, 1.0)
    assert (results["missing_classes"], results["notes"]) == ([], [])
    err = complaint(capfd, run, "--dataset", tmp_path / "test42", "--split", "nonsense")
    assert "has no split 'nonsense'. It has: train" in err
    write_pictures(tmp_path / "own", "Test_Set", 3, 1.0)
    for split in ((), ("--split", "test")):
        results = measure(capfd, run, "--dataset", tmp_path / "own", *split)
        assert sizes(results) == {"test_set": 9}


def test_predictions_name_the_file_of_every_row(run, tmp_path, capfd):
    """Caught: rows numbered, or named in another order than they were measured in."""
    write_pictures(tmp_path, "pictures", 2, 1.0)
    wrong = tmp_path / "pictures" / "blue" / "wrong.png"
    shutil.copy(next((tmp_path / "pictures" / "red").iterdir()), wrong)
    table = tmp_path / "predictions.csv"
    measure(capfd, run, "--dataset", tmp_path / "pictures", "--predictions", table)
    rows = {row["image"]: row for row in csv.DictReader(table.read_text().splitlines())}
    assert set(rows) == {str(path) for path in (tmp_path / "pictures").glob("*/*")}
    for name, row in rows.items():
        assert row["true"] == pathlib.Path(name).parent.name
        assert (row["predicted"] == row["true"]) == (name != str(wrong))
    worst = min(rows.values(), key=lambda row: float(row["margin"]))
    assert (worst["image"], worst["predicted"]) == (str(wrong), "red")
    assert float(worst["margin"]) < 0


def test_classes_of_a_test_set_are_mapped_by_name(run, tmp_path, capfd):
    """Caught: numbers of another order of classes, and a set that lacks one being refused."""
    write_pictures(tmp_path, "pictures", 4, 1.0)
    rows = [f"{path},{path.parent.name},Val" for path in (tmp_path / "pictures").glob("[gr]*/*")]
    (tmp_path / "list.csv").write_text("\n".join(["path,label,split", *rows]))
    results = measure(capfd, run, "--dataset", tmp_path / "list.csv")
    assert (results["images"], results["accuracy"], sizes(results)) == (8, 1.0, {"val": 8})
    assert results["missing_classes"] == ["blue"]
    assert main(["evaluate", str(run), "--dataset", str(tmp_path / "list.csv")]) == 0
    out = capfd.readouterr().out
    assert out.startswith(f"{run}: 8 held-out images (val)\n")
    assert "No images of: blue\n" in out
    (tmp_path / "list.csv").write_text("\n".join(["path,label,split", *rows, "x.jpg,pink,val"]))
    err = complaint(capfd, run, "--dataset", tmp_path / "list.csv")
    assert f"has classes that {run} lacks: pink. It has: blue, green, red." in err


@pytest.mark.slow
def test_all_that_was_not_trained_on_is_measured_and_named(own_run, tmp_path, capfd):
    pictures = tmp_path / "pictures"
    results = measure(capfd, own_run)
    assert (results["images"], sizes(results)) == (18, {"val": 12, "test": 6})
    # Naming the run's own data changes nothing, whatever the spelling.
    assert measure(capfd, own_run, "--dataset", f"{pictures}/../pictures") == results
    assert sizes(measure(capfd, own_run, "--split", "testing")) == {"test": 6}
    results = measure(capfd, own_run, "--split", "train")
    assert results["notes"] == ["The run was trained on these images."]
    shutil.copytree(pictures / "test" / "red", pictures / "test" / "pink")
    results = measure(capfd, own_run)
    assert (sizes(results), [*results["left_out"]]) == ({"val": 12}, ["test"])
    assert "classes that the split train lacks: pink" in results["left_out"]["test"]
    shutil.rmtree(pictures / "test" / "pink")
    (pictures / "test" / "red" / "bad.jpg").write_bytes(b"no picture")
    err = complaint(capfd, own_run)
    assert re.search(r"1 image of .*test/red/bad.jpg: it is ", err)
    err = complaint(capfd, own_run, "--split", "nonsense")
    assert "has no split 'nonsense'. It has: test, train, val." in err


def test_copies_of_training_images_in_other_data_are_counted(run, tmp_path, capfd):
    write_pictures(tmp_path, "copies", 6, 1.0)
    write_pictures(tmp_path / "new", "x", 5, 1.0)
    shutil.copytree(tmp_path / "new" / "x" / "red", tmp_path / "copies" / "red" / "more")
    results = measure(capfd, run, "--dataset", tmp_path / "copies")
    assert (results["images"], results["notes"]) == (
        23,
        ["The run was trained on 18 of these images."],
    )


def test_of_a_file_alone_the_training_split_is_left_out(run, tmp_path, capfd):
    for name in ("transform.json", "weights/best.keras", "labels.txt"):
        shutil.copy(run / name, tmp_path)
    pictures = run.parent / "pictures"
    results = measure(capfd, tmp_path / "best.keras", "--dataset", pictures)
    assert sizes(results) == {"val": 12}
    assert results["left_out"] == {"train": "it may have been trained on"}
    asked = measure(capfd, tmp_path / "best.keras", "--dataset", pictures, "--split", "train")
    assert sizes(asked) == {"train": 18}


def test_a_run_whose_data_moved_is_measured_on_what_it_held_out(tmp_path, capsys):
    pictures = toy.noise_files(tmp_path / "pictures", 30, LABELS)
    values = {"model": {"image_size": SIDE}, "data": {"dataset": str(pictures)}}
    config = configs.from_dict(values)
    run = Run.create(tmp_path / "run", config, data.load(config)).path
    network().save(run / "weights" / "best.keras")
    assert main(["evaluate", str(run), "--json"]) == 0
    before = json.loads(capsys.readouterr().out)
    assert before["images"] == 6
    moved = pictures.rename(tmp_path / "elsewhere")
    assert main(["evaluate", str(run)]) == 1
    assert "--dataset PLACE" in capsys.readouterr().err
    assert main(["evaluate", str(run), "--dataset", str(moved), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == before


@pytest.mark.slow
def test_it_ends_with_the_most_certain_mistakes_and_the_next_step(run, tmp_path, capfd):
    # Mutations: the least certain one first; the places of right answers.
    for name, brightness in (("a", 0.5), ("data", 1.0)):
        write_pictures(tmp_path / name, "val", 4, brightness)
    blue = tmp_path / "data" / "val" / "blue"
    shutil.copy(tmp_path / "a" / "val" / "red" / "0.jpg", blue / "0 dim.jpg")
    shutil.copy(tmp_path / "data" / "val" / "red" / "0.jpg", blue / "sure.jpg")
    (run / "report.html").touch()
    capfd.readouterr()
    assert main(["evaluate", str(run), "--dataset", str(tmp_path / "data")]) == 0
    (run / "report.html").unlink()
    *_, title, first, second, report, following = capfd.readouterr().out.splitlines()
    assert title == "Most certain mistakes:"
    for line, name in ((first, "sure.jpg"), (second, "0 dim.jpg")):
        assert re.fullmatch(rf"  {blue}/{name}: blue, taken for red \(0\.\d+\)", line)
    assert report == f"Report: {run}/report.html"
    assert following == f"Next: lightnets export {run} --out served"


@pytest.mark.slow
def test_a_report_says_whether_its_images_chose_the_epoch(tmp_path, capfd):
    # Mutations: every split is taken for the one that chose; the run's own report is replaced.
    run = make_run(tmp_path)
    assert main(["evaluate", str(run), "--report"]) == 1
    assert f"finished: lightnets train --resume {run}" in capfd.readouterr().err
    about = {"epochs": 3, "best_epoch": 2, "advice": []}
    (run / "results.json").write_text(json.dumps(about))
    write_pictures(tmp_path / "new", "test", 4, 1.0)
    assert main(["evaluate", str(run), "--dataset", str(tmp_path / "new"), "--report"]) == 0
    (written,) = re.findall(r"^Report: (.*)$", capfd.readouterr().out, re.MULTILINE)
    assert written == f"{run}/report-test.html"
    text = pathlib.Path(written).read_text()
    assert "These images did not choose the epoch." in text
    assert "Accuracy on 12 held-out images: <b>1.0000</b>" in text
    assert "An image in a batch of 32" in text
    assert "tensorflow 2." in text
    assert not (run / "report.html").exists()
    assert not (run / "suspects.csv").exists()
    # Without the flag: those that are not there, and for a person.
    for flag in ("--json", "--no-report"):
        assert main(["evaluate", str(run), flag]) == 0
        assert not (run / "report.html").exists()
    capfd.readouterr()
    assert main(["evaluate", str(run)]) == 0
    assert f"Report: {run}/report.html" in capfd.readouterr().out
    (run / "report.html").write_text("as training wrote it")
    assert main(["evaluate", str(run)]) == 0
    assert (run / "report.html").read_text() == "as training wrote it"
    assert main(["evaluate", str(run), "--report"]) == 0
    assert "These images also chose the best epoch" in (run / "report.html").read_text()
    assert (run / "suspects.csv").exists()
