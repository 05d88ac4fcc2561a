"""From a Keras model to answers over both APIs: the real export on the embedded server."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from serving_models import serving

import keras_lightnets
from keras_lightnets.serving import Client, ClientError

SIZE = 32  # pixels
NAMES = ["zero", "one", "two", "three"]


def test_an_exported_network_answers_like_keras(tmp_path):
    keras.utils.set_random_seed(0)
    model = keras_lightnets.ShuffleNetV1(
        (SIZE, SIZE, 3), alpha=0.5, classes=len(NAMES), include_preprocessing=True
    )
    keras_lightnets.export_saved_model(model, tmp_path, NAMES, name="net", warmup_batch_sizes=[1])
    (tmp_path / "batching_parameters.txt").write_text(
        "max_batch_size { value: 8 } allowed_batch_sizes: 1 allowed_batch_sizes: 8"
    )
    images = np.random.default_rng(0).integers(0, 256, (5, SIZE, SIZE, 3), np.uint8)
    files = [tf.io.encode_png(image).numpy() for image in images]
    expected = model.predict(images, verbose=0)
    with serving(tmp_path) as server:
        assert "version 1 loaded, 2 warm-up requests" in server.output
        for url in (server.url + "/v1/models/net", server.grpc_url + "/net"):
            with Client(url, batch_size=2) as client:
                for inputs, signature in (
                    ({"images": images}, "serving_default"),
                    ({"image_bytes": files}, "serve_bytes"),
                ):
                    outputs = client.predict(inputs, signature)
                    np.testing.assert_allclose(outputs["probabilities"], expected, atol=1e-4)
                answers = client.classify(files, top=1)
                assert [a[0][0] for a in answers] == [NAMES[i] for i in expected.argmax(-1)]
                for broken in ([files[0], b"no image"], [b"no image"]):
                    with pytest.raises(ClientError, match=rf"Image {len(broken) - 1}: "):
                        client.classify(broken)
