"""From a Keras model to answers over both APIs: the real export on the embedded server."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from keras_lightnets.preprocessing import evaluation_image
from keras_lightnets.serving import Client, ClientError
from tests.exports import LABELS, TRANSFORM, photos


@pytest.mark.parametrize("api", ["REST", "gRPC"])
def test_an_exported_network_answers_like_keras(small_export, small_server, api):
    if "stand-in" in small_server.output:
        assert "version 1 loaded, 8 warm-up requests" in small_server.output
    files = photos()[:4]  # as many as its largest batch
    images = np.stack([evaluation_image(tf.constant(file), TRANSFORM) for file in files])
    expected = small_export[0].predict_on_batch(images.astype("float32"))
    names = [[LABELS[number] for number in row] for row in np.argsort(-expected)[:, :5]]
    url = {"REST": f"{small_server.url}/v1/models/small", "gRPC": f"{small_server.grpc_url}/small"}
    with Client(url[api], batch_size=2) as client:
        for inputs, signature in (
            ({"images": images}, "serving_default"),
            ({"image_bytes": files}, "serve_bytes"),
        ):
            outputs = client.predict(inputs, signature)
            np.testing.assert_allclose(outputs["probabilities"], expected, atol=1e-5)
            assert outputs["classes"] == names
        assert [answer[0][0] for answer in client.classify(files)] == [row[0] for row in names]
        for broken in ([files[0], b"no image"], [b"no image"]):
            with pytest.raises(ClientError, match=f"Image {len(broken) - 1}: the server can"):
                client.classify(broken)
