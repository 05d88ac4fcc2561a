"""`--reject`: what it prints, and `known` in every file, from every reader."""

import json

import numpy as np
import pytest
from PIL import Image

from keras_lightnets.errors import ExportError, ParityError
from keras_lightnets.export import formats, parity, runtimes
from keras_lightnets.export.answers import Answer
from keras_lightnets.export.described import Description
from keras_lightnets.inference import rejection as rules
from keras_lightnets.serving import Client
from lightnets.cli import main
from lightnets.commands.export import held_out_images
from lightnets.evaluation import rejection
from lightnets.run import artifacts
from lightnets.run.directory import Run
from tests.bundles import selftest
from tests.colour_run import LABELS, make_run, network
from tests.serving_models import serving


def grey(folder, count=6):
    """Writes pictures of no colour."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(5)
    for number in range(count):
        pixels = rng.integers(60, 250, (24, 30, 1)).repeat(3, axis=2).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("colour"))


@pytest.fixture(scope="module")
def unknown(tmp_path_factory):
    return grey(tmp_path_factory.mktemp("unknown") / "grey")


@pytest.fixture(scope="module")
def version(run, unknown, tmp_path_factory):
    out = tmp_path_factory.mktemp("bundle") / "served"
    words = ("export", run, "--out", out, "--reject", 0.8, "--unknown", unknown)
    assert main(list(map(str, words))) == 0
    return out / "colour" / "1"


@pytest.mark.slow
def test_the_export_says_what_it_measured(run, version, unknown, capfd):
    about = json.loads((version / "assets.extra" / "metadata.json").read_text())["rejection"]
    assert (about["coverage"], about["held_out_images"], about["unknown_images"]) == (0.8, 12, 6)
    assert (about["auroc"], about["unknown_rejected"]) == (1, 1)
    assert about["calibration_error"] < about["calibration_error_before"]
    card = (version / "MODEL_CARD.md").read_text()
    assert "It was false for 100.0% of 6 images of none of the classes (AUROC 1.000)." in card
    report = json.loads((version / "assets.extra" / "parity.json").read_text())
    assert {row["known_agreement"] for row in report["signatures"].values()} == {1}
    # `evaluate` fits the same rule.
    words = ("evaluate", run, "--reject", 0.8, "--unknown", unknown)
    assert main([*map(str, words), "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["rejection"] == pytest.approx(about)
    assert main(list(map(str, words))) == 0
    assert "Of 6 images of none of the classes 100.0% are rejected; AUROC 1.0000." in (
        capfd.readouterr().out
    )


@pytest.mark.slow
def test_known_is_told_by_the_bundle_the_client_and_the_self_test(run, version, unknown, capfd):
    held_out = [*Run.open(run).splits().eval_source.pick(range(12))]
    files = [*(file.numpy() for file in held_out), *(p.read_bytes() for p in unknown.iterdir())]
    capfd.readouterr()
    with serving(version.parent.parent, forked=True) as server:
        with Client(server.url) as client:
            answers = client.classify(files, top=1)
        known = [answer.known for answer in answers]
        assert 9 <= sum(known[:12]) <= 12
        assert not any(known[12:])
        code, lines, err = selftest(version / "assets.extra", server.url, "--requests", 0)
        assert (code, err) == (0, ""), lines
        # An answer of other images' `known` is a wrong one.
        sent = version / "assets.extra" / "selftest" / "answers.json"
        text = sent.read_text()
        sent.write_text(
            text.replace(
                '"known": {"serving_default": true', '"known": {"serving_default": false', 1
            )
        )
        code, lines, _ = selftest(version / "assets.extra", server.url, "--requests", 0)
        sent.write_text(text)
        assert [line for line in lines if "known is True, must be False" in line]
        assert code == 1
        for target in (server.url, version):
            assert main(["predict", str(target), str(unknown / "0.png")]) == 0
            header, row = (line.split() for line in capfd.readouterr().out.splitlines())
            assert (header[-1], row[-1]) == ("known", "false")
    assert main(["predict", str(version), str(unknown), "--format", "jsonl"]) == 0
    rows = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert [row["known"] for row in rows] == [False] * 6


def complaint(capsys, *words):
    code = main(list(map(str, words)))
    out, err = capsys.readouterr()
    assert "Traceback" not in out + err
    assert err.count("\n") == 1, err
    return code, err


def test_bad_input_is_one_line_and_writes_nothing(run, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").write_text("no picture")
    out = tmp_path / "served"
    for flags, code, text in (
        (("--reject", "0"), 2, "between 0 and 1, such as 0.95. Received: 0"),
        (("--reject", "1.5"), 2, "between 0 and 1, such as 0.95. Received: 1.5"),
        (("--reject", "nan"), 2, "Received: nan"),
        (("--reject", "0.95"), 1, "0.95 needs at least 19 held-out images to set a threshold by"),
        (("--unknown", "empty"), 2, "--unknown measures what --reject finds: add --reject 0.95."),
        (("--reject", "0.8", "--unknown", tmp_path / "no"), 1, "there is no folder"),
        (("--reject", "0.8", "--unknown", tmp_path / "empty"), 1, "no picture in"),
    ):
        for command in (("export", run, "--out", out), ("evaluate", run)):
            found = complaint(capsys, *command, *flags)
            assert found[0] == code
            assert text in found[1]
    export = ("export", "--out", out, "--reject", "0.8")
    for words, text in (
        ((run, "--formats", "onnx-int8"), "onnx-int8 computes in 256 steps"),
        (("--model", "squeezenet"), "--reject is set on held-out images: export a run."),
    ):
        code, err = complaint(capsys, *export, *words)
        assert code == 2
        assert text in err
    code, err = complaint(capsys, "evaluate", "http://127.0.0.1:1", "--reject", "0.8")
    assert "--reject is fitted to a run" in err
    assert not out.exists()


def test_the_gate_compares_what_is_known():
    shares = np.full((2000, 2), 0.5)
    known = np.arange(2000) % 2 == 0
    other = known ^ (np.arange(2000) < 2)
    compared = parity.compare("x", Answer(shares, known), Answer(shares, other), None, None)
    assert compared["known_agreement"] == 0.999
    other = known ^ (np.arange(2000) < 3)
    with pytest.raises(ParityError, match=r"x: 0\.0015 of the images are known to one"):
        parity.compare("x", Answer(shares, known), Answer(shares, other), None, None)
    rounded = parity.compare("x", Answer(shares, known), Answer(shares, other), None, 0.01)
    assert rounded["known_agreement"] == 0.9985
    with pytest.raises(ParityError, match="x: it does not tell which images are known"):
        parity.compare("x", Answer(shares, known), Answer(shares), None, None)


@pytest.mark.slow
def test_every_format_tells_what_is_known(run, tmp_path, monkeypatch):
    splits, model = Run.open(run).splits(), network()
    rule = rejection.fit(model, splits, 0.8)
    held_out = held_out_images(splits, None)
    images = np.concatenate([held_out.images, 255 - held_out.images])
    expected = parity.ask(model, images, rule)
    assert 9 <= expected.known[:12].sum() <= 12
    assert not expected.known[12:].any()
    names = ["litert", "litert-float16", "litert-dynamic", "onnx", "openvino", "keras"]
    pictures, about = parity.HeldOut(images), Description("colour", LABELS, {})
    report = formats.convert(
        model, tmp_path, names, pictures, about, max_accuracy_drop=0.2, rejection=rule
    )
    for name in names:
        rounded = name in runtimes.ROUNDED
        assert report[name]["known_agreement"] >= (0.8 if rounded else 1)
        answer = artifacts.open(tmp_path / report[name]["file"]).answer(images[:5])
        assert rounded or answer.known.tolist() == expected.known[:5].tolist()
        np.testing.assert_allclose(answer.probabilities, expected.probabilities[:5], atol=0.02)
    details = runtimes.litert_interpreter(tmp_path / "model.tflite").get_output_details()
    assert [each["shape"][-1] for each in details] == [3, 1]  # who reads one reads probabilities
    with pytest.raises(ExportError, match="litert-int8"):
        formats.convert(
            model, tmp_path, ["litert-int8"], held_out, rejection=rule, representative=images
        )
    # A file with another threshold is not let through.
    monkeypatch.setattr(
        formats,
        "rejecting",
        lambda model, rule: rules.rejecting(model, rules.dataclasses.replace(rule, threshold=1e9)),
    )
    with pytest.raises(ParityError, match=r"onnx: .* of the images are known to one"):
        formats.convert(model, tmp_path, ["onnx"], parity.HeldOut(images), rejection=rule)
