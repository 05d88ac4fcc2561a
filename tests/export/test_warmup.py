"""The warm-up file, read with TF Serving's own messages, and the batching file beside it."""

import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

import keras_lightnets
from keras_lightnets.errors import ExportError
from keras_lightnets.export import bundle, deployment
from keras_lightnets.export.warmup import WARMUP_FILE, read_warmup
from tests.exports import SIZE, Served, small_net


@pytest.fixture
def exported(small_export):
    return small_export[1]


def test_every_signature_and_batch_size_is_warmed_up(exported):
    served = Served(exported)
    seen = []
    for record in tf.data.TFRecordDataset(str(exported / WARMUP_FILE)).as_numpy_iterator():
        log = prediction_log_pb2.PredictionLog.FromString(record)
        # The same bytes as the official message gives: nothing is unknown or misplaced.
        assert log.SerializeToString(deterministic=True) == record
        request = log.predict_log.request
        assert request.model_spec.name == "small"
        ((_, tensor),) = request.inputs.items()
        values = tf.make_ndarray(tensor)
        signature = request.model_spec.signature_name
        answer = served(signature, values)
        assert np.isfinite(answer["features" if signature == "features" else "scores"]).all()
        kinds = [file[:4] for file in values] if signature == "serve_bytes" else []
        seen.append((signature, len(values), kinds))
    jpeg, png, other = b"\xff\xd8\xff\xe0", b"\x89PNG", b"no i"
    expected = [
        *(
            (signature, batch, [])
            for signature in ("features", "serving_default")
            for batch in (1, 4)
        ),
        *(("serve_bytes", batch, batch * [jpeg]) for batch in (1, 4)),
        # The first of these would take its client half a second.
        ("serve_bytes", 1, [png]),
        ("serve_bytes", 4, [jpeg, jpeg, jpeg, other]),
    ]
    assert sorted(seen, key=repr) == sorted(expected, key=repr)
    assert (exported / WARMUP_FILE).stat().st_size < SIZE[0] * SIZE[1] * 3 * 4


def test_batching_is_consistent_and_kept(exported):
    base = exported.parent.parent
    path = base / "batching_parameters.txt"
    text = path.read_text()
    assert "max_batch_size { value: 4 }" in text
    allowed = [int(row.split()[1]) for row in text.splitlines() if row.startswith("allowed")]
    assert allowed == [1, 4]  # the last one must equal the maximum
    with bundle.staging(base) as staged:
        deployment.stage_ready_files(base, staged, "small", 2, [1, 2])
        assert not (staged / path.name).exists()


def test_a_warm_up_that_servers_would_refuse_is_refused(tmp_path):
    path = tmp_path / "batching_parameters.txt"
    assert deployment.warmup_sizes(tmp_path, None) == [1, 2, 4, 8, 16, 32]
    path.write_text("max_batch_size { value: 8 }")
    assert deployment.warmup_sizes(tmp_path, None) == [1, 2, 4, 8]
    path.write_text("num_batch_threads { value: 2 }")  # TensorFlow Serving's own maximum
    assert deployment.warmup_sizes(tmp_path, [1000]) == [1000]
    for text in (
        "max_batch_size { value: 8 }\nallowed_batch_sizes: 3\nallowed_batch_sizes: 8",
        "# max_batch_size { value: 4 }\nmax_batch_size: {value:8} allowed_batch_sizes : [3, 8]",
    ):
        path.write_text(text)
        assert deployment.warmup_sizes(tmp_path, None) == [3, 8]
    with pytest.raises(ExportError, match=r"goes up to 16, but .*allows batches of 8"):
        keras_lightnets.export_saved_model(
            small_net(),
            tmp_path,
            options=keras_lightnets.ExportOptions(warmup_batch_sizes=[1, 16]),
        )
    path.write_bytes(b"\xff")
    with pytest.raises(ExportError, match=r"Mend or remove .*batching_parameters.txt"):
        keras_lightnets.export_saved_model(small_net(), tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_a_warm_up_file_that_is_none_is_named(tmp_path):
    assert list(read_warmup(tmp_path)) == []
    path = tmp_path / WARMUP_FILE
    path.parent.mkdir()
    for record, text in (
        (b"\xff", "is no PredictionLog"),
        (prediction_log_pb2.PredictionLog().SerializeToString(), "is no Predict request"),
    ):
        with tf.io.TFRecordWriter(str(path)) as writer:
            writer.write(record)
        with pytest.raises(ValueError, match=f"Record 0 of .* {text}"):
            list(read_warmup(tmp_path))
