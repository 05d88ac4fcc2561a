"""The warm-up file, read with TF Serving's own messages, and the batching file beside it."""

import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2
from test_export import SIZE, Served

from keras_lightnets.serving import bundle, deployment
from keras_lightnets.serving.warmup import WARMUP_FILE


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
        files = deployment.stage_ready_files(base, staged, "small", [1, 2])
    assert path.name not in [file.name for file in files]
