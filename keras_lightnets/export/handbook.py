"""The README of a ready directory: how to start a server and how to call it."""

from __future__ import annotations

from collections.abc import Sequence

from keras_lightnets.export.tf_serving import GRPC_PORT, METRICS_PATH, REST_PORT

_README = """# Models for TensorFlow Serving

{models}

Each folder holds numbered versions; a server takes the highest and switches when a higher one
appears. `assets.extra/` in a version has `labels.txt` (and `labels.json`, if a line cannot hold a
name), `metadata.json` (input size, classes), `parity.json` (how it was compared with the trained
network), the warm-up requests and the self-test.

`SHA256SUMS` in a version has the digest of every file: `(cd {name}/1 && sha256sum -c SHA256SUMS)`
names those that were damaged on the way, and `lightnets verify .` also those that were added.

## Start

    docker compose up        # {image}; REST on {REST_PORT}, gRPC on {GRPC_PORT}, this machine only

or `lightnets serve .`, or `kubectl apply -f kserve.yaml` once the models are in a volume claim
named `models` (in URLs they have the names of that file then).

| | reads | ignores |
|---|---|---|
| `docker compose up` | `compose.yaml`, `models.config`, `monitoring.config`, \
`batching_parameters.txt` | `kserve.yaml` |
| `kubectl apply -f kserve.yaml` | `kserve.yaml`: one service for each model | all others, \
so pins, labels and batching too |

Change these files as you like. Later exports add a new model to a changed `models.config`; any
other file stays as you left it, and beside it goes what would have been written, as `FILE.new`.

## Versions

To go back, move the folder of the newest version away: the server returns to the one before. To
keep to one, say so in its entry of `models.config`, then restart the server:

    model_version_policy {{ specific {{ versions: 1 }} }}

A label gives a version another name, `/v1/models/{name}/labels/stable:predict`:

    version_labels {{ key: "stable" value: 1 }}

A server that is started without `--allow_version_labels_for_unavailable_models`, as in
`compose.yaml`, refuses a file with labels.

## Batching

`batching_parameters.txt` holds a start, not a measurement: change it to what your load needs.
Later exports leave the file alone. The largest batch must not be below that of a version's warm-up
requests (`warmup_batch_sizes` in `metadata.json`): a server would refuse the version.

## Is it ready?

The answer is 200 also while no version is available; read `state`.

```sh
curl -s http://127.0.0.1:{REST_PORT}/v1/models/{name}
```

## Are its answers right?

A version brings a few images with the trained network's answers. Its self-test needs Python alone:
it asks the server for them, sends an image of another shape and a broken file, and measures
latency. A line for each check, exit code 0 or 1. Here for version 1:

```sh
python3 {name}/1/assets.extra/selftest.py http://127.0.0.1:{REST_PORT}
```

An address such as `https://HOST/v1/models/NAME/labels/canary` asks a label, or a model under
another name.

## Metrics

Counts and latencies for Prometheus, of TensorFlow Serving itself:

```sh
curl -s http://127.0.0.1:{REST_PORT}{METRICS_PATH}
```

## Classify a file

JPEG, PNG, BMP or GIF of any size, as base64. `classes` and `scores` name the best classes;
`probabilities` are in the order of `labels.txt`; `valid` is false for a file that is no image.

```sh
printf '{{"signature_name": "serve_bytes", "instances": [{{"b64": "%s"}}]}}' \\
  "$(base64 -w0 picture.png)" |
  curl -s -d @- http://127.0.0.1:{REST_PORT}/v1/models/{name}:predict
```

With Python's standard library:

```python
import base64, json, pathlib, urllib.request

picture = base64.b64encode(pathlib.Path("picture.png").read_bytes()).decode()
body = {{"signature_name": "serve_bytes", "instances": [{{"b64": picture}}]}}
request = urllib.request.Request(
    "http://127.0.0.1:{REST_PORT}/v1/models/{name}:predict", json.dumps(body).encode()
)
answer = json.load(urllib.request.urlopen(request))["predictions"][0]
print(answer["classes"][0], answer["scores"][0])
```

By gRPC, with the package `tensorflow-serving-api`:

```python
import pathlib

import grpc
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

# gRPC's own limit of 4 MiB is less than eight float images of 224 pixels.
channel = grpc.insecure_channel(
    "127.0.0.1:{GRPC_PORT}", options=[("grpc.max_receive_message_length", 64 << 20)]
)
request = predict_pb2.PredictRequest()
request.model_spec.name = "{name}"
request.model_spec.signature_name = "serve_bytes"
picture = pathlib.Path("picture.png").read_bytes()
request.inputs["image_bytes"].CopyFrom(tf.make_tensor_proto([picture]))
answer = prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict(request, 30)
classes, scores = (tf.make_ndarray(answer.outputs[name]) for name in ("classes", "scores"))
print(classes[0, 0].decode(), scores[0, 0])
```
"""


def handbook(names: Sequence[str], image: str) -> str:
    """Returns the README, in Markdown, of a directory that holds the models `names`.

    Its calls name the first model and the default ports; a test runs them.

    Args:
        names: Of the models, at least one.
        image: Container image of TensorFlow Serving.
    """
    name = names[0]
    models = "\n".join(f"- `{each}`" for each in names)
    return _README.format(
        GRPC_PORT=GRPC_PORT,
        METRICS_PATH=METRICS_PATH,
        REST_PORT=REST_PORT,
        image=image,
        models=models,
        name=name,
    )
