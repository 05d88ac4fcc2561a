"""How requests travel over gRPC, with TF Serving's own messages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from keras_lightnets.serving.transport import HTTP_STATUSES, ClientError, RetryPolicy, Spec

try:
    import grpc
    from tensorflow_serving.apis import (
        get_model_metadata_pb2,
        get_model_status_pb2,
        model_pb2,
        model_service_pb2_grpc,
        predict_pb2,
        prediction_service_pb2_grpc,
    )
except ImportError as error:
    raise ClientError(
        f"gRPC needs {error.name}: pip install 'keras-lightnets[serve]', or use http://"
    ) from error

import numpy as np
import tensorflow as tf
from google.protobuf import json_format

# How gRPC's details begin when it was no server that said UNAVAILABLE.
_UNREACHED = ("failed to connect", "DNS resolution failed")


class GrpcTransport:
    """TF Serving's gRPC API.

    Args:
        address: `HOST:PORT`.
        policy: Time-out and retries.
    """

    def __init__(self, address: str, policy: RetryPolicy) -> None:
        self._address, self._policy = address, policy
        # gRPC's default of 4 MiB for answers is less than a large batch of features.
        self._channel = grpc.insecure_channel(
            address,
            options=[
                ("grpc.max_receive_message_length", -1),
                ("grpc.max_send_message_length", -1),
            ],
        )
        self._predict = prediction_service_pb2_grpc.PredictionServiceStub(self._channel)
        self._model = model_service_pb2_grpc.ModelServiceStub(self._channel)

    def models(self) -> list[str]:
        raise ClientError("gRPC has no call that lists the models", status=501)

    def status(self, spec: Spec) -> list[dict[str, Any]]:
        request = get_model_status_pb2.GetModelStatusRequest(model_spec=_model_spec(spec))
        response = self._call(self._model.GetModelStatus, request)
        return as_dict(response)["model_version_status"]

    def metadata(self, spec: Spec) -> dict[str, Any]:
        request = get_model_metadata_pb2.GetModelMetadataRequest(
            model_spec=_model_spec(spec), metadata_field=["signature_def"]
        )
        response = self._call(self._predict.GetModelMetadata, request)
        signatures = get_model_metadata_pb2.SignatureDefMap()
        response.metadata["signature_def"].Unpack(signatures)
        return {
            "model_spec": as_dict(response.model_spec),
            "metadata": {"signature_def": as_dict(signatures)},
        }

    def predict(self, spec: Spec, signature_name: str, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """See `Client.predict`."""
        request = predict_pb2.PredictRequest(model_spec=_model_spec(spec))
        request.model_spec.signature_name = signature_name
        for name, value in inputs.items():
            request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
        response = self._call(self._predict.Predict, request)
        return {name: _plain(tf.make_ndarray(p)) for name, p in response.outputs.items()}

    def close(self) -> None:
        self._channel.close()

    def _call(self, method: Any, request: Any) -> Any:
        def attempt() -> Any:
            try:
                return method(request, timeout=self._policy.timeout_s)
            except grpc.RpcError as error:
                details = error.details() or ""
                if error.code() is grpc.StatusCode.UNAVAILABLE and details.startswith(_UNREACHED):
                    # A server that was never reached has no status, as with REST.
                    reason = details.rpartition("last error: ")[2]
                    raise ClientError(f"Cannot reach grpc://{self._address}: {reason}") from error
                status = HTTP_STATUSES.get(error.code().name, 500)
                if "larger than max" in details:  # it would be no smaller next time
                    status = 413
                raise ClientError(
                    f"grpc://{self._address} answered {error.code().name}: {details}",
                    status,
                ) from error

        return self._policy.run(attempt)


def _model_spec(spec: Spec) -> model_pb2.ModelSpec:
    model, version, label = spec
    message = model_pb2.ModelSpec(name=model)
    if version is not None:
        message.version.value = version
    elif label is not None:
        message.version_label = label
    return message


def as_dict(message: Any) -> dict[str, Any]:
    """A message as TF Serving's JSON has it."""
    return json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )


def _plain(array: np.ndarray) -> Any:
    if array.dtype == object:
        array = np.vectorize(lambda value: value.decode("utf-8", "replace"), otypes=[object])(array)
    return array.tolist()
