"""Batching parameters from a measurement: what is chosen, and what an export does with it."""

import json
import pathlib
import re

import pytest
import tensorflow as tf
import yaml
from tensorflow_serving.apis import prediction_log_pb2
from test_export import small_net

import keras_lightnets
from keras_lightnets.serving import deployment, gate, tuning
from keras_lightnets.serving.errors import ExportError
from keras_lightnets.serving.server import batching_parameters
from keras_lightnets.serving.server.batching_parameters import BatchingParameters
from keras_lightnets.serving.tuning import Throughput, Wait
from keras_lightnets.serving.warmup import WARMUP_FILE
from training.cli import main


def test_the_smallest_batch_and_fewest_threads_that_are_as_good_as_the_best():
    rates = {(1, 1): 50, (8, 1): 96, (8, 2): 97, (16, 1): 90, (16, 2): 100, (32, 2): 99}
    rows = [Throughput(*setting, rate, 1.0) for setting, rate in rates.items()]
    chosen = tuning.choose_batch(rows)
    assert (chosen.batch_size, chosen.threads) == (8, 1)
    rows = [row for row in rows if (row.batch_size, row.threads) != (8, 1)]
    assert tuning.choose_batch(rows).threads == 2
    assert tuning.choose_batch([Throughput(1, 1, 94, 1), Throughput(2, 1, 100, 1)]).batch_size == 2


def test_the_shortest_wait_that_is_as_good_as_the_best():
    assert tuning.choose_wait([Wait(0, 96, 9), Wait(1000, 100, 9)]).timeout_us == 0
    assert tuning.choose_wait([Wait(0, 90, 9), Wait(1000, 96, 9), Wait(9, 100, 9)]).timeout_us == 9


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    base, lines = tmp_path_factory.mktemp("tuned"), []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gate, "run", lambda *_, **__: {"images": 16, "signatures": {}})
        path = keras_lightnets.export_saved_model(
            small_net(), base, warmup_batch_sizes=(1, 2, 4), tune_seconds=1, progress=lines.append
        )
    return base, path, lines


def test_what_was_measured_is_written_whatever_the_start(tmp_path):
    # A measurement may by chance equal what is written without one: this one cannot.
    parameters = BatchingParameters(
        max_batch_size=3, batch_timeout_us=7, threads=5, allowed_batch_sizes=(1, 3)
    )
    measured = tuning.Tuning(parameters, (), (), 1, "a machine", "2026-01-01")
    path = tmp_path / "batching_parameters.txt"
    path.write_text(deployment.batching_text((1, 3), measured))
    assert batching_parameters.read(path) == parameters


def warmed_up(version):
    sizes = set()
    for record in tf.data.TFRecordDataset(str(version / WARMUP_FILE)).as_numpy_iterator():
        log = prediction_log_pb2.PredictionLog.FromString(record)
        (tensor,) = log.predict_log.request.inputs.values()
        sizes.add(tensor.tensor_shape.dim[0].size)
    return sorted(sizes)


def test_the_file_holds_what_was_measured_and_the_warm_up_fits(tuned):
    # Mutations: defaults written whatever was measured; warm-up of sizes that are not allowed.
    base, path, lines = tuned
    about = json.loads((path / "assets.extra" / "tuning.json").read_text())
    parameters = batching_parameters.read(base / "batching_parameters.txt")
    rows = [Throughput(**row) for row in about["throughputs"]]
    chosen = tuning.choose_batch(rows)
    assert {row.batch_size for row in rows} == {1, 2, 4}
    assert (parameters.max_batch_size, parameters.threads) == (chosen.batch_size, chosen.threads)
    assert parameters.allowed_batch_sizes == tuple(s for s in (1, 2, 4) if s <= chosen.batch_size)
    waits = [Wait(**row) for row in about["waits"]]
    assert parameters.batch_timeout_us == tuning.choose_wait(waits).timeout_us
    assert warmed_up(path) == list(parameters.allowed_batch_sizes)
    metadata = json.loads((path / "assets.extra" / "metadata.json").read_text())
    assert metadata["warmup_batch_sizes"] == list(parameters.allowed_batch_sizes)
    assert sum(", batch " in line for line in lines) == 2 * len(rows)
    for text in ((base / "README.md").read_text(), (base / "batching_parameters.txt").read_text()):
        assert (
            f"| {rows[0].batch_size} | {rows[0].threads} | {rows[0].images_per_second:.0f}" in text
        )
    compose = yaml.safe_load((base / "compose.yaml").read_text())
    assert "--enable_batching" in compose["services"]["serving"]["command"]


def test_batches_of_published_warm_ups_stay_allowed(tuned):
    """A server that goes back to an older version must be able to warm it up."""
    path = tuned[1]
    files = [tf.io.encode_png(tf.zeros((9, 9, 3), tf.uint8)).numpy()]
    result = tuning.tune(path, files, seconds=0.1, least_batch=64, batch_sizes=(1,))
    assert result.parameters.allowed_batch_sizes == (1, 64)


def test_every_turn_shows_what_it_measured(tuned, monkeypatch):
    """Caught: the better of two turns shown twice, as if they had been alike."""
    rates = iter(range(900, 0, -1))
    monkeypatch.setattr(tuning, "_throughput", lambda _, *b: Throughput(*b[:2], next(rates), 1.0))
    monkeypatch.setattr(
        tuning, "_wait", lambda _, __, ___, p, *____: Wait(p.threads, next(rates), 1)
    )
    lines = []
    tuning.tune(tuned[1], [b""], seconds=1, batch_sizes=(1,), progress=lines.append)
    shown = [int(re.search(r"(\d+) images/s", line)[1]) for line in lines]
    assert shown == list(range(900, 900 - len(lines), -1))


def test_a_later_export_follows_the_file(tmp_path, tuned):
    base, _, _ = tuned
    text = (base / "batching_parameters.txt").read_text()
    allowed = list(batching_parameters.read(base / "batching_parameters.txt").allowed_batch_sizes)
    assert deployment.warmup_sizes(base, None) == allowed
    assert deployment.warmup_sizes(tmp_path, None) == [1, 2, 4, 8, 16, 32]
    assert deployment.largest_warmup(base) == allowed[-1]
    staged = deployment.stage_ready_files(base, tmp_path, "small", allowed)
    assert "batching_parameters.txt" not in [path.name for path in staged]
    assert "Measured on " in (tmp_path / "README.md").read_text()  # the measurement stays in it
    assert (base / "batching_parameters.txt").read_text() == text


def test_a_warm_up_that_servers_would_refuse_is_refused(tmp_path):
    path = tmp_path / "batching_parameters.txt"
    path.write_text("max_batch_size { value: 8 }")
    assert deployment.warmup_sizes(tmp_path, None) == [1, 2, 4, 8]
    path.write_text("max_batch_size { value: 8 }\nallowed_batch_sizes: 3\nallowed_batch_sizes: 8")
    assert deployment.warmup_sizes(tmp_path, None) == [3, 8]
    with pytest.raises(ExportError, match=r"goes up to 16, but .*allows batches of 8"):
        keras_lightnets.export_saved_model(small_net(), tmp_path, warmup_batch_sizes=[1, 16])
    path.write_text("max_batch_sise { value: 8 }")
    with pytest.raises(ExportError, match=r"Mend or remove .*batching_parameters.txt"):
        keras_lightnets.export_saved_model(small_net(), tmp_path)
    assert [p.name for p in pathlib.Path(tmp_path).iterdir()] == [path.name]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--tune", "--tune-seconds", "0"], "--tune-seconds is above 0, to 3600"),
        (["--tune-seconds", "nan"], "--tune-seconds is above 0"),
        (["--tune", "--formats", "onnx"], "--tune measures a SavedModel: add tf_serving"),
    ],
)
def test_bad_arguments(tmp_path, monkeypatch, capsys, arguments, text):
    monkeypatch.chdir(tmp_path)
    assert main(["export", "none", "--out", "out", *arguments]) == 2
    assert text in capsys.readouterr().err
