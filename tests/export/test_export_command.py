"""`lightnets export`: what it compares and shows, and one line and no files for what is wrong."""

import contextlib
import ctypes
import io
import json
import pathlib
import re
import shutil
import sys
import types

import pytest
import tensorflow as tf

from keras_lightnets.errors import ExportError
from keras_lightnets.export import runtimes
from lightnets import data
from lightnets.cli import main
from lightnets.commands import export
from lightnets.config import keys as configs
from lightnets.run import artifacts, build
from lightnets.run.directory import Run
from tests import processes
from tests.bundles import traces
from tests.colour_run import LABELS, make_run
from tests.serving_models import serving


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("colour"))


def lightnets(capfd, *arguments):
    """Returns exit code, standard output and standard error, C++'s included."""
    capfd.readouterr()
    code = main(list(map(str, arguments)))
    return code, *capfd.readouterr()


def complaint(capfd, *arguments):
    """Runs a command that must fail with one line, which is returned."""
    code, out, err = lightnets(capfd, *arguments)
    assert (code, err.count("\n")) == (1, 1), err
    assert "Traceback" not in out + err
    return err


def tree(folder):
    """Every file below a folder with its content."""
    return {p: p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["--formats", "onx"], 2, "Unknown format 'onx'. Did you mean 'onnx'?"),
        (["--formats", ","], 2, "No format was given"),
        (["--top-k", "0"], 2, "--top-k: must be at least 1"),
        (["--equalize"], 2, "--equalize is for int8: --precision int8, or"),
        (["--precision", "int8", "--gpu"], 2, "--precision int8 is for processors"),
        (["--precision", "bfloat16", "--formats", "onnx"], 2, "is of the SavedModel. Add tf_serv"),
        (["--max-accuracy-drop", "2"], 2, "--max-accuracy-drop is a share"),
        (["--version", "0"], 2, "Argument --version: must be 1 to 9223372036854775807. Received:"),
        (["--version", "-1"], 2, "Argument --version: must be 1 to 9223372036854775807. Received:"),
        (["--version", "9223372036854775808"], 2, "--version: must be 1 to 9"),
        (["--version", "9" * 5000], 2, f"Received: {'9' * 40}. See lightnets export --help.\n"),
        (
            ["--version", "1.5"],
            2,
            "Argument --version: must be 1 to 9223372036854775807. Received:",
        ),
        (["--version", "٣"], 2, "Argument --version: must be 1 to 9223372036854775807. Received:"),
        (["--selftest-images", "-1"], 2, "--selftest-images: must be at least 0"),
        (["--gate-images", "0"], 2, "--gate-images: must be at least 1, or all"),
        (["--gate-images", "few"], 2, "--gate-images: must be at least 1, or all"),
        (["--formats", "onnx"], 1, "none"),
    ],
)
def test_bad_arguments(tmp_path, monkeypatch, capsys, arguments, code, text):
    monkeypatch.chdir(tmp_path)
    assert main(["export", "none", "--out", "out", *arguments]) == code
    out, err = capsys.readouterr()
    assert text in err
    assert err.count("\n") == 1
    assert "Traceback" not in out + err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("keys", "arguments", "missing"),
    [
        ({}, ["RUN"], {"web"}),
        ({"model": {"quantize": "int8", "weights": "other"}}, ["RUN"], {"web", "keras"}),
        ({}, ["RUN", "--reject", "0.95"], {"web", *runtimes.INT8}),
        ({}, ["--model", "mobilenet_v1"], {"web", *runtimes.INT8}),
        ({"train": {"task": "regression"}}, ["RUN"], {"web", *runtimes.INT8}),
    ],
)
def test_all_formats_are_those_that_are_possible(
    tmp_path, monkeypatch, capsys, keys, arguments, missing
):
    # Mutations: each of these was refused, a quantized run after minutes of converting.
    def write(args, formats, *_):
        raise ExportError(",".join(formats))

    config = configs.from_dict(keys)
    monkeypatch.setattr(export, "_open_run", lambda _: types.SimpleNamespace(config=config))
    for name in ("_export", "_export_network"):
        monkeypatch.setattr(export, name, write)
    assert main(["export", *arguments, "--out", str(tmp_path), "--formats", "all"]) == 1
    written = capsys.readouterr().err.partition(":")[2].strip().split(",")
    assert set(runtimes.FORMATS) - set(written) == missing


@pytest.mark.slow
def test_the_files_of_the_run_are_compared_and_the_result_is_shown(run, tmp_path, capfd):
    """Every held-out file goes through both signatures as it is on the disk."""
    out = tmp_path / "served"
    code, text, err = lightnets(capfd, "export", run, "--out", out, "--name", "colour")
    assert (code, err) == (0, "")
    lines = text.splitlines()
    assert lines[:2] == [
        "Comparing on 12 of 12 held-out images",
        "Splits: train (18 images), val (12 images); 3 classes: blue, green, red",
    ]
    rows = [line for line in lines if re.match(r"serv\w+, oneDNN (on|off)", line)]
    assert [re.split(r"  +", row)[1:3] for row in rows] == [["12", "12"]] * 4
    assert lines[-2:] == [f"Wrote {out}/colour/1", f"Next: lightnets serve {out}"]
    report = json.loads((out / "colour" / "1" / "assets.extra" / "parity.json").read_text())
    assert {row["accuracy"] for row in report["signatures"].values()} == {1.0}
    about = json.loads((out / "colour" / "1" / "assets.extra" / "metadata.json").read_text())
    data = Run.open(run).config.data.dataset
    assert about["run"]["name"] == run.name
    assert about["run"]["config"]["data"]["dataset"] == pathlib.Path(data).name != data
    assert not traces(out)
    code, text, err = lightnets(capfd, "verify", out)
    assert (code, err) == (0, "")
    assert text == f"ok      {out}/colour/1\nNext: lightnets serve {out}\n"
    # What the self-test sends are files of the run.
    folder = out / "colour" / "1" / "assets.extra" / "selftest"
    sent = {path.read_bytes() for path in folder.iterdir() if path.suffix == ".jpg"}
    assert len(sent) == 8
    assert sent <= {path.read_bytes() for path in pathlib.Path(data).glob("val/*/*.jpg")}


def test_held_out_images_come_with_their_own_bytes(run):
    splits = Run.open(run).splits()
    held_out = export.held_out_images(splits, None)
    paths = [pathlib.Path(splits.eval_source.name(place)) for place in range(12)]
    assert list(held_out.files) == [path.read_bytes() for path in paths]
    assert held_out.labels.tolist() == [LABELS.index(path.parent.name) for path in paths]
    some = export.held_out_images(splits, 3)
    assert some.labels.tolist() == [0, 1, 2]  # spread over the split, which is sorted by class
    assert list(some.files) == [held_out.files[place] for place in (0, 5, 11)]


@pytest.mark.nightly
def test_int8_learns_its_ranges_from_training_images(run, tmp_path, capfd):
    """Caught: representative images of the held-out split, which would make int8 look better."""
    few, run = run, make_run(tmp_path / "bright", train_each=11)
    splits = Run.open(run).splits()
    seen = {image.tobytes() for image in export.representative_images(splits)}
    held_out = {image.tobytes() for image in export.held_out_images(splits, None).images}
    assert len(seen) == splits.train_examples
    assert not seen & held_out
    # Training pictures that are almost black: all bright ones look alike to int8.
    dark = make_run(tmp_path / "dark", train_brightness=0.02, train_each=11)
    arguments = ("--name", "colour", "--formats", "litert-int8")
    out = tmp_path / "out"
    code, text, err = lightnets(capfd, "export", run, "--out", out, *arguments)
    assert (code, err) == (0, "")
    (row,) = [line for line in text.splitlines() if line.startswith("litert-int8")]
    assert re.split(r"  +", row.strip())[4:] == ["1.0000", "1.0000"]
    # A table for who chooses among formats, printed and in the version's card.
    both = ("--formats", "tf_serving,litert-dynamic,litert-int8", "--table", "--name", "both")
    code, text, err = lightnets(capfd, "export", run, "--out", out, *both)
    assert (code, err) == (0, "")
    printed = [re.split(r"  +", line.strip()) for line in text.splitlines()]
    (head,) = [cells for cells in printed if "MB" in cells]
    assert head[-3:] == ["Keras", "MB", "ms an image"]
    files = out / "both" / "1" / "formats"
    card = (out / "both" / "1" / "MODEL_CARD.md").read_text()
    for cells in (cells for cells in printed if cells[0].startswith("litert-")):
        file = files / f"{cells[0].replace('litert', 'model')}.tflite"
        assert cells[-2] == f"{file.stat().st_size / 1e6:.3f}"
        assert float(cells[-1]) >= 0
        assert f"| `{file.name}` | {cells[-2]} | " in card
    before = tree(tmp_path)
    err = complaint(capfd, "export", few, "--out", out, *arguments)
    assert "int8 learns its ranges from at least 32 images. Received: 18" in err
    err = complaint(capfd, "export", dark, "--out", out, *arguments, "--max-accuracy-drop", 0.3)
    assert re.search(r"litert-int8: accuracy falls by 0\.\d+, more than the 0.3 allowed", err)
    assert tree(tmp_path) == before
    drop = ("--max-accuracy-drop", 1)
    code, text, _ = lightnets(capfd, "export", dark, "--out", out, *arguments, *drop)
    assert code == 0
    report = json.loads((out / "colour" / "formats" / "2" / "metadata.json").read_text())
    assert report["formats"]["litert-int8"]["accuracy_drop"] > 0.3
    assert report["formats"]["litert-int8"]["top1_agreement"] < 0.7


def test_what_cannot_be_exported_is_one_line_and_leaves_nothing(run, tmp_path, capfd, monkeypatch):
    out = tmp_path / "served"
    arguments = ("export", run, "--out", out, "--name", "colour")
    assert lightnets(capfd, *arguments, "--formats", "litert")[0] == 0
    before = tree(tmp_path)

    err = complaint(capfd, *arguments, "--version", 1)
    assert "colour/1 exists. Versions are never overwritten" in err
    err = complaint(capfd, "export", run, "--out", out, "--name", "a/b")
    assert "'a/b'" in err

    (tmp_path / "file").write_text("")
    err = complaint(capfd, "export", run, "--out", tmp_path / "file")
    assert f"--out: {tmp_path}/file is no folder" in err
    (tmp_path / "file").unlink()

    for format_, package in (("onnx", "tf2onnx"), ("openvino", "openvino")):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, package, None)
            err = complaint(capfd, *arguments, "--formats", f"litert,tf_serving,{format_}")
        assert f"{package}, which is not installed: pip install 'keras-lightnets[convert]'" in err

    def breaks(path):
        raise RuntimeError("Unsupported operation: Foo\nand more")

    with monkeypatch.context() as patch:
        patch.setitem(runtimes.LOADERS, ".onnx", breaks)
        err = complaint(capfd, *arguments, "--formats", "tf_serving,litert,onnx")
    assert err == "lightnets: The conversion to onnx failed: Unsupported operation: Foo\n"
    assert tree(tmp_path) == before


def test_a_run_that_does_not_fit_is_one_line(tmp_path, capfd):
    run = make_run(tmp_path)
    labels = run / "labels.txt"
    out = tmp_path / "served"
    arguments = ("export", run, "--out", out, "--name", "colour", "--formats", "litert")
    assert lightnets(capfd, *arguments)[0] == 0
    before = tree(out)
    (run / "weights" / "best.keras").rename(run / "weights" / "other.keras")
    assert "has no weights (weights/best.keras is missing)" in complaint(capfd, *arguments)
    (run / "weights" / "other.keras").rename(run / "weights" / "best.keras")
    other = out / "colour" / "7" / "assets.extra" / "labels.txt"
    other.parent.mkdir(parents=True)
    other.write_text("cat\ndog\nfox\n")
    err = complaint(capfd, *arguments)
    assert "another model of this name, with other classes (cat, dog, fox; now blue, gr" in err
    shutil.rmtree(out / "colour" / "7")
    labels.write_text("blue\ngreen\n")
    err = complaint(capfd, *arguments, "--name", "new")
    assert "2 class names were given, but the model has 3" in err
    assert tree(out) == before


def export_without_privileges(*arguments):
    """Exports as somebody whom permissions stop, which root is too without its capabilities."""
    version_3, this_process = 0x20080522, 0
    header = (ctypes.c_uint32 * 2)(version_3, this_process)
    nothing = (ctypes.c_uint32 * 6)()
    assert ctypes.CDLL(None).capset(header, nothing) == 0
    with contextlib.redirect_stderr(io.StringIO()) as complaints:
        code = main(["export", *map(str, arguments)])
    return code, complaints.getvalue()


def test_no_permission_to_write(run, tmp_path):
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o555)
    code, err = processes.call(export_without_privileges, run, "--out", closed)
    assert (code, err.count("\n")) == (1, 1), err
    assert re.fullmatch(
        rf"lightnets: --out: cannot write to {closed} \(Permission denied\)\.\n", err
    )
    assert not list(closed.iterdir())


@pytest.mark.slow
def test_a_changed_graph_is_not_published(run, tmp_path, capfd, monkeypatch):
    """The parity gate of the command, with one operation of the graph changed."""
    from keras_lightnets.inference import function as inference

    frozen_function = inference.frozen_function

    def changed(model, spec):
        network = frozen_function(model, spec)
        return tf.function(
            lambda images: tf.nn.softmax(1.001 * tf.math.log(network(images))),
            input_signature=[spec],
        )

    monkeypatch.setattr(inference, "frozen_function", changed)
    err = complaint(capfd, "export", run, "--out", tmp_path / "served", "--formats", "tf_serving")
    assert "serving_default, oneDNN on: the export differs from the Keras model" in err
    assert not list(tmp_path.iterdir())


def test_a_file_without_its_run_is_exported_as_a_run_says(run, tmp_path, capfd):
    """There are no images of known classes to compare on, so no accuracy is shown."""
    copied = shutil.copy(run / "weights" / "best.keras", tmp_path / "copied.keras")
    out = tmp_path / "served"
    arguments = ("export", copied, "--out", out, "--name", "colour", "--formats", "litert")
    assert "does not say how images are prepared. Add" in complaint(capfd, *arguments)
    assert not out.exists()
    code, text, err = lightnets(capfd, *arguments, "--transform-of", run)
    assert (code, err) == (0, "")
    rows = [re.split("  +", line.strip()) for line in text.splitlines()]
    shown = ["compared with Keras", "images", "same top-1", "largest difference"]
    place = rows.index(shown)
    assert rows[place + 1][:3] == ["litert", "16", "16"]
    target = out / "colour" / "formats" / "1" / "model.tflite"
    picture = run.parent / "pictures" / "val" / "red" / "0.jpg"
    _, text, _ = lightnets(capfd, "predict", target, picture, "--format", "jsonl")
    assert json.loads(text)["predictions"][0]["label"] == "red"


def test_weights_of_a_run_can_be_copied_anywhere_and_used_alone(run, tmp_path, capfd):
    settings = {"model": {"name": "squeezenet_v1_1", "image_size": 32}}
    settings |= {"data": {"dataset": str(run.parent / "pictures"), "resize_shorter": 50}}
    config = configs.from_dict(settings)
    splits = data.load(config)
    build.build_model(config, splits).save(tmp_path / "best.keras")
    artifact = artifacts.open(tmp_path / "best.keras")
    assert (artifact.labels, artifact.transform) == (list(LABELS), splits.transform)
    picture = run.parent / "pictures" / "val" / "red" / "0.jpg"
    arguments = ("predict", tmp_path / "best.keras", picture, "--format", "jsonl", "--top", 9)
    code, text, err = lightnets(capfd, *arguments)
    assert (code, err) == (0, "")
    assert {row["label"] for row in json.loads(text)["predictions"]} == set(LABELS)


@pytest.mark.slow
def test_evaluate_prints_the_same_numbers_for_every_artefact(run, tmp_path, capfd):
    """Another decoding, resize, order of classes or missing softmax would show in the loss."""
    out = tmp_path / "served"
    formats = "tf_serving,litert,onnx,openvino"
    assert lightnets(capfd, "export", run, "--out", out, "--formats", formats)[0] == 0
    files = out / "colour" / "1" / "formats"
    assert not traces(out)

    def printed(target):
        code, text, err = lightnets(capfd, "evaluate", target, "--run", run)
        assert (code, err) == (0, "")
        first, *rest = text.splitlines()
        assert first == f"{target}: 12 held-out images (val)"
        assert rest[-1].startswith("Next: ") == (target == run)
        return rest[:-1] if target == run else rest

    expected = printed(run)
    assert re.fullmatch(r"  accuracy +1\.0000", expected[0])
    assert re.fullmatch(r"  loss +0\.[0-9]{4}", expected[1])
    for target in (
        *(run / "weights" / "best.keras", out / "colour" / "1", out / "colour", out),
        *(files / "model.tflite", files / "model.onnx", files / "model.xml"),
    ):
        assert printed(target) == expected
    with serving(out) as server:
        assert printed(f"{server.url}/v1/models/colour") == expected
        assert printed(f"{server.grpc_url}/colour") == expected
